//! Fencing: the numbers that let a resource refuse whoever is no longer a holder.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// A number that grows with every conflicting grant on a key: what a resource compares to refuse stale writers.
///
/// Between 1 and 2^63 - 1, so that it fits a signed 64-bit column. Unique per key, also among shared holders that
/// were granted together. Never used again: not after expiry, a break, or a restart of the server.
///
/// The idea is Lamport's and was made popular by Kleppmann, "How to do distributed locking" (2016); Burrows'
/// Chubby paper (2006) calls it a sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The largest token, 2^63 - 1.
    pub const MAX: u64 = i64::MAX as u64;

    /// The smallest token.
    pub const FIRST: FencingToken = FencingToken(NonZeroU64::MIN);

    /// A token of this value; `None` for zero and for values above [`FencingToken::MAX`].
    #[must_use]
    pub fn new(value: u64) -> Option<FencingToken> {
        if value > Self::MAX { None } else { NonZeroU64::new(value).map(FencingToken) }
    }

    /// The token as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a grant carries for the resource that it protects: its own token, and the smallest token among the holders
/// at that moment.
///
/// An exclusive grant has `floor == token`. A shared one has the token of the earliest of its co-holders as its
/// floor, so that a gate raised to the floor still lets those co-holders in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The grant's own token.
    pub token: FencingToken,
    /// The smallest token among the holders when this grant was made, itself included.
    pub floor: FencingToken,
}

/// The resource's side of fencing, for resources that live in this process; a database does the same with two
/// statements (see the documentation's chapter on fencing).
///
/// [`enter`](FenceGate::enter) before the first read raises the gate to the holder's floor, which shuts out every
/// earlier conflicting holder. [`check`](FenceGate::check) on every write refuses a token below the gate. This
/// holds under any pause, clock or network, which no lease can promise. A permit's bound is not fully fenced: a
/// stale permit passes as long as its co-holders hold on.
///
/// # Examples
/// ```
/// use lockcore::{Fence, FenceGate, FencingToken};
///
/// let token = |n| FencingToken::new(n).unwrap();
/// let gate = FenceGate::new();
/// let paused = Fence { token: token(7), floor: token(7) };
/// let successor = Fence { token: token(8), floor: token(8) };
/// gate.enter(paused)?;
/// gate.enter(successor)?;
/// assert!(gate.check(paused).is_err(), "the holder of token 7 woke up too late");
/// assert!(gate.check(successor).is_ok());
/// # Ok::<(), lockcore::Fenced>(())
/// ```
#[derive(Debug, Default)]
pub struct FenceGate(AtomicU64);

impl FenceGate {
    /// A gate that nobody has entered yet.
    #[must_use]
    pub const fn new() -> FenceGate {
        FenceGate(AtomicU64::new(0))
    }

    /// A gate that stands at `floor`, as it was stored with the resource.
    #[must_use]
    pub const fn at(floor: u64) -> FenceGate {
        FenceGate(AtomicU64::new(floor))
    }

    /// Raises the gate to the holder's floor. Call it before the first read under the lock.
    ///
    /// # Errors
    /// [`Fenced`] when the token is below the gate: somebody who conflicts has been here since.
    pub fn enter(&self, fence: Fence) -> Result<(), Fenced> {
        let before = self.0.fetch_max(fence.floor.get(), Ordering::AcqRel);
        Fenced::unless(fence.token.get() >= before, fence.token, before)
    }

    /// Whether a write under this fence may go through. Call it on every write, atomically with the write.
    ///
    /// # Errors
    /// [`Fenced`] when the token is below the gate.
    pub fn check(&self, fence: Fence) -> Result<(), Fenced> {
        let gate = self.0.load(Ordering::Acquire);
        Fenced::unless(fence.token.get() >= gate, fence.token, gate)
    }

    /// Where the gate stands: the largest floor that entered. Store it with the resource.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A stale holder was refused at a [`FenceGate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The token that was too small.
    pub token: FencingToken,
    /// Where the gate stands.
    pub gate: u64,
}

impl Fenced {
    fn unless(passes: bool, token: FencingToken, gate: u64) -> Result<(), Fenced> {
        if passes { Ok(()) } else { Err(Fenced { token, gate }) }
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fenced off: token {} is older than {}, which a later holder brought",
            self.token, self.gate
        )
    }
}

impl std::error::Error for Fenced {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(token: u64, floor: u64) -> Fence {
        Fence { token: FencingToken::new(token).unwrap(), floor: FencingToken::new(floor).unwrap() }
    }

    #[test]
    fn tokens_fit_a_signed_column() {
        assert_eq!(FencingToken::new(0), None);
        assert_eq!(FencingToken::new(1 << 63), None);
        assert_eq!(FencingToken::new((1 << 63) - 1).unwrap().get(), FencingToken::MAX);
    }

    #[test]
    fn legal_co_holders_pass_in_any_order() {
        let gate = FenceGate::new();
        let (first, second) = (fence(5, 5), fence(6, 5));
        gate.enter(second).unwrap();
        gate.enter(first).unwrap();
        gate.check(first).unwrap();
        gate.check(second).unwrap();
    }

    #[test]
    fn a_stale_holder_is_refused_at_entry_and_at_each_write() {
        let gate = FenceGate::new();
        gate.enter(fence(5, 5)).unwrap();
        gate.enter(fence(9, 9)).unwrap();
        assert_eq!(gate.check(fence(5, 5)), Err(Fenced { token: FencingToken::new(5).unwrap(), gate: 9 }));
        assert!(gate.enter(fence(5, 5)).is_err());
        assert_eq!(gate.floor(), 9);
    }
}
