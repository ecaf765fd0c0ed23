//! The commands of a lock: join, renew, convert, let go, break.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Attempt, Claim, ClaimId, ClaimInfo, Effect, Ending, Entry, Lease, LockState, Mode, Moment, Place, Queued,
    Rank, Standing, lease_of,
};
use crate::backend::{BreakTarget, Queue, Released};
use crate::error::{Error, ErrorKind};

/// Why a renewal or a conversion was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The claim is not a holder.
    Lost,
    /// Another holder waits to upgrade; both would wait for each other.
    WouldDeadlock,
    /// Only exclusive and shared or permit convert into each other.
    Unsupported,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let (kind, message) = match refusal {
            Refusal::Lost => (ErrorKind::Lost, "the server does not know this claim as a holder"),
            Refusal::WouldDeadlock => {
                (ErrorKind::WouldDeadlock, "another holder waits to upgrade; both would wait for each other")
            }
            Refusal::Unsupported => {
                (ErrorKind::Unsupported, "only exclusive and shared or permit convert into each other")
            }
        };
        Error::new(kind, message)
    }
}

impl LockState {
    /// Joins a claim: grants it, queues it, or answers that it is busy or gone.
    ///
    /// For a claim that is known already this is a heartbeat: it sets the waiter's lease, and never shortens one.
    pub fn acquire(
        &mut self,
        now: Moment,
        claim: &Arc<Claim>,
        queue: Queue,
        effects: &mut Vec<Effect>,
    ) -> Attempt {
        self.expire(now, effects);
        let id = claim.id();
        // A late heartbeat must not cut short what a renewal has set since: hence max.
        let heartbeat = |entry: &mut Entry| {
            entry.expires = entry.expires.max(now.after(claim.waiter_ttl()));
            lease_of(entry, now)
        };
        if let Some(lease) = self.holders.update(id, heartbeat) {
            return lease.map_or(Attempt::Gone, Attempt::Granted);
        }
        if self.waiters.update(id, heartbeat).is_some() {
            return self.waiters.get(id).map_or(Attempt::Gone, |entry| self.queued(entry, now));
        }
        if self.ended.contains(id) {
            return Attempt::Gone;
        }
        let (place, replaced) = self.take_place(claim);
        if !self.may_hold(claim.mode(), place) && queue == Queue::Never {
            self.give_back(replaced);
            return Attempt::Busy;
        }
        for entry in replaced.entries {
            self.ended.remember(entry.id, now);
            effects.push(Effect::Ended { claim: entry.claim, ending: Ending::TakenOver });
        }
        self.join(now, claim, place);
        self.hand_over(now, effects);
        // As it stands now: what a take-over ended may have let others go ahead, or even this claim after them.
        match self.holders.get(id).and_then(|entry| lease_of(entry, now)) {
            Some(lease) => Attempt::Granted(lease),
            None => self.waiters.get(id).map_or(Attempt::Gone, |entry| self.queued(entry, now)),
        }
    }

    /// Renews a holder's lease from now on; it may get shorter.
    ///
    /// # Errors
    /// [`Refusal::Lost`] for a claim that is not a holder: a renewal never resurrects.
    pub fn renew(
        &mut self,
        now: Moment,
        id: ClaimId,
        ttl: Duration,
        order: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Lease, Refusal> {
        self.expire(now, effects);
        let renewed = self.holders.update(id, |entry| {
            if order >= entry.renewed {
                entry.renewed = order;
                entry.expires = now.after(ttl);
            }
            lease_of(entry, now)
        });
        renewed.flatten().ok_or(Refusal::Lost)
    }

    /// From now on effects on a holder are told to this handle of it: a claim that somebody resumed.
    pub fn adopt(&mut self, claim: &Arc<Claim>) {
        if self.holders.get(claim.id()).is_some_and(|entry| !Arc::ptr_eq(&entry.claim, claim)) {
            self.holders.update(claim.id(), |entry| entry.claim = claim.clone());
        }
    }

    /// Converts a holder between exclusive and shared or permit; to the mode that it holds withdraws its upgrade.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing has changed then.
    pub fn convert(
        &mut self,
        now: Moment,
        id: ClaimId,
        to: Mode,
        order: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Attempt, Refusal> {
        self.expire(now, effects);
        let entry = self.holders.get(id).ok_or(Refusal::Lost)?;
        let from = entry.mode;
        if order >= entry.converted {
            match (from.is_exclusive(), to.is_exclusive()) {
                _ if from == to => {
                    if self.upgrading == Some(id) {
                        self.upgrading = None;
                    }
                }
                (true, false) => {
                    self.holders.update(id, |entry| entry.mode = to);
                }
                (false, true) => match self.upgrading {
                    Some(other) if other != id => return Err(Refusal::WouldDeadlock),
                    _ if self.holders.len() == 1 => self.upgrade_now(id, now),
                    _ => self.upgrading = Some(id),
                },
                _ => return Err(Refusal::Unsupported),
            }
            self.holders.update(id, |entry| entry.converted = order);
            self.hand_over(now, effects);
        }
        let entry = self.holders.get(id).ok_or(Refusal::Lost)?;
        if self.upgrading == Some(id) {
            let recheck = self.next_holder_expiry(now);
            return Ok(Attempt::Queued(Queued { left: entry.expires.since(now), recheck }));
        }
        lease_of(entry, now).map(Attempt::Granted).ok_or(Refusal::Lost)
    }

    /// Lets exactly this claim go, granted or queued.
    ///
    /// With `only_waiting` a granted claim stays. Unless all its acquires were `answered`, its id is remembered.
    pub fn release(
        &mut self,
        now: Moment,
        id: ClaimId,
        answered: bool,
        only_waiting: bool,
        effects: &mut Vec<Effect>,
    ) -> Released {
        self.expire(now, effects);
        if only_waiting && let Some(lease) = self.holders.get(id).and_then(|entry| lease_of(entry, now)) {
            return Released::Granted(lease);
        }
        if !answered {
            self.ended.remember(id, now);
        }
        match self.take_out(id) {
            Some(_) => {
                self.hand_over(now, effects);
                Released::Released
            }
            None => Released::NotHeld,
        }
    }

    /// Ends the claims that `target` names, and answers them as they were.
    pub fn break_claims(
        &mut self,
        now: Moment,
        target: &BreakTarget,
        effects: &mut Vec<Effect>,
    ) -> Vec<ClaimInfo> {
        self.expire(now, effects);
        let holders = || self.holders.iter().map(|entry| entry.id);
        let named: Vec<ClaimId> = match target {
            BreakTarget::Claim(id) => vec![*id],
            BreakTarget::Token(token) => self.holders.by_token(*token).into_iter().collect(),
            BreakTarget::Owner(owner) => {
                let mut ids = self.holders.by_owner(owner);
                ids.extend(self.waiters.by_owner(owner));
                ids
            }
            BreakTarget::Holders => holders().collect(),
            BreakTarget::All => holders().chain(self.queue.iter()).collect(),
        };
        let known = |id: &ClaimId| self.holders.get(*id).or_else(|| self.waiters.get(*id));
        let mut entries: Vec<&Entry> = named.iter().filter_map(known).collect();
        // Holders by token, then waiters in the order of service.
        entries.sort_by_key(|entry| match entry.standing {
            Standing::Granted(fence) => (None, Some(fence.token)),
            Standing::Queued(place) => (Some(place), None),
        });
        let broken = entries.into_iter().map(|entry| self.info(entry, now)).collect();
        for id in named {
            self.end(id, Ending::Broken, now, effects);
        }
        self.hand_over(now, effects);
        broken
    }

    /// Where a new claim stands: at the tail, or in place of its owner's claims, which are taken out.
    ///
    /// In place of a holder means ahead of the queue; in place of a waiter means where the foremost of them stood.
    fn take_place(&mut self, claim: &Claim) -> (Place, Replaced) {
        let mut replaced = Replaced { entries: Vec::new(), upgrading: self.upgrading };
        if let Some(owner) = claim.owner().filter(|_| claim.take_over()) {
            let mut ids = self.holders.by_owner(owner);
            ids.extend(self.waiters.by_owner(owner));
            replaced.entries = ids.into_iter().filter_map(|id| self.take_out(id)).collect();
        }
        let foremost = replaced.entries.iter().map(|entry| match entry.standing {
            Standing::Granted(_) => None,
            Standing::Queued(place) => Some(place),
        });
        let place = match foremost.min() {
            None => self.queue.next_place(Rank::Arrived),
            Some(None) => self.queue.next_place(Rank::TookOverHolder),
            Some(Some(place)) => place,
        };
        (place, replaced)
    }

    fn give_back(&mut self, replaced: Replaced) {
        self.upgrading = replaced.upgrading;
        for entry in replaced.entries {
            self.put_back(entry);
        }
    }

    /// Grants a claim that nobody knows yet, or queues it at its place.
    fn join(&mut self, now: Moment, claim: &Arc<Claim>, place: Place) {
        let granted = self.may_hold(claim.mode(), place);
        let lease = if granted { claim.ttl() } else { claim.waiter_ttl() };
        let entry = Entry {
            id: claim.id(),
            claim: claim.clone(),
            mode: claim.mode(),
            since: now,
            expires: now.after(lease),
            renewed: 0,
            converted: 0,
            standing: Standing::Queued(place),
        };
        if granted {
            self.grant(entry, now);
        } else {
            self.put_back(entry);
        }
    }
}

/// What a take-over took out, so that a try that fails can put it back.
struct Replaced {
    entries: Vec<Entry>,
    upgrading: Option<ClaimId>,
}
