//! The log itself, and what is true of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::state::Effect;
use lockcore::{ClaimId, Ending};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::fold::Replica;
use crate::log::{Bounds, Entry};

/// When every play begins, in microseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000_000;

/// A partition that clients reach by their own [`SimClient`](super::client::SimClient).
pub(super) struct SimLog {
    begun: Instant,
    inner: Mutex<Inner>,
    /// The end of the log.
    pub(super) end: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Stored>,
    start: u64,
    leader: u64,
    /// How far the leader's clock is ahead.
    skew: Duration,
    chaos: bool,
    gentle: bool,
    /// What the log leads to, found as it is written.
    replica: Replica,
    /// When claims were ended by others on purpose.
    forced: HashMap<ClaimId, Duration>,
    wrong: Option<String>,
}

#[derive(Clone)]
struct Stored {
    entry: Entry,
    /// It takes an offset and is read by nobody, as Kafka's marks of transactions.
    is_mark: bool,
    /// Under which leader it was appended.
    leader: u64,
}

/// What is read at a place of the log.
pub(super) enum Found {
    Records {
        entries: Vec<Entry>,
        next: u64,
        leader: u64,
    },
    /// The log begins later.
    Missing,
    /// What was read before is not there any more.
    Truncated,
}

impl SimLog {
    pub(super) fn new() -> Arc<SimLog> {
        let (end, _) = watch::channel(0);
        Arc::new(SimLog { begun: Instant::now(), inner: Mutex::default(), end })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn append(&self, bytes: &[u8]) {
        let now = self.elapsed();
        let mut inner = self.inner();
        let wall = EPOCH + u64::try_from((now + inner.skew).as_millis()).unwrap() * 1000;
        let offset = inner.end();
        let entry = Entry { offset, stamp: wall, bytes: bytes.to_vec() };
        match inner.replica.apply(&entry) {
            Ok(folded) => {
                for effect in folded.effects {
                    if let Effect::Ended { claim, ending } = effect
                        && ending != Ending::Expired
                    {
                        inner.forced.insert(claim.id(), now);
                    }
                }
            }
            Err(halt) => {
                inner.wrong.get_or_insert(format!("at {offset}: {halt}"));
            }
        }
        let leader = inner.leader;
        inner.entries.push(Stored { entry, is_mark: false, leader });
        let end = inner.end();
        drop(inner);
        self.end.send_replace(end);
    }

    /// Somebody else's transaction ends.
    pub(super) fn mark(&self) {
        let mut inner = self.inner();
        let entry = Entry { offset: inner.end(), stamp: 0, bytes: Vec::new() };
        let leader = inner.leader;
        inner.entries.push(Stored { entry, is_mark: true, leader });
        let end = inner.end();
        drop(inner);
        self.end.send_replace(end);
    }

    pub(super) fn bounds(&self) -> Bounds {
        let inner = self.inner();
        Bounds { start: inner.start, end: inner.end() }
    }

    /// Reads from `offset` on; `after` is the leader of the record before it, if that was read.
    pub(super) fn read(&self, offset: u64, after: Option<u64>, most: usize) -> Found {
        let inner = self.inner();
        if offset < inner.start {
            return Found::Missing;
        }
        let at = usize::try_from(offset).unwrap();
        let before = at.checked_sub(1).map(|before| inner.entries.get(before).map(|stored| stored.leader));
        if at > inner.entries.len() || after.is_some_and(|after| before != Some(Some(after))) {
            return Found::Truncated;
        }
        let some = inner.entries[at..].iter().take(most);
        let last = some.clone().next_back();
        let (next, leader) = last.map_or((offset, 0), |stored| (stored.entry.offset + 1, stored.leader));
        let records = some.filter(|stored| !stored.is_mark);
        Found::Records { entries: records.map(|stored| stored.entry.clone()).collect(), next, leader }
    }

    /// Nothing before `offset` is there any more.
    pub(super) fn delete(&self, offset: u64) {
        let mut inner = self.inner();
        assert!(offset <= inner.end(), "{offset} is not there to be deleted");
        inner.start = inner.start.max(offset);
    }

    /// A leader is elected that lacks the last records.
    pub(super) fn truncate(&self, lost: u64) {
        let mut inner = self.inner();
        let end = inner.end().saturating_sub(lost).max(inner.start);
        inner.entries.truncate(usize::try_from(end).unwrap());
        inner.leader += 1;
        let mut replica = Replica::default();
        for stored in inner.entries.iter().filter(|stored| !stored.is_mark) {
            replica.apply(&stored.entry).unwrap();
        }
        inner.replica = replica;
        drop(inner);
        self.end.send_replace(end);
    }

    pub(super) fn set_skew(&self, skew: Duration) {
        let mut inner = self.inner();
        inner.skew = skew;
        inner.leader += 1;
    }

    pub(super) fn set_chaos(&self, chaos: bool, gentle: bool) {
        let mut inner = self.inner();
        (inner.chaos, inner.gentle) = (chaos, gentle);
    }

    pub(super) fn is_chaos(&self) -> bool {
        self.inner().chaos
    }

    /// Whether nothing takes longer than a holder has to answer.
    pub(super) fn is_gentle(&self) -> bool {
        self.inner().gentle
    }

    pub(super) fn ended(&self, id: ClaimId) -> Option<Duration> {
        self.inner().forced.get(&id).copied()
    }

    pub(super) fn wrong(&self) -> Option<String> {
        self.inner().wrong.clone()
    }

    pub(super) fn with_replica<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.inner().replica)
    }

    /// All that is in the log, one record a line.
    pub(super) fn shown(&self) -> String {
        let inner = self.inner();
        let line = |stored: &Stored| {
            let Entry { offset, stamp, bytes } = &stored.entry;
            format!(
                "{offset} {:>9.3} {:.400}",
                millis(stamp.saturating_sub(EPOCH)),
                String::from_utf8_lossy(bytes)
            )
        };
        inner.entries.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl Inner {
    fn end(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap()
    }
}

impl fmt::Debug for SimLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimLog")
    }
}
