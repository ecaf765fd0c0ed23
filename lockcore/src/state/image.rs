//! All that is known of a lock, to be written down and read back.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ClaimId, Ended, Entry, LockState, Mode, Moment, Place, Standing};
use crate::claim::Claim;
use crate::key::Key;
use crate::token::Fence;

/// A [`LockState`] as it is written down: two that behave alike have the same image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockImage {
    /// Holders and waiters, by id.
    pub claims: Vec<ClaimImage>,
    /// The holder that waits to become exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrading: Option<ClaimId>,
    /// How many places in the queue were given out.
    pub arrivals: u64,
    /// The last token.
    pub last_token: u64,
    /// The ids of ended claims, and until when each is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<(Moment, ClaimId)>,
}

/// One claim of a [`LockImage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimImage {
    /// The claim's name.
    pub id: ClaimId,
    /// The mode that it holds, or waits for.
    pub mode: Mode,
    /// In whose name it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// What its owner noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Arc<str>>,
    /// When it joined, or was granted.
    pub since: Moment,
    /// When its lease runs out.
    pub expires: Moment,
    /// The number of the last renewal that counted.
    pub renewed: u64,
    /// The number of the last conversion that counted.
    pub converted: u64,
    /// Whether it holds, and with what.
    pub standing: Stand,
}

/// How a claim of an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// It holds.
    Granted(Fence),
    /// It waits, at this place.
    Queued(Place),
}

impl LockState {
    /// All that this lock knows.
    #[must_use]
    pub fn image(&self) -> LockImage {
        let mut claims: Vec<ClaimImage> =
            self.holders.iter().chain(self.waiters.iter()).map(ClaimImage::of).collect();
        claims.sort_unstable_by_key(|claim| claim.id);
        LockImage {
            claims,
            upgrading: self.upgrading,
            arrivals: self.queue.arrivals,
            last_token: self.last_token,
            ended: self.ended.listed(),
        }
    }

    /// The lock on `key` that an image shows.
    #[must_use]
    pub fn of_image(key: &Key, image: LockImage) -> LockState {
        let mut state = LockState {
            upgrading: image.upgrading,
            last_token: image.last_token,
            ended: Ended::of(image.ended),
            ..LockState::default()
        };
        for claim in image.claims {
            state.put_back(claim.entry(key));
        }
        state.queue.arrivals = image.arrivals;
        state
    }
}

impl ClaimImage {
    fn of(entry: &Entry) -> ClaimImage {
        ClaimImage {
            id: entry.id,
            mode: entry.mode,
            owner: entry.claim.owner().cloned(),
            note: entry.claim.note().cloned(),
            since: entry.since,
            expires: entry.expires,
            renewed: entry.renewed,
            converted: entry.converted,
            standing: match entry.standing {
                Standing::Granted(fence) => Stand::Granted(fence),
                Standing::Queued(place) => Stand::Queued(place),
            },
        }
    }

    fn entry(self, key: &Key) -> Entry {
        // What it once asked for decides nothing any more.
        let claim = Claim::new(key.clone(), self.mode, Duration::ZERO).with_id(self.id);
        Entry {
            id: self.id,
            claim: Arc::new(claim.with_owner(self.owner).with_note(self.note)),
            mode: self.mode,
            since: self.since,
            expires: self.expires,
            renewed: self.renewed,
            converted: self.converted,
            standing: match self.standing {
                Stand::Granted(fence) => Standing::Granted(fence),
                Stand::Queued(place) => Standing::Queued(place),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BreakTarget, Queue};
    use crate::mode::Mode::{Exclusive, Shared};

    const T: Moment = Moment::from_micros(1_000_000);

    fn join(lock: &mut LockState, id: u128, mode: Mode) {
        let claim = Claim::new(Key::new("k").unwrap(), mode, Duration::from_secs(30));
        let claim = claim.with_id(ClaimId::from_bits(id)).with_owner(Some("ann".into()));
        lock.acquire(T, &Arc::new(claim), Queue::Join, &mut Vec::new());
    }

    fn eventful() -> LockState {
        let mut lock = LockState::after_token(7).expiring_by_command();
        for (id, mode) in [(1, Shared), (2, Shared), (3, Exclusive), (4, Shared)] {
            join(&mut lock, id, mode);
        }
        let id = ClaimId::from_bits;
        lock.renew(T, id(1), Duration::from_secs(9), 3, &mut Vec::new()).unwrap();
        lock.convert(T, id(2), Exclusive, 1, &mut Vec::new()).unwrap();
        lock.release(T, id(8), false, false, &mut Vec::new());
        lock
    }

    #[test]
    fn a_lock_goes_on_from_its_image() {
        let mut lock = eventful();
        let written = serde_json::to_string(&lock.image()).unwrap();
        let image = serde_json::from_str(&written).unwrap();
        let mut read = LockState::of_image(&Key::new("k").unwrap(), image).expiring_by_command();
        for step in 0..6 {
            assert_eq!(read.image(), lock.image(), "step {step}");
            for lock in [&mut lock, &mut read] {
                match step {
                    0 => assert_eq!(lock.lapse(T, &[ClaimId::from_bits(1)], &mut Vec::new()), 1),
                    1 => join(lock, 8, Exclusive),
                    2 => join(lock, 5, Exclusive),
                    3 => drop(lock.release(T, ClaimId::from_bits(2), true, false, &mut Vec::new())),
                    _ => drop(lock.break_claims(T, &BreakTarget::Holders, &mut Vec::new())),
                }
            }
        }
        assert!(read.is_in_use());
    }

    #[test]
    fn leases_that_end_by_command_do_not_end_by_the_clock() {
        let mut lock = eventful();
        let late = T.after(Duration::from_secs(3000));
        assert_eq!(lock.inspect(late, &mut Vec::new()).holders.len(), 2);
        let first = lock.term(ClaimId::from_bits(1)).unwrap();
        assert!(first.granted && first.expires < late && first.renewed == 3);
        let mut effects = Vec::new();
        assert_eq!(lock.lapse(late, &[ClaimId::from_bits(1), ClaimId::from_bits(3)], &mut effects), 2);
        assert_eq!(effects.len(), 3, "two ended, and the upgrade was granted");
        assert_eq!(lock.lapse(late, &[ClaimId::from_bits(1)], &mut effects), 0);
        assert_eq!(lock.term(ClaimId::from_bits(1)), None);
    }

    #[test]
    fn a_raised_token_is_passed_by_the_next() {
        let mut lock = LockState::after_token(7).expiring_by_command();
        lock.raise_token(5_000_000);
        lock.raise_token(3);
        join(&mut lock, 1, Exclusive);
        assert_eq!(lock.last_token(), 5_000_001);
    }
}
