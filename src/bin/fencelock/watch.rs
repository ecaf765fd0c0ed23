//! The wrapper's side of its guardian.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::child::own_command;
use crate::clock::Moment;
use crate::orders::{ACTED, Order, READY, WATCHING};

/// How long a guardian may take to start or to answer, on a machine with far too much to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running guardian. When this process ends in whatever way, the guardian notices.
#[derive(Debug)]
pub(crate) struct Guardian {
    process: Child,
    socket: BufReader<UnixStream>,
}

impl Guardian {
    /// Starts a guardian, which gives a child `grace` between TERM and KILL.
    pub(crate) async fn start(grace: Duration) -> io::Result<Guardian> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = own_command("__guard")
            .arg(grace.as_nanos().to_string())
            // Its own group: what the terminal sends to the job is not for it.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            // A reader of our output must not have to wait for the guardian's end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        let mut guardian = Guardian { process, socket: BufReader::new(UnixStream::from_std(ours)?) };
        guardian.hear(READY).await?;
        Ok(guardian)
    }

    /// Has the guardian watch a process group; it does when this returns.
    pub(crate) async fn watch(&mut self, group: Pid) -> io::Result<()> {
        self.say(Order::Watch(group)).await?;
        self.hear(WATCHING).await
    }

    /// Tells until when the lease lasts; `false` when there is no guardian any more. Never waits: a guardian that reads
    /// nothing must not hold up its wrapper.
    pub(crate) fn tell(&self, deadline: Moment) -> bool {
        let line = format!("{}\n", Order::Deadline(deadline));
        match self.socket.get_ref().try_write(line.as_bytes()) {
            Ok(_) => true,
            // What does not fit is told again with the next renewal.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Sends the guardian away, and tells whether it had to end the child. When this returns it is gone, and signals
    /// nobody any more.
    pub(crate) async fn stand_down(mut self) -> bool {
        let mut report = String::new();
        let goes = async {
            self.say(Order::StandDown).await?;
            self.socket.read_to_string(&mut report).await
        };
        if !matches!(timeout(Duration::from_secs(1), goes).await, Ok(Ok(_))) {
            // It stands still. A killed process signals nobody either.
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
        report.lines().any(|line| line == ACTED)
    }

    async fn say(&mut self, order: Order) -> io::Result<()> {
        let line = format!("{order}\n");
        timeout(PATIENCE, self.socket.get_mut().write_all(line.as_bytes())).await?
    }

    async fn hear(&mut self, expected: &str) -> io::Result<()> {
        let mut line = String::new();
        timeout(PATIENCE, self.socket.read_line(&mut line)).await??;
        if line.trim_end() == expected {
            Ok(())
        } else {
            Err(io::Error::other("the guardian process failed"))
        }
    }
}
