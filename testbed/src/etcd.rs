//! A real etcd server for a test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::folder::Folder;
use crate::ports;
use crate::process::{Process, Program};
use crate::tools::{built, require};
use crate::wait::{PATIENCE, wait_for};

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdVersion {
    /// The distribution's, 3.4.
    Installed,
    /// The one that `cargo xtask setup` builds, 3.6.
    Built,
}

/// An etcd of one member, on free ports of 127.0.0.1, with its data in a temporary folder.
///
/// Dropping the handle kills the server and removes the folder; the server also dies with the test process.
///
/// # Examples
/// ```
/// use testbed::EtcdServer;
/// let server = EtcdServer::start().unwrap();
/// assert_eq!(server.url(), format!("etcd://127.0.0.1:{}", server.port()));
/// ```
#[derive(Debug)]
pub struct EtcdServer {
    // Before the folder: a server must be gone before its folder goes.
    process: Mutex<Option<Process>>,
    port: u16,
    program: Program,
    folder: Folder,
}

impl EtcdServer {
    /// Starts the newest version that is there.
    ///
    /// # Errors
    /// As [`start_version`](Self::start_version).
    pub fn start() -> io::Result<Self> {
        let newest = if built(BUILT).is_ok() { EtcdVersion::Built } else { EtcdVersion::Installed };
        Self::start_version(newest)
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// `NotFound`, with the advice to run `cargo xtask setup`, when that version is not there; the end of the server's log when
    /// it does not start.
    pub fn start_version(version: EtcdVersion) -> io::Result<Self> {
        // Between the choice of a port and etcd's use of it another process may take it.
        let mut attempt = 1;
        loop {
            match Self::start_on(version, ports::free()?, ports::free()?) {
                Err(error) if attempt < 5 && error.to_string().contains("address already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn start_on(version: EtcdVersion, port: u16, peer_port: u16) -> io::Result<Self> {
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        let mut args: Vec<String> = [
            ("--name", "one"),
            ("--data-dir", "data"),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("one={peer}")),
            ("--log-level", "warn"),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_owned()])
        .collect();
        let (name, file) = match version {
            EtcdVersion::Installed => ("etcd", require("etcd")?),
            EtcdVersion::Built => {
                // What a killed process has written stays all the same; only a machine's crash would lose it.
                args.push("--unsafe-no-fsync".into());
                (BUILT, built(BUILT)?)
            }
        };
        let folder = Folder::new()?;
        let dir = folder.path().to_owned();
        let program = Program { name, file: Some(file), args, env: Vec::new(), dir };
        let server = EtcdServer { process: Mutex::new(None), port, program, folder };
        server.launch(&mut server.process())?;
        Ok(server)
    }

    /// Gives the URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// Gives the URL with another address in it: that of a [`Proxy`](crate::Proxy) in front of the server.
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr) -> String {
        format!("etcd://{addr}")
    }

    /// Gives the address for clients.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Gives the port for clients, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives the process id of the server, or nothing when it has been killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Asks the server for its version, such as `3.4.23`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> io::Result<String> {
        let answer = self.http("/version")?;
        let version = answer.split_once("\"etcdserver\":\"").and_then(|(_, rest)| rest.split_once('"'));
        version
            .map(|(version, _)| version.to_owned())
            .ok_or_else(|| io::Error::other("no version in the answer"))
    }

    /// Sums up the server's metrics whose line begins so, such as `etcd_server_proposals_committed_total`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, beginning: &str) -> io::Result<f64> {
        let answer = self.http("/metrics")?;
        let lines = answer.lines().filter(|line| line.starts_with(beginning));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Kills the server (SIGKILL) and waits for its end; nothing happens when it has ended already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts the server again on the same ports and data, after a kill if it still runs.
    ///
    /// # Errors
    /// The end of the server's log when it does not start.
    pub fn restart(&self) -> io::Result<()> {
        let mut process = self.process();
        if let Some(mut running) = process.take() {
            running.kill()?;
        }
        self.launch(&mut process)
    }

    /// Stops the server in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.pause()
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.resume()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, slot: &mut Option<Process>) -> io::Result<()> {
        let mut process = Process::start(&self.program, &self.folder.path().join("etcd.log"))?;
        let ready = wait_for("etcd to answer", PATIENCE, || {
            process.check_alive()?;
            let healthy = self.http("/health").is_ok_and(|answer| answer.contains("\"true\""));
            Ok(healthy.then_some(()))
        });
        ready.map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                return io::Error::new(
                    error.kind(),
                    format!("{error}; its log says:\n{}", process.log_end()),
                );
            }
            error
        })?;
        *slot = Some(process);
        Ok(())
    }

    /// Asks the server's HTTP side.
    fn http(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// The name of the program that the set-up builds.
const BUILT: &str = "etcd-3.6";

fn not_running() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this etcd does not run: it was killed")
}
