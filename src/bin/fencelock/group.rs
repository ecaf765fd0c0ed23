//! A process group as a whole: signalling it, and whether anything of it still runs.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

/// Sends `signal` to every process of the group. One that has ended already needs none.
pub(crate) fn signal(group: Pid, signal: Signal) -> rustix::io::Result<()> {
    match kill_process_group(group, signal) {
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a process of the group still runs. One that has ended but was not waited for yet does not.
///
/// Asking the kernel by signal 0 would count those too. When /proc cannot be read the answer is the careful one.
pub(crate) fn is_running(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let group = group.as_raw_nonzero().get();
    processes.flatten().any(|process| {
        let name = process.file_name();
        let is_process = name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        is_process && fs::read_to_string(process.path().join("stat")).is_ok_and(|stat| runs_in(&stat, group))
    })
}

/// Whether a line of /proc/PID/stat, "pid (name) state ppid pgrp …", tells of a running process of `group`. The name may
/// have blanks and parentheses in it.
fn runs_in(stat: &str, group: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next();
    let its_group = fields.nth(1).and_then(|field| field.parse().ok());
    its_group == Some(group) && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_understood() {
        assert!(runs_in("42 (a) b) S 1 7 7 0 -1", 7));
        assert!(!runs_in("42 (a) b) Z 1 7 7 0 -1", 7));
        assert!(!runs_in("42 (sh) R 7 8 7 0 -1", 7));
        assert!(!runs_in("", 7));
    }

    #[test]
    fn the_own_group_runs_and_an_invented_one_does_not() {
        assert!(is_running(rustix::process::getpgrp()));
        assert!(!is_running(Pid::from_raw(i32::MAX).unwrap()));
    }
}
