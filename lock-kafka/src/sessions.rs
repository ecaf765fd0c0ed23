//! Who speaks in the log, and which of their records count.
//!
//! A record counts if its session is open and its number is larger than that of the session's last one. So of all copies of
//! a record at most one counts, and none after a later record of its session, whatever the network does: what was
//! cancelled cannot come after its cancellation. (Remembering the ids of claims alone does not do that.)
//!
//! The session itself could come twice as well: its `Open` counts only within the window after the end of the log that its
//! client saw, and whoever has closed is remembered for as long. A session that says nothing for a window is over: its
//! `Open` cannot count any more, so it need not be remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Part, Progress};
use crate::record::Id;

/// The sessions of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sessions {
    open: BTreeMap<Id, Session>,
    /// Those that have closed, and the offset after which their `Open` cannot count any more.
    closed: BTreeMap<Id, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    /// The number of the last record that counted, and its offset.
    seq: u64,
    last: u64,
    /// Where its client saw the log end.
    end: u64,
    /// The checkpoint that it is writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writes: Option<Progress>,
}

impl Sessions {
    /// Opens a session; whether that counts.
    pub(crate) fn open(&mut self, id: Id, seq: u64, end: u64, offset: u64, window: u64) -> bool {
        let in_time = offset.checked_sub(end).is_some_and(|late| late <= window);
        let counts = in_time && !self.closed.contains_key(&id) && !self.open.contains_key(&id);
        if counts {
            self.open.insert(id, Session { seq, last: offset, end, writes: None });
        }
        counts
    }

    /// Whether this record counts; then none before it does any more.
    pub(crate) fn admit(&mut self, id: Id, seq: u64, offset: u64, window: u64) -> bool {
        let Some(session) = self.open.get_mut(&id) else { return false };
        let counts = seq > session.seq && offset.saturating_sub(session.last) <= window;
        if counts {
            (session.seq, session.last) = (seq, offset);
        }
        counts
    }

    /// Takes in a part of a checkpoint that this session writes; how far it has come, unless the part does not go on there.
    pub(crate) fn writes(&mut self, id: Id, part: &Part) -> Option<Progress> {
        let session = self.open.get_mut(&id)?;
        let progress = Progress::with(session.writes.take(), part);
        session.writes = progress.filter(|progress| !progress.is_all());
        progress
    }

    /// How far they have come who have written a part of this checkpoint, and not all of it.
    pub(crate) fn progress(&self, at_offset: u64) -> Option<Progress> {
        let writes = self.open.values().filter_map(|session| session.writes);
        writes.filter(|progress| progress.at_offset == at_offset).max_by_key(|progress| progress.next)
    }

    pub(crate) fn close(&mut self, id: Id, window: u64) {
        if let Some(session) = self.open.remove(&id) {
            self.closed.insert(id, session.end.saturating_add(window));
        }
    }

    /// Forgets what cannot count at `offset` or after it.
    pub(crate) fn forget(&mut self, offset: u64, window: u64) {
        self.open.retain(|_, session| offset.saturating_sub(session.last) <= window);
        self.closed.retain(|_, &mut until| offset <= until);
    }

    /// Whether this session may still be heard at `offset`.
    pub(crate) fn is_open(&self, id: Id, offset: u64, window: u64) -> bool {
        self.open.get(&id).is_some_and(|session| offset.saturating_sub(session.last) <= window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Id = Id::from_bits(1);

    #[test]
    fn a_record_counts_once_and_not_after_a_later_one() {
        let mut sessions = Sessions::default();
        assert!(!sessions.admit(ONE, 1, 10, 100), "nobody has opened it");
        assert!(sessions.open(ONE, 0, 5, 10, 100));
        assert!(!sessions.open(ONE, 0, 5, 11, 100), "a copy");
        assert_eq!(
            [2, 2, 1, 5, 4].map(|seq| sessions.admit(ONE, seq, 20, 100)),
            [true, false, false, true, false]
        );
    }

    #[test]
    fn a_closed_session_is_remembered_as_long_as_its_open_may_come() {
        let mut sessions = Sessions::default();
        assert!(sessions.open(ONE, 0, 5, 10, 100));
        sessions.close(ONE, 100);
        for offset in [11, 105] {
            sessions.forget(offset, 100);
            assert!(!sessions.open(ONE, 0, 5, offset, 100), "{offset}");
        }
        sessions.forget(106, 100);
        assert_eq!(sessions, Sessions::default());
        assert!(!sessions.open(ONE, 0, 5, 106, 100), "too late");
        assert!(!sessions.open(ONE, 0, 107, 106, 100), "it saw more of the log than there is");
    }

    #[test]
    fn a_silent_session_is_over() {
        let mut sessions = Sessions::default();
        assert!(sessions.open(ONE, 0, 10, 10, 100));
        sessions.forget(110, 100);
        assert!(sessions.admit(ONE, 1, 110, 100));
        assert!(!sessions.admit(ONE, 2, 211, 100) && !sessions.is_open(ONE, 211, 100));
        sessions.forget(211, 100);
        assert_eq!(sessions, Sessions::default());
        assert!(!sessions.open(ONE, 0, 10, 211, 100));
    }
}
