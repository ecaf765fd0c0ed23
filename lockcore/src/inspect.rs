//! What can be seen of a lock from outside.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::claim::ClaimId;
use crate::key::Key;
use crate::mode::Mode;
use crate::token::FencingToken;

/// One claim as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClaimInfo {
    /// The claim's name.
    pub id: ClaimId,
    /// The mode that it holds, or waits for.
    pub mode: Mode,
    /// In whose name it was made.
    pub owner: Option<Arc<str>>,
    /// What its owner noted.
    pub note: Option<Arc<str>>,
    /// The token of a holder; `None` while it waits.
    pub token: Option<FencingToken>,
    /// How long it has held, or waited.
    pub age: Duration,
    /// How much of its lease is left.
    pub left: Duration,
    /// A holder that waits to become exclusive.
    pub upgrading: bool,
}

impl std::fmt::Display for ClaimInfo {
    /// Such as `exclusive holder web-3 (note "nightly", for 42s)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.token.is_some() { "holder" } else { "waiter" };
        write!(f, "{} {role}", self.mode)?;
        match &self.owner {
            Some(owner) => write!(f, " {owner}")?,
            None => write!(f, " {}", self.id)?,
        }
        f.write_str(" (")?;
        if let Some(note) = &self.note {
            write!(f, "note {note:?}, ")?;
        }
        write!(f, "for {:?})", Duration::from_millis(u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Who holds a key and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Those who hold, by token.
    pub holders: Vec<ClaimInfo>,
    /// Those who wait, in the order in which they will be served.
    pub waiters: Vec<ClaimInfo>,
}

impl Snapshot {
    /// Whether nobody holds the key or waits for it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }
}

/// Where a listing goes on; the default begins one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageToken(pub Option<String>);

/// Some keys of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys that somebody holds or waits for. A key may come twice while the listing goes on.
    pub keys: Vec<Key>,
    /// Where to go on; `None` at the end.
    pub next: Option<PageToken>,
}
