//! The names of claims, which are used again.
//!
//! etcd remembers every name that was ever used until its history is compacted, and whoever looks at a lock goes past all of
//! them: with a name for each claim a lock that is used a thousand times a second would soon be slow. So a client has slots on
//! each lock, and a claim takes the first that is free.
//!
//! A name must not be used again while a request may come that makes or deletes its key by the name alone: it would make a claim
//! that nobody has, or delete another one. Such a slot is *spoilt*. Instead of remembering it for ever, the client begins a new
//! series of slots, on all locks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lockcore::Key;

/// A name of this client on a lock, for one claim at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    series: u64,
    number: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.series, self.number)
    }
}

/// The slots of one client.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The series that slots are taken from.
    series: u64,
    /// The locks on which some are taken.
    taken: HashMap<Key, Taken>,
}

/// The slots of one series on one lock.
#[derive(Debug, Default)]
struct Taken {
    series: u64,
    /// Above all that were ever taken.
    next: u32,
    /// Those below that are free.
    free: BinaryHeap<Reverse<u32>>,
}

impl Slots {
    /// Takes the first free slot on a lock.
    pub(crate) fn take(&self, key: &Key) -> Slot {
        let mut inner = self.inner();
        let series = inner.series;
        let taken = inner.taken.entry(key.clone()).or_default();
        if taken.series != series {
            // The others will not be free again.
            *taken = Taken { series, ..Taken::default() };
        }
        let number = taken.free.pop().map_or(taken.next, |Reverse(number)| number);
        taken.next = taken.next.max(number.saturating_add(1));
        Slot { series, number }
    }

    /// Gives a slot back whose key is not there, and of which nothing can come any more.
    pub(crate) fn free(&self, key: &Key, slot: Slot) {
        let mut inner = self.inner();
        let Some(taken) = inner.taken.get_mut(key).filter(|taken| taken.series == slot.series) else {
            return;
        };
        taken.free.push(Reverse(slot.number));
        if u32::try_from(taken.free.len()).is_ok_and(|free| free == taken.next) {
            inner.taken.remove(key);
        }
    }

    /// Gives a slot up of which something may still come, and with it its series.
    pub(crate) fn spoil(&self, key: &Key, slot: Slot) {
        let mut inner = self.inner();
        if inner.series == slot.series {
            inner.series += 1;
        }
        drop(inner);
        // So that the last one on a lock leaves nothing in the table.
        self.free(key, slot);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_slot_is_taken_and_a_spoilt_one_never_again() {
        let (slots, a, b) = (Slots::default(), Key::new("a").unwrap(), Key::new("b").unwrap());
        let take = |key: &Key| slots.take(key);
        let shown = |slot: Slot| slot.to_string();
        let (first, second, third) = (take(&a), take(&a), take(&a));
        assert_eq!([first, second, third].map(shown), ["0.0", "0.1", "0.2"]);
        assert_eq!(shown(take(&b)), "0.0");
        slots.free(&a, third);
        slots.free(&a, first);
        assert_eq!((take(&a), take(&a)), (first, third));
        slots.spoil(&a, second);
        slots.free(&a, first);
        assert_eq!(shown(take(&a)), "1.0", "not the one of the old series");
        slots.free(&a, third);
        assert_eq!(shown(take(&a)), "1.1");
        assert_eq!(shown(take(&b)), "1.0");
    }

    #[test]
    fn a_lock_that_nobody_uses_leaves_nothing() {
        let (slots, key) = (Slots::default(), Key::new("a").unwrap());
        for spoilt in [false, true, false] {
            let taken = [slots.take(&key), slots.take(&key)];
            for slot in taken {
                if spoilt { slots.spoil(&key, slot) } else { slots.free(&key, slot) }
            }
            assert!(slots.inner().taken.is_empty());
        }
    }
}
