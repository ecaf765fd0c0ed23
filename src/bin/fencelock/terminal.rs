//! The terminal, for a child that reads from it.
//!
//! The child's process group is in the terminal's background, as far as the terminal knows. That does no harm until the
//! child wants to read or to change its settings: then the kernel stops it. If the whole job is in the foreground, the
//! child's group is put there in its place, and goes on. Not before: in a pipeline the terminal may belong to
//! somebody else's `less`.

use std::fs::File;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal, if there is one.
#[derive(Debug)]
pub(crate) struct Terminal(Option<File>);

impl Terminal {
    pub(crate) fn open() -> Terminal {
        Terminal(File::open("/dev/tty").ok())
    }

    /// Gives the terminal to the child's group, if it is ours to give.
    pub(crate) fn give_to(&self, group: Pid) -> bool {
        self.is_at(getpgrp()) && self.put(group)
    }

    /// Takes the terminal back to our own job. Whether it was the child's.
    pub(crate) fn take_from(&self, group: Pid) -> bool {
        self.is_at(group) && self.put(getpgrp())
    }

    fn is_at(&self, group: Pid) -> bool {
        self.0.as_ref().is_some_and(|tty| tcgetpgrp(tty) == Ok(group))
    }

    fn put(&self, group: Pid) -> bool {
        let Some(tty) = &self.0 else { return false };
        // Whoever does this from the background is stopped, unless this signal is blocked.
        let output_stop = SigSet::from(NixSignal::SIGTTOU);
        let Ok(before) = output_stop.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return false };
        let done = tcsetpgrp(tty, group).is_ok();
        let restored = before.thread_set_mask();
        done && restored.is_ok()
    }
}
