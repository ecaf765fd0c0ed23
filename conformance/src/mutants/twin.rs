//! What a twin's server does, right or wrong on purpose.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::state::{Effect, Moment, Refusal};
use lockcore::{
    Attempt, BreakTarget, Claim, ClaimId, Ending, Fence, FencingToken, Key, Lease, Mode, News, Queue,
    Release, Released, Renewal, Snapshot,
};

use super::Mutant;
use super::faults::{Way, ring};
use super::shelf::{Lock, Shelf};

/// One client of a twin server.
#[derive(Debug)]
pub(super) struct Twin {
    mutant: Option<Mutant>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) way: Way,
    pub(super) claims: Arc<Mutex<HashSet<ClaimId>>>,
}

/// A claim that is the same in everything that is not changed.
fn copy(claim: &Claim, mode: Mode, ttl: Duration) -> Claim {
    Claim::new(claim.key().clone(), mode, ttl)
        .with_id(claim.id())
        .with_owner(claim.owner().cloned())
        .with_note(claim.note().cloned())
        .with_waiter_ttl(claim.waiter_ttl())
        .taking_over(claim.take_over())
}

impl Twin {
    pub(super) fn new(mutant: Option<Mutant>, shelf: Arc<Shelf>) -> Twin {
        Twin { mutant, shelf, way: Way::default(), claims: Arc::default() }
    }

    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Runs a command, makes the mutant's changes to what follows from it, and tells whom it concerns.
    pub(super) fn apply<T>(&self, key: &Key, command: impl FnOnce(&mut Lock, Moment) -> T) -> T {
        let (answer, news) = self.shelf.with(key, |lock, now| {
            let now = if self.is(Mutant::TtlIgnored) { *lock.last.get_or_insert(now) } else { now };
            let answer = command(lock, now);
            let mut news = Vec::new();
            for effect in std::mem::take(&mut lock.effects) {
                match effect {
                    Effect::Granted { claim, fence } => {
                        if self.is(Mutant::HandoverSetsFullTtl) {
                            let _full = lock.state.renew(now, claim.id(), claim.ttl(), 0, &mut Vec::new());
                        }
                        let fence = self.told(lock, claim.id(), fence);
                        news.push((original(lock, &claim), News::Granted(fence)));
                    }
                    Effect::Ended { claim, ending } => {
                        lock.ended.push(claim.id());
                        news.push((original(lock, &claim), News::Ended(ending)));
                    }
                }
            }
            (answer, news)
        });
        for (claim, news) in news {
            let granted = matches!(news, News::Granted(_));
            if !(granted && self.is(Mutant::NotificationLost)) {
                ring(&claim, news);
            }
        }
        answer
    }

    /// The fence as this twin tells it.
    fn told(&self, lock: &mut Lock, id: ClaimId, fence: Fence) -> Fence {
        if self.is(Mutant::TokenReusedAfterExpiry) {
            let expired = lock.effects.iter().find_map(|effect| match effect {
                Effect::Ended { claim, ending: Ending::Expired } => lock.told.remove(&claim.id()),
                Effect::Ended { .. } | Effect::Granted { .. } => None,
            });
            let token = *lock.told.entry(id).or_insert(expired.unwrap_or(fence.token));
            return Fence { token, floor: token };
        }
        if self.is(Mutant::SharedTokenTwice) {
            return Fence { token: fence.floor, floor: fence.floor };
        }
        if self.is(Mutant::FloorIsToken) {
            return Fence { token: fence.token, floor: fence.token };
        }
        fence
    }

    pub(super) fn tell(&self, lock: &mut Lock, id: ClaimId, attempt: Attempt) -> Attempt {
        match attempt {
            Attempt::Granted(lease) => {
                Attempt::Granted(Lease { fence: self.told(lock, id, lease.fence), ..lease })
            }
            other @ (Attempt::Queued(_) | Attempt::Busy | Attempt::Gone) => other,
        }
    }

    /// The claim as the mutant's server takes it in.
    fn taken_in(&self, lock: &Lock, claim: &Arc<Claim>, snapshot: &Snapshot) -> Arc<Claim> {
        let (mode, ttl) = (claim.mode(), claim.ttl());
        let readers = snapshot.holders.iter().all(|info| !info.mode.is_exclusive());
        match self.mutant {
            Some(Mutant::SharedAdmitsExclusive)
                if mode.is_exclusive() && readers && !snapshot.holders.is_empty() =>
            {
                Arc::new(copy(claim, Mode::Shared, ttl))
            }
            Some(Mutant::PermitsUnbounded) if matches!(mode, Mode::Permit { .. }) => {
                Arc::new(copy(claim, Mode::Permit { at_most: NonZeroU32::MAX }, ttl))
            }
            Some(Mutant::LeaseHalved) => Arc::new(copy(claim, mode, ttl / 2)),
            Some(Mutant::TakeOverAtTail) => Arc::new(copy(claim, mode, ttl).taking_over(false)),
            Some(Mutant::RequestNotIdempotent) if lock.claims.contains_key(&claim.id()) => {
                Arc::new(copy(claim, mode, ttl).with_id(ClaimId::random()))
            }
            _ => lock.alias.get(&claim.id()).unwrap_or(claim).clone(),
        }
    }

    pub(super) fn join(&self, lock: &mut Lock, now: Moment, claim: &Arc<Claim>, queue: Queue) -> Attempt {
        let before = lock.state.inspect(now, &mut lock.effects);
        let taken = self.taken_in(lock, claim, &before);
        let known = lock.claims.insert(claim.id(), claim.clone()).is_some();
        if let (Some(owner), true, false) =
            (claim.owner(), self.is(Mutant::TakeOverAtTail) && claim.take_over(), known)
        {
            lock.state.break_claims(now, &BreakTarget::Owner(owner.clone()), &mut lock.effects);
        }
        let keep = if self.is(Mutant::TryJoinsQueue) { Queue::Join } else { queue };
        let mut attempt = lock.state.acquire(now, &taken, keep, &mut lock.effects);
        if attempt == Attempt::Gone && self.is(Mutant::LateAcquireRevives) {
            attempt = revive(lock, now, claim, claim.ttl());
        }
        if matches!(attempt, Attempt::Queued(_)) && !known {
            let shared = !claim.mode().is_exclusive();
            let readers = before.holders.iter().all(|info| !info.mode.is_exclusive());
            if self.is(Mutant::LastInFirstOut)
                || (self.is(Mutant::ReaderOvertakesWriter) && shared && readers)
            {
                attempt = jump_the_queue(lock, now, &taken, &before);
            }
        }
        if matches!(attempt, Attempt::Queued(_)) && queue != keep {
            return Attempt::Busy;
        }
        self.tell(lock, claim.id(), attempt)
    }

    pub(super) fn let_go(&self, lock: &mut Lock, now: Moment, release: &Release) -> Released {
        let id = lock.alias.get(&release.claim.id()).map_or(release.claim.id(), |claim| claim.id());
        let snapshot = lock.state.inspect(now, &mut lock.effects);
        if self.is(Mutant::WithdrawalIgnored) && snapshot.waiters.iter().any(|info| info.id == id) {
            return Released::Released;
        }
        let released = lock.state.release(now, id, release.answered, release.only_waiting, &mut lock.effects);
        let too_many: Vec<ClaimId> = match (self.mutant, released) {
            (Some(Mutant::ReleaseWithoutOwnerCheck), Released::NotHeld) => {
                snapshot.holders.iter().take(1).map(|info| info.id).collect()
            }
            (Some(Mutant::ReleaseByKeyName), _) => snapshot.holders.iter().map(|info| info.id).collect(),
            (Some(Mutant::EndedReleaseFreesSuccessor), Released::NotHeld) if lock.ended.contains(&id) => {
                snapshot.holders.iter().map(|info| info.id).collect()
            }
            _ => Vec::new(),
        };
        for id in too_many {
            lock.state.release(now, id, true, false, &mut lock.effects);
        }
        match released {
            Released::Granted(lease) => {
                Released::Granted(Lease { fence: self.told(lock, release.claim.id(), lease.fence), ..lease })
            }
            other @ (Released::Released | Released::NotHeld) => other,
        }
    }

    pub(super) fn renew_one(
        &self,
        lock: &mut Lock,
        now: Moment,
        renewal: &Renewal,
    ) -> Result<Lease, Refusal> {
        let id = renewal.claim.id();
        let order = if self.is(Mutant::LateRenewalCounts) { u64::MAX } else { renewal.order };
        let ttl = if self.is(Mutant::LeaseHalved) { renewal.ttl / 2 } else { renewal.ttl };
        let renewed = lock.state.renew(now, id, ttl, order, &mut lock.effects);
        if renewed.is_err()
            && self.is(Mutant::RenewRecreates)
            && let Attempt::Granted(lease) = revive(lock, now, &renewal.claim, renewal.ttl)
        {
            return Ok(lease);
        }
        let lease = renewed?;
        Ok(Lease { fence: self.told(lock, id, lease.fence), ..lease })
    }

    pub(super) fn look(&self, lock: &mut Lock, now: Moment) -> Snapshot {
        let at = if self.is(Mutant::InspectShowsExpired) { lock.last.unwrap_or(now) } else { now };
        let mut snapshot = lock.state.inspect(at, &mut lock.effects);
        for info in &mut snapshot.holders {
            if let Some(token) = info.token {
                info.token = Some(self.shown(lock, info.id, token));
            }
        }
        snapshot
    }

    fn shown(&self, lock: &Lock, id: ClaimId, token: FencingToken) -> FencingToken {
        if self.is(Mutant::TokenReusedAfterExpiry) { *lock.told.get(&id).unwrap_or(&token) } else { token }
    }
}

/// The claim that the client made, for news of a copy.
fn original(lock: &Lock, claim: &Arc<Claim>) -> Arc<Claim> {
    lock.claims.get(&claim.id()).unwrap_or(claim).clone()
}

/// Lets a claim that has ended in again, under a name that the state does not remember.
fn revive(lock: &mut Lock, now: Moment, claim: &Arc<Claim>, ttl: Duration) -> Attempt {
    let again = Arc::new(copy(claim, claim.mode(), ttl).with_id(ClaimId::random()));
    lock.alias.insert(claim.id(), again.clone());
    lock.state.acquire(now, &again, Queue::Join, &mut lock.effects)
}

/// Puts the claim ahead of all who wait.
fn jump_the_queue(lock: &mut Lock, now: Moment, claim: &Arc<Claim>, before: &Snapshot) -> Attempt {
    let quiet = &mut Vec::new();
    lock.state.release(now, claim.id(), true, false, quiet);
    for waiter in &before.waiters {
        lock.state.release(now, waiter.id, true, false, quiet);
    }
    let attempt = lock.state.acquire(now, claim, Queue::Join, quiet);
    for waiter in &before.waiters {
        if let Some(waiter) = lock.claims.get(&waiter.id) {
            lock.state.acquire(now, waiter, Queue::Join, quiet);
        }
    }
    attempt
}
