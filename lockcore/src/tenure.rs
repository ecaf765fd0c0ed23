//! What this process believes of a claim that it holds: until when it may act, and whether that is over.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bell::Ending;
use crate::clock::{Allowance, LocalTime};

/// Why this process may no longer act as a holder.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Its deadline passed before a renewal was answered.
    Expired,
    /// Somebody broke the claim.
    Broken,
    /// The owner's newer claim took over.
    TakenOver,
    /// The server does not know the claim any more: it expired there, or the server lost its state.
    Unknown,
    /// The client was closed.
    Closed,
}

impl Loss {
    const ALL: [Loss; 5] = [Loss::Expired, Loss::Broken, Loss::TakenOver, Loss::Unknown, Loss::Closed];
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Expired => "no renewal was answered before the lease ran out",
            Loss::Broken => "somebody broke the lock",
            Loss::TakenOver => "a newer claim of the same owner took over",
            Loss::Unknown => "the server does not know this claim any more: it expired or its state was lost",
            Loss::Closed => "the client was closed",
        })
    }
}

impl From<Ending> for Loss {
    fn from(ending: Ending) -> Loss {
        match ending {
            Ending::Expired => Loss::Unknown,
            Ending::Broken => Loss::Broken,
            Ending::TakenOver => Loss::TakenOver,
        }
    }
}

/// How many renewals and conversions of a claim were asked for: their numbers, by which the server knows a late copy of
/// an old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    renewals: u64,
    conversions: u64,
}

/// The deadline and the sticky loss of one claim; shared by its guard, the renewal task and the backend's news.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    deadline: AtomicU64,
    /// 0: not lost, else 1 + the index in `Loss::ALL`.
    loss: AtomicU8,
    /// Locked while the deadline moves, so that the answer to an older renewal never undoes a shorter one asked for
    /// since.
    numbers: Mutex<Numbers>,
}

impl Tenure {
    pub(crate) fn deadline(&self) -> LocalTime {
        LocalTime::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// Sets the deadline of a claim that was just granted.
    pub(crate) fn begin(&self, deadline: LocalTime) {
        self.deadline.store(deadline.as_nanos(), Ordering::Release);
    }

    /// Numbers a renewal to `ttl`. A shorter lease counts from now on, answered or not.
    pub(crate) fn ask(&self, sent: LocalTime, ttl: Duration, allowance: Allowance) -> u64 {
        let mut numbers = self.lock();
        numbers.renewals = numbers.renewals.saturating_add(1);
        self.deadline.fetch_min(allowance.deadline(sent, ttl).as_nanos(), Ordering::AcqRel);
        numbers.renewals
    }

    /// Takes in the deadline that the answer to renewal `number` gives, unless a newer one is under way: then only what
    /// makes it earlier counts. An answer that comes after the deadline counts for nothing.
    pub(crate) fn answered(&self, number: u64, deadline: LocalTime, now: LocalTime) {
        let numbers = self.lock();
        if self.loss(now).is_some() {
            return;
        }
        if numbers.renewals == number {
            self.deadline.store(deadline.as_nanos(), Ordering::Release);
        } else {
            self.deadline.fetch_min(deadline.as_nanos(), Ordering::AcqRel);
        }
    }

    /// Numbers a conversion.
    pub(crate) fn next_conversion(&self) -> u64 {
        let mut numbers = self.lock();
        numbers.conversions = numbers.conversions.saturating_add(1);
        numbers.conversions
    }

    /// Marks the claim lost, for good; the first reason stays.
    pub(crate) fn lose(&self, loss: Loss) {
        let code =
            1 + Loss::ALL.iter().position(|&each| each == loss).map_or(0, |i| u8::try_from(i).unwrap_or(0));
        let _already_lost = self.loss.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether and why it is lost at `now`. A deadline that has passed is a loss, whatever any reply says later.
    pub(crate) fn loss(&self, now: LocalTime) -> Option<Loss> {
        if self.loss.load(Ordering::Acquire) == 0 && now >= self.deadline() {
            self.lose(Loss::Expired);
        }
        match self.loss.load(Ordering::Acquire) {
            0 => None,
            code => Some(Loss::ALL[usize::from(code - 1)]),
        }
    }

    /// Where the numbering stands; a resumed claim goes on from there.
    pub(crate) fn numbers(&self) -> Numbers {
        *self.lock()
    }

    pub(crate) fn resume_numbers(&self, numbers: Numbers) {
        *self.lock() = numbers;
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
