//! How the command ends: its exit codes, and why.

use fencelock::{Error, ErrorKind};

use crate::voice::{insist, say};

/// The lock was not acquired: `EX_TEMPFAIL` of sysexits, "try again later", which programs seldom use themselves.
pub(crate) const NOT_ACQUIRED: u8 = 75;
/// The lock was lost while the command ran.
pub(crate) const LOST: u8 = 76;
/// `verify` found what no lock may do.
pub(crate) const NOT_EXPLAINED: u8 = 1;
/// `break` found nothing to break.
pub(crate) const NOTHING: u8 = 1;
/// The command line, the backend or this program itself failed, as in timeout(1) and env(1).
pub(crate) const OWN_FAILURE: u8 = 125;
/// The command was found but could not be run, as in a shell.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command was not found, as in a shell.
pub(crate) const NOT_FOUND: u8 = 127;

/// The table for `--help`.
pub(crate) const TABLE: &str = "\
Exit status:
  0-255  the status of CMD itself, except:
  75     the lock was not acquired (or the N of -E N)
  76     the lock was lost while CMD ran, which was ended for it
  125    fencelock itself failed: usage, backend, system
  126    CMD cannot be executed
  127    CMD was not found
  128+n  signal n ended CMD, or ended fencelock while it waited";

/// Why the command ends without a status of its child.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    /// What was asked for makes no sense: whoever asked must be told, `-q` or not.
    misuse: bool,
}

impl Failure {
    /// The system or this program failed.
    pub(crate) fn own(message: impl Into<String>) -> Failure {
        Failure { code: OWN_FAILURE, message: message.into(), misuse: false }
    }

    /// The command line, or the environment, is wrong.
    pub(crate) fn misuse(message: impl Into<String>) -> Failure {
        Failure { misuse: true, ..Failure::own(message) }
    }

    /// An acquire that failed: a lock that others have is a matter of its own, everything else is a failure.
    pub(crate) fn of_acquire(error: &Error, not_acquired: u8) -> Failure {
        // While it waited, or before the child was started: the claim is not held and nothing was done under it.
        let busy = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Lost);
        Failure { code: if busy { not_acquired } else { OWN_FAILURE }, ..Failure::from(error) }
    }

    /// The same failure in other words.
    pub(crate) fn rephrased(self, message: String) -> Failure {
        Failure { message, ..self }
    }

    /// Says why; gives the exit code.
    pub(crate) fn tell(self) -> u8 {
        if self.misuse {
            insist(self.message);
        } else {
            say(self.message);
        }
        self.code
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure { misuse: error.kind() == ErrorKind::InvalidArgument, ..Failure::own(describe(error)) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::from(&error)
    }
}

/// The error with what caused it.
pub(crate) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The status for an end by `signal`.
pub(crate) fn by_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
