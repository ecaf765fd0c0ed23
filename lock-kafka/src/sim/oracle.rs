//! What must be true of a history, told by other means than the fold.

use std::collections::{BTreeMap, BTreeSet};

use lockcore::state::{Effect, Stand};
use lockcore::{Attempt, ClaimId, Ending, Holders, Mode, Released, admits};

use crate::fold::{Answer, Folded, Replica};
use crate::record::Record;
use crate::what::{Genesis, Named, What};

/// What is known of a lease that a record set.
#[derive(Clone, Copy, Debug)]
struct Promise {
    offset: u64,
    stamp: u64,
    /// The log's clock when it was set.
    clock: u64,
    length: u64,
    suspected: Option<u64>,
    /// Until when its holder counts on it, in true time.
    believed: u64,
}

/// Looks at each record as it is folded.
pub(super) struct Oracle {
    genesis: Genesis,
    /// The clock of the log, found once more.
    clock: u64,
    stamp: u64,
    highest_token: u64,
    promises: BTreeMap<ClaimId, Promise>,
    /// Claims that were in the state and are no more, or have been let go before they came.
    gone: BTreeSet<ClaimId>,
    /// Whether nobody may lose a lease that is counted on: nobody is rash, and the clocks are within their margin.
    pub(super) strict: bool,
    pub(super) lapses: usize,
    pub(super) grants: usize,
}

/// A record on its way into the log.
pub(super) struct Appended<'r> {
    pub(super) offset: u64,
    pub(super) stamp: u64,
    pub(super) record: Option<&'r Record>,
    /// True times: when it was sent, and now.
    pub(super) sent: u64,
    pub(super) now: u64,
}

impl Oracle {
    pub(super) fn new(genesis: Genesis, stamp: u64, strict: bool) -> Oracle {
        Oracle {
            genesis,
            clock: 0,
            stamp,
            highest_token: 0,
            promises: BTreeMap::new(),
            gone: BTreeSet::new(),
            strict,
            lapses: 0,
            grants: 0,
        }
    }

    /// Who counts on a lease counts on it no more from now on: it lets go.
    pub(super) fn leaves(&mut self, id: ClaimId, now: u64) {
        if let Some(promise) = self.promises.get_mut(&id) {
            promise.believed = promise.believed.min(now);
        }
    }

    /// The leases for whose length somebody has waited since they were set.
    pub(super) fn overdue(&self, now: u64, appended_at: &BTreeMap<u64, u64>) -> Vec<(ClaimId, u64)> {
        let waited = |promise: &Promise| {
            let since = appended_at.get(&promise.offset).copied().unwrap_or(now);
            now.saturating_sub(since) >= promise.length + promise.length / 100
        };
        let overdue = self.promises.iter().filter(|(_, promise)| waited(promise));
        overdue.map(|(&id, promise)| (id, promise.offset)).collect()
    }

    pub(super) fn looks(&mut self, at: &Appended, folded: &Folded, replica: &Replica) -> Result<(), String> {
        self.clock += at.stamp.saturating_sub(self.stamp).min(self.genesis.step_us);
        self.stamp = at.stamp;
        if let Some(record) = at.record {
            self.judges(at, &record.what, folded)?;
        }
        let ended = folded.effects.iter().filter_map(|effect| match effect {
            Effect::Ended { claim, ending } => Some((claim.id(), *ending)),
            Effect::Granted { .. } => None,
        });
        for (id, ending) in ended {
            if ending == Ending::Expired {
                self.lapses += 1;
                let promise = self.promises.get(&id).ok_or("what expired had no lease")?;
                if self.strict && promise.believed > at.now {
                    return Err(format!(
                        "{id} expired at {}, and is counted on until {}",
                        at.now, promise.believed
                    ));
                }
            }
            self.promises.remove(&id);
            self.gone.insert(id);
        }
        if matches!(folded.answer, Answer::NotCounted) { Ok(()) } else { self.sees(at, replica) }
    }

    /// Whether what was answered follows from the rules.
    fn judges(&mut self, at: &Appended, what: &What, folded: &Folded) -> Result<(), String> {
        match (what, &folded.answer) {
            (What::Acquire(join), Answer::Attempt(attempt)) => {
                let left = match attempt {
                    Attempt::Granted(lease) => lease.left,
                    Attempt::Queued(queued) => queued.left,
                    Attempt::Busy | Attempt::Gone => return Ok(()),
                };
                self.promise(at, join.claim, u64::try_from(left.as_micros()).unwrap());
            }
            (What::Heartbeat { renew }, Answer::Renewed(renewed)) => {
                for (renew, renewed) in renew.iter().zip(renewed) {
                    if let Ok(renewed) = renewed
                        && renewed.set
                    {
                        let left = u64::try_from(renewed.lease.left.as_micros()).unwrap();
                        self.promise(at, renew.claim, left);
                    }
                }
            }
            (What::Release(let_go), Answer::Released(released)) => {
                if *released == Released::Released {
                    self.promises.remove(&let_go.claim);
                }
                if !matches!(released, Released::Granted(_)) {
                    self.gone.insert(let_go.claim);
                }
            }
            (What::Suspect { leases }, answer) => {
                let Named { claim, lease } = leases[0];
                let (clock, stamp, margin) = (self.clock, self.stamp, self.genesis.margin_us);
                let promise = self.promises.get_mut(&claim).filter(|promise| promise.offset == lease);
                if let Some(promise) = promise
                    && !matches!(answer, Answer::NotCounted)
                    && stamp >= promise.stamp + promise.length + margin
                {
                    promise.suspected.get_or_insert(clock);
                }
            }
            (What::Alive { claims }, Answer::Noted) => {
                for claim in claims {
                    if let Some(promise) = self.promises.get_mut(claim) {
                        promise.suspected = None;
                    }
                }
            }
            (What::Expire { leases, unanswered }, Answer::Lapsed(lapsed)) => {
                let (waited, of) = (!leases.is_empty(), leases.first().or(unanswered.first()));
                let Some(&Named { claim, lease }) = of else { return Ok(()) };
                if lapsed.contains(&claim) != self.may_lapse(claim, lease, waited) {
                    return Err(format!("the end of {claim} was proposed, and these end: {lapsed:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn promise(&mut self, at: &Appended, id: ClaimId, length: u64) {
        let believed = at.sent + length / 100 * 99;
        let (offset, stamp, clock) = (at.offset, at.stamp, self.clock);
        self.promises.insert(id, Promise { offset, stamp, clock, length, suspected: None, believed });
    }

    fn may_lapse(&self, id: ClaimId, lease: u64, waited: bool) -> bool {
        let Some(promise) = self.promises.get(&id).filter(|promise| promise.offset == lease) else {
            return false;
        };
        let unanswered = promise.suspected.is_some_and(|asked| self.clock - asked >= self.genesis.grace_us);
        (waited && self.clock >= promise.clock + promise.length)
            || (unanswered && self.stamp >= promise.stamp + promise.length + self.genesis.margin_us)
    }

    /// Whether the state is one that may be.
    fn sees(&mut self, at: &Appended, replica: &Replica) -> Result<(), String> {
        let Some(image) = replica.image() else { return Ok(()) };
        let mut there = BTreeSet::new();
        let mut highest = self.highest_token;
        for (key, lock) in &image.locks {
            let mut holders: Vec<(Mode, u64)> = Vec::new();
            for claim in &lock.claims {
                there.insert(claim.id);
                if let Stand::Granted(fence) = claim.standing {
                    let token = fence.token.get();
                    if token > self.highest_token {
                        self.grants += 1;
                        if token < at.stamp {
                            return Err(format!("token {token} is below the clock, {}", at.stamp));
                        }
                    }
                    highest = highest.max(token);
                    holders.push((claim.mode, token));
                }
            }
            let together = |one: usize| {
                let others =
                    || holders.iter().enumerate().filter(|&(other, _)| other != one).map(|(_, held)| held.0);
                let smallest_bound =
                    others().filter(|mode| matches!(mode, Mode::Permit { .. })).map(Mode::bound).min();
                admits(
                    Holders {
                        count: others().count(),
                        exclusive: others().any(Mode::is_exclusive),
                        smallest_bound: smallest_bound.and_then(std::num::NonZeroU32::new),
                    },
                    holders[one].0,
                )
            };
            if !(0..holders.len()).all(together) {
                return Err(format!("these hold {key} together: {holders:?}"));
            }
            let tokens: BTreeSet<u64> = holders.iter().map(|&(_, token)| token).collect();
            if tokens.len() < holders.len() {
                return Err(format!("a token of {key} was given twice: {holders:?}"));
            }
        }
        self.highest_token = highest;
        if let Some(ghost) = there.intersection(&self.gone).next() {
            return Err(format!("{ghost} had ended, and is there"));
        }
        let tracked: BTreeSet<ClaimId> = image.leases.iter().map(|&(id, _)| id).collect();
        if tracked != there {
            return Err(format!("leases of {tracked:?}, and claims {there:?}"));
        }
        Ok(())
    }
}
