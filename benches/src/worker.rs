//! One worker of a workload, and what it notes of its turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use lockcore::Mode;

use crate::Result;
use crate::clock::nanos;
use crate::history::Event;

/// Something that locks: one worker's handle of one key.
pub(crate) trait Contender: Send + 'static {
    /// Acquires, tells the worker so, holds as long as it says, and releases.
    fn turn(&mut self, mode: Mode, worker: &mut Worker) -> impl Future<Output = Result<()>> + Send;
}

/// What the workers on one key know of each other.
///
/// An exclusive holder writes here without atomic read-modify-writes: if the lock works, it is alone. If not, others
/// notice, not always but soon.
#[derive(Debug, Default)]
#[repr(align(128))] // keys of different workers must not share a cache line
pub(crate) struct Spot {
    /// 1 + the worker that held last.
    last: AtomicU64,
    /// When the last holder began to release.
    left: AtomicU64,
    /// Whether an exclusive holder is inside.
    inside: AtomicBool,
    /// The last token of an exclusive holder.
    token: AtomicU64,
}

/// How much is noted: of rates only what costs a nanosecond, else all that a history needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Rates,
    History,
}

/// What one worker has seen.
pub(crate) struct Tally {
    pub(crate) grants: u64,
    pub(crate) to_itself: u64,
    pub(crate) violations: u64,
    pub(crate) longest_wait: u64,
    pub(crate) acquire: Histogram<u64>,
    pub(crate) cycle: Histogram<u64>,
    pub(crate) hand_over: Histogram<u64>,
    pub(crate) events: Vec<Event>,
}

/// Grows with what it is given.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap_or_else(|error| unreachable!("three digits are fine: {error}"))
}

fn note(histogram: &mut Histogram<u64>, nanos: u64) {
    // It grows by itself, so this does not fail.
    let _grown = histogram.record(nanos);
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            grants: 0,
            to_itself: 0,
            violations: 0,
            longest_wait: 0,
            acquire: histogram(),
            cycle: histogram(),
            hand_over: histogram(),
            events: Vec::new(),
        }
    }
}

/// One worker at work.
pub(crate) struct Worker {
    pub(crate) tally: Tally,
    id: u64,
    spot: Arc<Spot>,
    stop: Arc<AtomicBool>,
    detail: Detail,
    hold: Duration,
    mode: Mode,
    asked: u64,
    granted: u64,
    left: u64,
    token: u64,
    floor: u64,
}

impl Worker {
    pub(crate) fn new(
        index: u64,
        spot: Arc<Spot>,
        stop: Arc<AtomicBool>,
        detail: Detail,
        hold: Duration,
    ) -> Worker {
        Worker {
            tally: Tally::default(),
            id: index + 1,
            spot,
            stop,
            detail,
            hold,
            mode: Mode::Exclusive,
            asked: 0,
            granted: 0,
            left: 0,
            token: 0,
            floor: 0,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A turn begins: the acquire follows.
    pub(crate) fn asks(&mut self, mode: Mode) {
        self.mode = mode;
        if self.detail == Detail::History {
            self.asked = nanos();
        }
    }

    /// The acquire has returned, with this fencing token and floor; zeros where there are none.
    pub(crate) fn granted(&mut self, token: u64, floor: u64) {
        let spot = &*self.spot;
        let counts = !self.is_over();
        let last = spot.last.load(Ordering::Relaxed);
        if spot.inside.load(Ordering::Relaxed) {
            self.tally.violations += 1;
        }
        if self.detail == Detail::History {
            self.granted = nanos();
            (self.token, self.floor) = (token, floor);
            let waited = self.granted.saturating_sub(self.asked);
            self.tally.longest_wait = self.tally.longest_wait.max(waited);
            note(&mut self.tally.acquire, waited);
            if last != 0 && last != self.id {
                let left = spot.left.load(Ordering::Relaxed);
                note(&mut self.tally.hand_over, self.granted.saturating_sub(left));
            }
        }
        self.tally.grants += u64::from(counts);
        self.tally.to_itself += u64::from(counts && last == self.id);
        if self.mode.is_exclusive() {
            spot.inside.store(true, Ordering::Relaxed);
            self.tally.violations += u64::from(token > 0 && spot.token.load(Ordering::Relaxed) >= token);
            spot.token.store(token, Ordering::Relaxed);
        }
    }

    /// Holds as long as the workload wants.
    pub(crate) async fn hold(&self) {
        if !self.hold.is_zero() {
            tokio::time::sleep(self.hold).await;
        }
    }

    /// The release follows.
    pub(crate) fn leaves(&mut self) {
        let spot = &*self.spot;
        if self.mode.is_exclusive() {
            spot.inside.store(false, Ordering::Relaxed);
        }
        spot.last.store(self.id, Ordering::Relaxed);
        if self.detail == Detail::History {
            self.left = nanos();
            spot.left.store(self.left, Ordering::Relaxed);
        }
    }

    /// The release has returned.
    pub(crate) fn has_left(&mut self) {
        if self.detail == Detail::History {
            note(&mut self.tally.cycle, nanos().saturating_sub(self.asked));
            let Worker { mode, asked, granted, left, token, floor, .. } = *self;
            self.tally.events.push(Event { mode, asked, granted, left, token, floor });
        }
    }
}
