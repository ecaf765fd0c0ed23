//! What the child is before it becomes its command: this program again, as `fencelock __exec PID QUIET CMD…`.
//!
//! A process can ask for its parent's death to end it only from inside, between its start and its exec. Doing that in
//! a process of our own needs no unsafe code.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use crate::exit::{NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE};
use crate::voice::{Volume, say};

/// Becomes the command. Returns only when that fails, with the exit code.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let parent = args.next().and_then(|pid| pid.to_str()?.parse().ok());
    let quiet = args.next().and_then(|quiet| quiet.to_str()?.parse().ok());
    let (Some(parent), Some(quiet), Some(program)) = (parent, quiet, args.next()) else {
        say("__exec is for fencelock itself");
        return OWN_FAILURE;
    };
    Volume::quiet_if(quiet).set();
    if let Err(error) = stand_at_the_gate(parent) {
        say(format_args!("cannot prepare the command: {error}"));
        return OWN_FAILURE;
    }
    let error = Command::new(&program).args(args).exec();
    say(format_args!("cannot run {}: {error}", program.display()));
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// Stops until the wrapper says that the guardian watches. Until then the wrapper's death is this process's too, at once;
/// afterwards the command is asked to end, and the guardian sees to the rest.
fn stand_at_the_gate(parent: i32) -> io::Result<()> {
    end_with(parent, Signal::KILL)?;
    kill_process(getpid(), Signal::STOP)?;
    end_with(parent, Signal::TERM)
}

fn end_with(parent: i32, signal: Signal) -> io::Result<()> {
    set_parent_process_death_signal(Some(signal))?;
    // It may have died before the kernel was asked.
    if getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent) {
        Ok(())
    } else {
        Err(io::Error::other("fencelock was killed"))
    }
}
