//! What can be wrong with a history.

use std::fmt;

use crate::rules::Rule;

/// Why a history cannot be explained: the rule that is broken, and the attempts that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The events themselves make no sense, such as a grant of an attempt that never asked.
    Nonsense {
        /// Which attempt.
        attempt: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two grants of a key have the same token (S12).
    TokenTwice {
        /// The two attempts.
        attempts: [u64; 2],
        /// Their token.
        token: u64,
    },
    /// A conflicting later holder has the smaller token (S12).
    TokenBack {
        /// The earlier and the later attempt.
        attempts: [u64; 2],
    },
    /// A floor above its own token (S12).
    BadFloor {
        /// Which attempt.
        attempt: u64,
    },
    /// Two who exclude each other believed to hold at the same time (S3).
    Overlap {
        /// The two attempts.
        attempts: [u64; 2],
        /// When, in nanoseconds.
        at: u64,
    },
    /// More permits were held at once than one of them tolerates (S3).
    TooMany {
        /// The attempt that was one too many.
        attempt: u64,
    },
    /// Somebody who asked after another was seen in the queue was granted before it (S4).
    Overtaken {
        /// Who waited, and who overtook.
        attempts: [u64; 2],
    },
    /// The lock was free for too long while somebody waited (S5).
    Asleep {
        /// Who waited.
        attempt: u64,
        /// For how long, in nanoseconds.
        nanos: u64,
    },
    /// An attempt has no end although the history is over (S5).
    Unfinished {
        /// Which attempt.
        attempt: u64,
    },
    /// A release without holding was answered as if it had worked (S14).
    ForeignRelease {
        /// Under whose name.
        attempt: u64,
    },
    /// A write went through although a conflicting later holder had written before (S13).
    StaleWrite {
        /// The attempt that wrote, and the later holder.
        attempts: [u64; 2],
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Nonsense { attempt, why } => write!(f, "attempt {attempt}: {why}"),
            Violation::TokenTwice { attempts: [a, b], token } => {
                write!(f, "attempts {a} and {b} have the same token {token}")
            }
            Violation::TokenBack { attempts: [a, b] } => {
                write!(f, "attempt {b} held after attempt {a}, and has the smaller token")
            }
            Violation::BadFloor { attempt } => write!(f, "attempt {attempt} has a floor above its token"),
            Violation::Overlap { attempts: [a, b], at } => {
                write!(f, "attempts {a} and {b} exclude each other and both hold at {at} ns")
            }
            Violation::TooMany { attempt } => write!(f, "attempt {attempt} is one holder too many"),
            Violation::Overtaken { attempts: [a, b] } => {
                write!(f, "attempt {a} was in the queue before attempt {b} asked, and was granted after it")
            }
            Violation::Asleep { attempt, nanos } => {
                write!(f, "attempt {attempt} waited for {nanos} ns on a free lock")
            }
            Violation::Unfinished { attempt } => write!(f, "attempt {attempt} never came to an end"),
            Violation::ForeignRelease { attempt } => {
                write!(f, "a release without holding, named after attempt {attempt}, was said to have worked")
            }
            Violation::StaleWrite { attempts: [a, b] } => {
                write!(f, "attempt {a} wrote after attempt {b}, a later holder who excludes it")
            }
        }
    }
}

impl std::error::Error for Violation {}

impl Violation {
    /// The attempts that show it.
    #[must_use]
    pub fn attempts(&self) -> Vec<u64> {
        match *self {
            Violation::TokenTwice { attempts, .. }
            | Violation::TokenBack { attempts }
            | Violation::Overlap { attempts, .. }
            | Violation::Overtaken { attempts }
            | Violation::StaleWrite { attempts } => attempts.to_vec(),
            Violation::Nonsense { attempt, .. }
            | Violation::BadFloor { attempt }
            | Violation::TooMany { attempt }
            | Violation::Asleep { attempt, .. }
            | Violation::Unfinished { attempt }
            | Violation::ForeignRelease { attempt } => vec![attempt],
        }
    }

    /// The rule that is broken; none if the events make no sense.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Violation::Nonsense { .. } => None,
            Violation::TokenTwice { .. } | Violation::TokenBack { .. } | Violation::BadFloor { .. } => {
                Some(Rule::S12)
            }
            Violation::Overlap { .. } | Violation::TooMany { .. } => Some(Rule::S3),
            Violation::Overtaken { .. } => Some(Rule::S4),
            Violation::Asleep { .. } | Violation::Unfinished { .. } => Some(Rule::S5),
            Violation::ForeignRelease { .. } => Some(Rule::S14),
            Violation::StaleWrite { .. } => Some(Rule::S13),
        }
    }
}
