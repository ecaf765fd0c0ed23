//! What this process believes of a claim that it holds: until when it may act, and whether that is over.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// The deadline and the sticky loss of one claim; shared by its guard, the renewal task and the backend's news.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    deadline: AtomicU64,
    /// 0: not lost, else 1 + the index in `Loss::ALL`.
    loss: AtomicU8,
    /// Numbers the requests that change a lease or a mode, so that a late copy of an old one changes nothing. Locked
    /// while the deadline moves, so that the answer to an older request never undoes a shorter lease asked for since.
    order: Mutex<u64>,
}

impl Tenure {
    pub(crate) fn deadline(&self) -> LocalTime {
        LocalTime::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// Sets the deadline of a claim that was just granted.
    pub(crate) fn begin(&self, deadline: LocalTime) {
        self.deadline.store(deadline.as_nanos(), Ordering::Release);
    }

    /// Numbers a request that sets the lease to `ttl`. A shorter lease counts from now on, answered or not.
    pub(crate) fn ask(&self, sent: LocalTime, ttl: Duration, allowance: Allowance) -> u64 {
        let mut order = self.lock();
        *order += 1;
        self.deadline.fetch_min(allowance.deadline(sent, ttl).as_nanos(), Ordering::AcqRel);
        *order
    }

    /// Numbers a request that leaves the lease alone.
    pub(crate) fn next_order(&self) -> u64 {
        let mut order = self.lock();
        *order += 1;
        *order
    }

    /// Takes in the deadline that the answer to request `number` gives, unless a newer request is under way: then only
    /// what makes it earlier counts.
    pub(crate) fn answered(&self, number: u64, deadline: LocalTime) {
        let order = self.lock();
        if *order == number {
            self.deadline.store(deadline.as_nanos(), Ordering::Release);
        } else {
            self.deadline.fetch_min(deadline.as_nanos(), Ordering::AcqRel);
        }
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
    pub(crate) fn order(&self) -> u64 {
        *self.lock()
    }

    pub(crate) fn resume_order(&self, order: u64) {
        *self.lock() = order;
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
