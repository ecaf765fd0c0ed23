//! The child as its wrapper sees it: started in a process group of its own, watched, and waited for last of all.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::group;
use crate::voice::{is_quiet, say};

/// This very program, even when its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// A hidden subcommand of this program as a command to start.
pub(crate) fn own_command(name: &str) -> Command {
    let mut command = Command::new(SELF);
    command.arg0("fencelock").arg(name);
    command
}

/// The running child. Its process id, and so its group's, is nobody else's until [`reap`](Workload::reap).
#[derive(Debug)]
pub(crate) struct Workload {
    process: Child,
    group: Pid,
}

impl Workload {
    /// Starts the child, which stands still until [`begin`](Workload::begin).
    pub(crate) fn start(command: &[OsString], env: &[(&str, &OsStr)]) -> io::Result<Workload> {
        let mut shim = own_command("__exec");
        shim.args([std::process::id().to_string(), is_quiet().to_string()]).args(command).process_group(0);
        shim.envs(env.iter().copied());
        let process = shim.spawn()?;
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| io::Error::other("a process id out of range"))?;
        let workload = Workload { process, group };
        // A few milliseconds: the shim does nothing but stop.
        workload.wait(WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        workload.stopped();
        Ok(workload)
    }

    /// Lets the child become its command.
    pub(crate) fn begin(&self) {
        self.signal(Signal::CONT);
    }

    /// The child's process group.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Sends a signal to the child and all its descendants that stayed in its group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = group::signal(self.group, signal) {
            say(format_args!("cannot signal the command: {error}"));
        }
    }

    /// Whether the child itself has ended. It is not waited for yet, so its id stays taken.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // There is no child to wait for: somebody else did.
        self.wait(options).map_or_else(|error| error == Errno::CHILD, |status| status.is_some())
    }

    /// The signal that has stopped the child since the last look.
    pub(crate) fn stopped(&self) -> Option<Signal> {
        let status = self.wait(WaitIdOptions::STOPPED | WaitIdOptions::NOHANG).ok()??;
        status.stopping_signal().and_then(Signal::from_named_raw)
    }

    /// Whether anything of the child's group still runs, the child itself or a descendant.
    pub(crate) fn anything_runs(&self) -> bool {
        group::is_running(self.group)
    }

    /// Takes the child's status. Its id may be given to others from now on, so nobody must signal it any more.
    pub(crate) fn reap(mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }

    fn wait(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        loop {
            match waitid(WaitId::Pid(self.group), options) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }
}
