//! One thing that a client did or learned.

use lockcore::Mode;
use serde::{Deserialize, Serialize};

/// One thing that a client did or learned, at a moment on a clock that all clients of the history share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since the history began.
    pub at: u64,
    /// Which attempt to hold the lock this belongs to: unique in the history.
    pub attempt: u64,
    /// The locked key.
    pub key: String,
    /// What happened.
    #[serde(flatten)]
    pub act: Act,
}

/// What happened in an attempt to hold a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// It is about to ask. Everything that follows belongs to this attempt.
    Asked {
        /// How it wants to hold.
        mode: Mode,
    },
    /// It was seen in the queue.
    Queued,
    /// It was told that it holds: from here on it believes so.
    Granted {
        /// The token of the grant.
        token: u64,
        /// The floor of the grant.
        floor: u64,
        /// When it stops to believe so unless a renewal is answered; nothing where that is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
    },
    /// A renewal was answered.
    Renewed {
        /// When it stops to believe that it holds, now.
        until: u64,
    },
    /// It wrote to the resource that the lock protects, in the order of the events.
    Wrote {
        /// Whether the resource's gate let it through.
        accepted: bool,
    },
    /// It noticed that it does not hold any more.
    Lost,
    /// It is about to let go: it does not believe that it holds any more.
    Releasing,
    /// It was told that it has let go.
    Released {
        /// The claim had ended before.
        too_late: bool,
    },
    /// It was told that it does not get the lock.
    GaveUp,
    /// Somebody tried to let go of what is not theirs, under this attempt's name, and was told that it worked.
    ForeignRelease {
        /// What the server said.
        released: bool,
    },
}

impl Event {
    /// The event as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and numbers only: it does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Reads a history of one JSON object per line; empty lines are skipped.
///
/// # Errors
/// The number of the first line that is not an event, and what is wrong with it.
pub fn read_json_lines(text: &str) -> Result<Vec<Event>, (usize, serde_json::Error)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| (at + 1, error))).collect()
}
