//! What is said on stderr, marked as ours because the child's own output goes there too, and how much of it.

use std::fmt::Display;
use std::sync::OnceLock;

use clap::Args;

/// How much is wanted, as options.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    /// Say on stderr who is in the way, and when the lock is granted, renewed and released
    #[arg(short = 'v', long, conflicts_with = "quiet")]
    verbose: bool,

    /// Say nothing but what is wrong with the command line; the exit status tells the rest
    #[arg(short = 'q', long)]
    quiet: bool,
}

/// One for the process: most of what speaks is far from the command line.
static VOLUME: OnceLock<Volume> = OnceLock::new();

impl Volume {
    /// As `-q`, or as without an option.
    pub(crate) fn quiet_if(quiet: bool) -> Volume {
        Volume { quiet, verbose: false }
    }

    /// Lets this hold from now on. What was set first stays.
    pub(crate) fn set(self) {
        let _ = VOLUME.set(self);
    }
}

pub(crate) fn is_verbose() -> bool {
    VOLUME.get().is_some_and(|volume| volume.verbose)
}

pub(crate) fn is_quiet() -> bool {
    VOLUME.get().is_some_and(|volume| volume.quiet)
}

/// Says what is not well, unless nothing is to be said.
pub(crate) fn say(message: impl Display) {
    if !is_quiet() {
        insist(message);
    }
}

/// Tells what happens, if that is wanted.
pub(crate) fn tell(message: impl Display) {
    if is_verbose() {
        insist(message);
    }
}

/// Says something in any case.
pub(crate) fn insist(message: impl Display) {
    use std::io::Write as _;
    // In one write, so that it stays one line beside what the child writes. Nobody may be listening any more; that
    // must not end a process that guards a child.
    let _ = std::io::stderr().write_all(format!("fencelock: {message}\n").as_bytes());
}
