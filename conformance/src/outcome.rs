//! How a scenario ends.

use std::fmt;
use std::panic::Location;

use lockcore::{ConvertError, Error};
use tokio::task::JoinError;

use crate::harness::HookError;

/// How a scenario ends: well, or stopped.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a scenario stopped.
#[derive(Clone, Debug)]
pub enum Stop {
    /// The backend does not do what a rule says.
    Failed(String),
    /// It cannot be played here, and this is why.
    Skipped(String),
}

impl Stop {
    /// A failure, with where it was noticed.
    #[track_caller]
    pub(crate) fn failed(message: impl fmt::Display) -> Stop {
        let at = Location::caller();
        let file = at.file().rsplit('/').next().unwrap_or_default();
        Stop::Failed(format!("{message} ({file}:{})", at.line()))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Failed(message) => f.write_str(message),
            Stop::Skipped(reason) => write!(f, "skipped: {reason}"),
        }
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Stop {
        Stop::failed(format_args!("an error that nothing explains: {error}"))
    }
}

impl<M: lockcore::LockMode> From<ConvertError<M>> for Stop {
    #[track_caller]
    fn from(error: ConvertError<M>) -> Stop {
        Stop::failed(format_args!("an error that nothing explains: {}", error.error()))
    }
}

impl From<HookError> for Stop {
    #[track_caller]
    fn from(error: HookError) -> Stop {
        match error {
            HookError::NotSupported(_) => Stop::Skipped(error.to_string()),
            HookError::Failed(_) => Stop::failed(error),
        }
    }
}

impl From<JoinError> for Stop {
    #[track_caller]
    fn from(error: JoinError) -> Stop {
        Stop::failed(format_args!("a task of the scenario ended badly: {error}"))
    }
}

/// Fails the scenario, saying what is wrong, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::outcome::Stop::failed(format_args!($($message)+)));
        }
    };
}

/// Fails the scenario unless both are equal; `what` names what was compared.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($what:tt)+) => {
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => {
                let what = format!($($what)+);
                return Err($crate::outcome::Stop::failed(format_args!("{what}: {left:?}, not {right:?}")));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq};
