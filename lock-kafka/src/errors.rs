//! What went wrong: with one request, or with the log itself.

use std::fmt;

use lockcore::{Error, ErrorKind};

/// The backend's name, as errors and logs give it.
pub(crate) const BACKEND: &str = "kafka";

/// Why this client reads the log no further: to go on would be to guess. Found as the source of every error from then on.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// A record of a version of the protocol that is not known here.
    Version(u64),
    /// The state that another client found at this offset is not the state found here.
    Diverged {
        /// The offset.
        at_offset: u64,
    },
    /// What had been read is not in the log any more: a leader without it was elected, or the topic was made anew.
    Truncated,
    /// The log begins after what was to be read next, and has no checkpoint to begin with.
    Missing,
    /// The topic is not the one that this client began with.
    Replaced,
    /// The topic has another number of partitions than it was begun with: locks would be looked for in others.
    Partitions {
        /// How many it was begun with.
        begun: u32,
        /// How many it has.
        found: u32,
    },
    /// The task that reads it has panicked.
    Panicked,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Version(version) => {
                write!(f, "the log has a record of version {version}, and version 1 is known here")
            }
            Halt::Diverged { at_offset } => {
                write!(f, "the checkpoint at offset {at_offset} is not what the log led to here")
            }
            Halt::Truncated => f.write_str("the log has lost records that had been read"),
            Halt::Missing => f.write_str("the log begins after what was to be read, and has no checkpoint"),
            Halt::Replaced => f.write_str("this is not the topic that the client began with"),
            Halt::Partitions { begun, found } => {
                write!(
                    f,
                    "the topic was begun with {begun} partitions, which can never be changed, and has {found}"
                )
            }
            Halt::Panicked => f.write_str("the task that reads the log has panicked"),
        }
    }
}

impl std::error::Error for Halt {}

impl From<Halt> for Error {
    fn from(halt: Halt) -> Error {
        let kind = match halt {
            Halt::Version(_) => ErrorKind::Unsupported,
            Halt::Diverged { .. }
            | Halt::Truncated
            | Halt::Missing
            | Halt::Replaced
            | Halt::Partitions { .. } => ErrorKind::Conflict,
            Halt::Panicked => ErrorKind::Other,
        };
        Error::new(kind, halt.to_string()).with_source(halt)
    }
}

/// The same error for another caller.
pub(crate) fn copy(error: &Error) -> Error {
    let halt = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Halt>());
    match halt {
        Some(halt) => Error::from(halt.clone()).with_kind(error.kind()),
        None => Error::new(error.kind(), error.message()),
    }
}

/// A later record of the same session was read: this one is not in the log before it, and does not count after it.
pub(crate) fn overtaken() -> Error {
    Error::new(ErrorKind::Unavailable, "the record did not reach the log before a later one")
}

/// The session ended while the answer was awaited.
pub(crate) fn session_over() -> Error {
    Error::new(ErrorKind::Indeterminate, "the session ended before the record was read")
}

/// The client was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed")
}

/// The fold answers each kind of record in its own way.
pub(crate) fn unexpected() -> Error {
    Error::new(ErrorKind::Other, "the record was answered as if it were of another kind")
}
