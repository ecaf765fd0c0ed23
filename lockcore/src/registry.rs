//! The claims of one client that wait or hold: what the renewal task works through, and what `close` ends.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::bell::News;
use crate::claim::Claim;
use crate::clock::LocalTime;

/// Threads beyond this number share slabs.
const THREADS: usize = 16;

/// So that a scan, which locks one slab at a time, never keeps a thread from its entries for long.
const SLABS_OF_A_THREAD: usize = 8;

/// An empty slab that was larger than this gives its memory back.
const KEPT: usize = 64;

const SLABS: usize = THREADS * SLABS_OF_A_THREAD;

/// What the renewal task does for a claim that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Nothing: its holder renews by hand.
    Nothing,
    /// Renews it.
    Renew,
    /// Wakes its waiter, who asks again: the heartbeat.
    Wake,
}

impl Duty {
    /// That of a holder: renewing, unless that is never due.
    pub(crate) fn of_holder(due: LocalTime) -> Duty {
        if due == LocalTime::NEVER { Duty::Nothing } else { Duty::Renew }
    }
}

/// One claim as the renewal task sees it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) claim: Arc<Claim>,
    pub(crate) duty: Duty,
    /// When that is due; [`LocalTime::NEVER`] for never.
    pub(crate) due: LocalTime,
    /// A renewal is under way; its answer sets the next due moment.
    pub(crate) in_flight: bool,
    /// The lease that a renewal asks for.
    pub(crate) ttl: Duration,
    /// No renewal reaches beyond this moment.
    pub(crate) hold_until: LocalTime,
}

impl Entry {
    /// Plans a renewal, unless a sooner one is planned already, or the claim is not renewed any more.
    pub(crate) fn plan(&mut self, due: LocalTime) {
        if self.duty == Duty::Renew {
            self.due = self.due.min(due);
        }
    }
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    slab: usize,
    position: usize,
}

/// Slabs of entries, scanned in a row: adding and removing cost nanoseconds, and a scan of 100,000 a millisecond.
#[derive(Debug)]
pub(crate) struct Registry {
    slabs: [Slab; SLABS],
    /// The earliest due moment that the renewal task knows of.
    planned: AtomicU64,
    nudge: Notify,
}

#[derive(Debug, Default)]
#[repr(align(128))] // one cache line pair each: threads must not share them
struct Slab(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

/// Where this thread puts an entry: what it takes out again is then in its cache and in no other's.
fn own_slab(claim: &Claim) -> usize {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static THREAD: usize = STARTED.fetch_add(1, Ordering::Relaxed) % THREADS);
    let thread = THREAD.try_with(|thread| *thread).unwrap_or(0);
    let any = usize::try_from(claim.id().to_bits() & 0xff).unwrap_or(0);
    thread * SLABS_OF_A_THREAD + any % SLABS_OF_A_THREAD
}

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry {
            slabs: std::array::from_fn(|_| Slab::default()),
            planned: AtomicU64::new(u64::MAX),
            nudge: Notify::new(),
        }
    }

    pub(crate) fn insert(&self, entry: Entry) -> Slot {
        let slab = own_slab(&entry.claim);
        let due = entry.due;
        let mut entries = self.lock(slab);
        let position = if let Some(position) = entries.free.pop() {
            entries.entries[position] = Some(entry);
            position
        } else {
            entries.entries.push(Some(entry));
            entries.entries.len() - 1
        };
        drop(entries);
        self.plan(due);
        Slot { slab, position }
    }

    pub(crate) fn remove(&self, slot: Slot) -> Option<Entry> {
        let mut entries = self.lock(slot.slab);
        let removed = entries.entries.get_mut(slot.position).and_then(Option::take);
        if removed.is_some() {
            entries.free.push(slot.position);
            if entries.free.len() == entries.entries.len() && entries.free.len() > KEPT {
                *entries = Entries::default();
            }
        }
        removed
    }

    /// Changes the entry in `slot` if it still is this claim's.
    pub(crate) fn update(&self, slot: Slot, claim: &Arc<Claim>, change: impl FnOnce(&mut Entry)) -> bool {
        let mut entries = self.lock(slot.slab);
        let entry = entries.entries.get_mut(slot.position).and_then(Option::as_mut);
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.claim, claim)) else { return false };
        change(entry);
        let due = entry.due;
        drop(entries);
        self.plan(due);
        true
    }

    /// Calls `visit` on every entry, one slab locked at a time, and answers the earliest due moment that it left.
    pub(crate) fn scan(&self, mut visit: impl FnMut(Slot, &mut Entry)) -> LocalTime {
        // Before the scan: an entry that is added behind it then sees "nothing planned" and nudges.
        self.planned.store(u64::MAX, Ordering::Release);
        let mut earliest = LocalTime::NEVER;
        for slab in 0..SLABS {
            let mut entries = self.lock(slab);
            for (position, entry) in entries.entries.iter_mut().enumerate() {
                if let Some(entry) = entry {
                    visit(Slot { slab, position }, entry);
                    earliest = earliest.min(entry.due);
                }
            }
        }
        earliest
    }

    /// Says that something is due at `due`, and wakes the renewal task if that is sooner than what it planned.
    pub(crate) fn plan(&self, due: LocalTime) {
        if due.as_nanos() < self.planned.load(Ordering::Acquire)
            && due.as_nanos() < self.planned.fetch_min(due.as_nanos(), Ordering::AcqRel)
        {
            self.nudge.notify_one();
        }
    }

    /// Like [`plan`](Self::plan), by the renewal task itself, which needs no nudge.
    pub(crate) fn plan_quietly(&self, due: LocalTime) {
        self.planned.fetch_min(due.as_nanos(), Ordering::AcqRel);
    }

    pub(crate) fn planned(&self) -> LocalTime {
        LocalTime::from_nanos(self.planned.load(Ordering::Acquire))
    }

    /// Waits for a nudge; one that came before is not missed.
    pub(crate) async fn nudged(&self) {
        self.nudge.notified().await;
    }

    /// Wakes every waiter, since nobody else will: each looks after itself then.
    pub(crate) fn wake_waiters(&self) {
        let mut waiting = Vec::new();
        self.scan(|_, entry| {
            if entry.duty == Duty::Wake {
                waiting.push(entry.claim.clone());
            }
        });
        for claim in waiting {
            claim.ring(News::Look);
        }
    }

    /// Puts in-flight renewals of a runtime that ended back on the plan, and wakes the renewal task.
    pub(crate) fn revive(&self, now: LocalTime) {
        let earliest = self.scan(|_, entry| {
            if entry.in_flight {
                entry.in_flight = false;
                entry.plan(now);
            }
        });
        self.plan(earliest);
        self.nudge();
    }

    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    fn lock(&self, slab: usize) -> MutexGuard<'_, Entries> {
        self.slabs[slab].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::mode::Mode;

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let registry = Registry::new();
        let entry = || {
            let claim = Claim::new(Key::new("k").unwrap(), Mode::Exclusive, Duration::from_secs(1));
            let (claim, ttl, never) = (Arc::new(claim), Duration::from_secs(1), LocalTime::NEVER);
            Entry { claim, duty: Duty::Nothing, due: never, in_flight: false, ttl, hold_until: never }
        };
        let kept = || (0..SLABS).map(|slab| registry.lock(slab).entries.capacity()).sum::<usize>();
        let slots: Vec<Slot> = (0..10_000).map(|_| registry.insert(entry())).collect();
        assert!(kept() >= 10_000);
        for slot in slots {
            assert!(registry.remove(slot).is_some());
            assert!(registry.remove(slot).is_none(), "only once");
        }
        assert!(kept() <= SLABS * 2 * KEPT, "{}", kept());
        let slot = registry.insert(entry());
        assert!(registry.remove(slot).is_some());
    }
}
