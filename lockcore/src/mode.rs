//! In which way a claim wants to hold a key, and the one rule that decides who may.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// In which way a claim holds, or wants to hold, a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Alone: no other holder of any mode.
    Exclusive,
    /// Together with any number of other shared holders.
    Shared,
    /// Shared with a bound: while this claim holds, the key has at most `at_most` holders, itself included.
    ///
    /// Permits make a counting semaphore. Claims with different bounds may meet on one key; the smallest bound
    /// among those that hold wins. A plain shared holder counts as a holder too.
    Permit {
        /// The largest number of holders that this claim tolerates.
        at_most: NonZeroU32,
    },
}

impl Mode {
    /// Whether this mode excludes every other holder.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        matches!(self, Mode::Exclusive)
    }

    /// The largest number of holders that a claim of this mode tolerates, itself included.
    ///
    /// An exclusive claim tolerates one; a shared one any number.
    #[must_use]
    pub fn bound(self) -> u32 {
        match self {
            Mode::Exclusive => 1,
            Mode::Shared => u32::MAX,
            Mode::Permit { at_most } => at_most.get(),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Exclusive => f.write_str("exclusive"),
            Mode::Shared => f.write_str("shared"),
            Mode::Permit { at_most } => write!(f, "permit (at most {at_most})"),
        }
    }
}

/// What the holders of one key look like to a claim that wants to join them.
///
/// A summary is enough, so that no implementation has to walk the holders to decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// How many hold the key.
    pub count: usize,
    /// Whether one of them (then the only one) is exclusive.
    pub exclusive: bool,
    /// The smallest bound among the permits that hold, if any does.
    pub smallest_bound: Option<NonZeroU32>,
}

/// Whether a claim of mode `wanted` may join `holders`: the rule that makes an exclusive lock, a readers-writer
/// lock and a counting semaphore one thing.
///
/// An exclusive claim wants no holder. A shared claim wants every holder to be shared. A permit is shared with a
/// bound: with one more holder the count must stay within the smallest bound among the holders and itself.
///
/// Whether somebody is queued ahead is another question, which [`LockState`](crate::state::LockState) answers.
///
/// # Examples
/// ```
/// use lockcore::{admits, Holders, Mode};
///
/// let free = Holders::default();
/// let two_readers = Holders { count: 2, ..free };
/// assert!(admits(free, Mode::Exclusive));
/// assert!(admits(two_readers, Mode::Shared));
/// assert!(!admits(two_readers, Mode::Exclusive));
/// assert!(!admits(two_readers, Mode::Permit { at_most: 2.try_into().unwrap() }));
/// ```
#[must_use]
pub fn admits(holders: Holders, wanted: Mode) -> bool {
    if holders.count == 0 {
        return true;
    }
    if holders.exclusive || wanted.is_exclusive() {
        return false;
    }
    let among_holders = holders.smallest_bound.map_or(u32::MAX, NonZeroU32::get);
    let bound = usize::try_from(among_holders.min(wanted.bound())).unwrap_or(usize::MAX);
    holders.count < bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(n: u32) -> Mode {
        Mode::Permit { at_most: NonZeroU32::new(n).unwrap() }
    }

    #[test]
    fn a_free_key_admits_every_mode() {
        for wanted in [Mode::Exclusive, Mode::Shared, permit(1)] {
            assert!(admits(Holders::default(), wanted), "{wanted}");
        }
    }

    #[test]
    fn an_exclusive_holder_admits_nobody() {
        let holders = Holders { count: 1, exclusive: true, smallest_bound: None };
        for wanted in [Mode::Exclusive, Mode::Shared, permit(5)] {
            assert!(!admits(holders, wanted), "{wanted}");
        }
    }

    #[test]
    fn the_smallest_bound_wins_on_either_side() {
        let holders = Holders { count: 2, exclusive: false, smallest_bound: NonZeroU32::new(3) };
        assert!(admits(holders, Mode::Shared));
        assert!(admits(holders, permit(7)));
        assert!(!admits(holders, permit(2)));
        let full = Holders { count: 3, ..holders };
        assert!(!admits(full, Mode::Shared), "a plain reader counts against a holder's bound");
        assert!(!admits(full, permit(7)));
    }
}
