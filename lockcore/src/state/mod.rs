//! What a lock is: a pure, deterministic state machine for one key.
//!
//! Commands go in, with the time as an argument; answers and [`Effect`]s come out. There is no clock, no I/O and no
//! task here. The memory backend runs it behind a mutex; other backends restate it in their server's language, and the
//! conformance suite holds them against this file. Whoever wants to know what a lock does reads it from top to bottom.
//!
//! Each command first removes what has expired, then applies its own rule, then hands over to whoever may hold next.

mod commands;
mod ended;
mod image;
mod moment;
mod queue;
mod roster;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use self::commands::Refusal;
pub use self::image::{ClaimImage, LockImage, Stand};
pub use self::moment::Moment;
pub use self::queue::Place;

use self::ended::Ended;
use self::queue::{Queue, Rank};
use self::roster::{Entry, Roster, Standing};
use crate::backend::{Attempt, Queued};
use crate::bell::Ending;
use crate::claim::{Claim, ClaimId};
use crate::inspect::{ClaimInfo, Snapshot};
use crate::lease::Lease;
use crate::mode::{Mode, admits};
use crate::token::{Fence, FencingToken};

/// What a command did to claims other than the one that it is about, whom to tell; that one may be among them.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A waiting claim, or a waiting upgrade, was granted. Its lease did not change.
    Granted {
        /// The new holder.
        claim: Arc<Claim>,
        /// Its token and floor.
        fence: Fence,
    },
    /// A claim was let go without having asked for it.
    Ended {
        /// Whose claim it was.
        claim: Arc<Claim>,
        /// Why.
        ending: Ending,
    },
}

/// The state of the lock on one key.
///
/// Every command takes `now`, the moment on the backend's clock; it should not go back, and if it does, leases only
/// get longer. Commands cost at most a logarithm of the number of claims, plus one step for each claim that they
/// remove or grant.
#[derive(Clone, Debug, Default)]
pub struct LockState {
    holders: Roster,
    waiters: Roster,
    queue: Queue,
    /// The holder that waits to become exclusive, ahead of the queue.
    upgrading: Option<ClaimId>,
    last_token: u64,
    ended: Ended,
    expiry: Expiry,
}

/// What ends a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expiry {
    /// The clock, at the next command.
    #[default]
    ByClock,
    /// Only [`LockState::lapse`].
    ByCommand,
}

/// How a claim stands: what there is to know of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whether it is a holder.
    pub granted: bool,
    /// When its lease runs out.
    pub expires: Moment,
    /// The number of the last renewal that counted.
    pub renewed: u64,
}

impl LockState {
    /// A free lock whose tokens will be larger than `last_token`.
    #[must_use]
    pub fn after_token(last_token: u64) -> LockState {
        LockState { last_token, ..LockState::default() }
    }

    /// The same lock, with leases that do not end by the clock: whoever runs it decides when, and says so by
    /// [`lapse`](Self::lapse). For a server whose clock alone is not to be believed.
    #[must_use]
    pub fn expiring_by_command(self) -> LockState {
        LockState { expiry: Expiry::ByCommand, ..self }
    }

    /// From now on tokens are larger than `token`.
    pub fn raise_token(&mut self, token: u64) {
        self.last_token = self.last_token.max(token);
    }

    /// The last token that was given out, or the one that this state was made after.
    #[must_use]
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// Whether nothing is held, waiting or remembered: only the last token must be kept of such a state.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty() && self.ended.is_empty()
    }

    /// Whether somebody holds or waits.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        !(self.holders.is_empty() && self.waiters.is_empty())
    }

    /// The moment at which the next lease runs out, holder's or waiter's.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        let earliest = |roster: &Roster| roster.earliest_expiry().map(|(expires, _)| expires);
        match (earliest(&self.holders), earliest(&self.waiters)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// The moment at which every lease of now has run out.
    #[must_use]
    pub fn last_expiry(&self) -> Option<Moment> {
        self.holders.iter().chain(self.waiters.iter()).map(|entry| entry.expires).max()
    }

    /// How the claim of this id stands; `None` when it neither holds nor waits.
    #[must_use]
    pub fn term(&self, id: ClaimId) -> Option<Term> {
        let of = |entry: &Entry, granted| Term { granted, expires: entry.expires, renewed: entry.renewed };
        let holder = self.holders.get(id).map(|entry| of(entry, true));
        holder.or_else(|| self.waiters.get(id).map(|entry| of(entry, false)))
    }

    /// Who holds, by token, and who waits, in the order of service.
    pub fn inspect(&mut self, now: Moment, effects: &mut Vec<Effect>) -> Snapshot {
        self.expire(now, effects);
        let mut holders: Vec<ClaimInfo> = self.holders.iter().map(|entry| self.info(entry, now)).collect();
        holders.sort_by_key(|info| info.token);
        let waiters = self
            .queue
            .iter()
            .filter_map(|id| self.waiters.get(id))
            .map(|entry| self.info(entry, now))
            .collect();
        Snapshot { holders, waiters }
    }

    /// Removes every holder and waiter whose lease has run out, and hands over.
    ///
    /// All other commands begin with this; call it by itself when a timer for [`next_expiry`](Self::next_expiry) fires.
    pub fn expire(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.ended.forget_old(now);
        if self.expiry == Expiry::ByCommand {
            return;
        }
        let mut removed = false;
        while let Some(id) = self.holders.first_expired(now) {
            removed |= self.end(id, Ending::Expired, now, effects).is_some();
        }
        while let Some(id) = self.waiters.first_expired(now) {
            removed |= self.end(id, Ending::Expired, now, effects).is_some();
        }
        if removed {
            self.hand_over(now, effects);
        }
    }

    /// Ends the leases of these claims now, whatever is left of them, then hands over; how many of them there were.
    pub fn lapse(&mut self, now: Moment, ids: &[ClaimId], effects: &mut Vec<Effect>) -> usize {
        self.expire(now, effects);
        let lapsed = ids.iter().filter(|&&id| self.end(id, Ending::Expired, now, effects).is_some()).count();
        if lapsed > 0 {
            self.hand_over(now, effects);
        }
        lapsed
    }

    /// Makes holders of all who may hold now, in order. A grant does not change the lease.
    fn hand_over(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(id) = self.upgrading {
            if self.holders.len() == 1 {
                self.upgrade_now(id, now);
                if let Some(entry) = self.holders.get(id)
                    && let Standing::Granted(fence) = entry.standing
                {
                    effects.push(Effect::Granted { claim: entry.claim.clone(), fence });
                }
            }
            return;
        }
        while let Some(id) = self.queue.first() {
            let Some(waiter) = self.waiters.get(id) else { return };
            if !admits(self.holders.summary(), waiter.mode) {
                return;
            }
            let Some(waiter) = self.take_waiter(id) else { return };
            let claim = waiter.claim.clone();
            let fence = self.grant(waiter, now);
            effects.push(Effect::Granted { claim, fence });
        }
    }

    /// Makes `entry`, which is in no roster, a holder.
    fn grant(&mut self, entry: Entry, now: Moment) -> Fence {
        let fence = self.next_fence(now);
        self.holders.insert(Entry { since: now, standing: Standing::Granted(fence), ..entry });
        fence
    }

    /// A token that is larger than the last and not below the clock, and the smallest token among the holders with it.
    fn next_fence(&mut self, now: Moment) -> Fence {
        self.last_token = self.last_token.saturating_add(1).max(now.as_micros()).min(FencingToken::MAX);
        let token = FencingToken::new(self.last_token).unwrap_or(FencingToken::FIRST);
        let floor = self.holders.smallest_token().map_or(token, |smallest| smallest.min(token));
        Fence { token, floor }
    }

    /// Makes the only holder exclusive, with a new token.
    fn upgrade_now(&mut self, id: ClaimId, now: Moment) {
        let token = self.next_fence(now).token;
        self.upgrading = None;
        self.holders.update(id, |entry| {
            entry.mode = Mode::Exclusive;
            entry.since = now;
            entry.standing = Standing::Granted(Fence { token, floor: token });
        });
    }

    /// Ends a claim that did not ask for it. Its id is remembered: a copy of its acquire may be under way.
    fn end(&mut self, id: ClaimId, ending: Ending, now: Moment, effects: &mut Vec<Effect>) -> Option<Entry> {
        let entry = self.take_out(id)?;
        self.ended.remember(id, now);
        effects.push(Effect::Ended { claim: entry.claim.clone(), ending });
        Some(entry)
    }

    /// Takes a claim out of everything; what it leaves behind is handed over by the caller.
    fn take_out(&mut self, id: ClaimId) -> Option<Entry> {
        if let Some(entry) = self.holders.remove(id) {
            if self.upgrading == Some(id) {
                self.upgrading = None;
            }
            return Some(entry);
        }
        self.take_waiter(id)
    }

    fn take_waiter(&mut self, id: ClaimId) -> Option<Entry> {
        let entry = self.waiters.remove(id)?;
        if let Standing::Queued(place) = entry.standing {
            self.queue.remove(place);
        }
        Some(entry)
    }

    /// The opposite of [`take_out`](Self::take_out).
    fn put_back(&mut self, entry: Entry) {
        match entry.standing {
            Standing::Granted(_) => self.holders.insert(entry),
            Standing::Queued(place) => {
                self.queue.insert(place, entry.id);
                self.waiters.insert(entry);
            }
        }
    }

    /// Whether a claim of this mode may hold at once when it stands at `place`.
    fn may_hold(&self, mode: Mode, place: Place) -> bool {
        self.upgrading.is_none()
            && !self.queue.anybody_ahead_of(place)
            && admits(self.holders.summary(), mode)
    }

    /// What a waiter is told. Only the head of the queue watches the leases ahead of it.
    fn queued(&self, entry: &Entry, now: Moment) -> Attempt {
        let is_next = self.upgrading.is_none() && self.queue.first() == Some(entry.id);
        let recheck = if is_next { self.next_holder_expiry(now) } else { None };
        Attempt::Queued(Queued { left: entry.expires.since(now), recheck })
    }

    fn next_holder_expiry(&self, now: Moment) -> Option<Duration> {
        self.holders.earliest_expiry().map(|(expires, _)| expires.since(now))
    }

    fn info(&self, entry: &Entry, now: Moment) -> ClaimInfo {
        ClaimInfo {
            id: entry.id,
            mode: entry.mode,
            owner: entry.claim.owner().cloned(),
            note: entry.claim.note().cloned(),
            token: entry.token(),
            age: now.since(entry.since),
            left: entry.expires.since(now),
            upgrading: self.upgrading == Some(entry.id),
        }
    }
}

fn lease_of(entry: &Entry, now: Moment) -> Option<Lease> {
    match entry.standing {
        Standing::Granted(fence) => Some(Lease { fence, left: entry.expires.since(now) }),
        Standing::Queued(_) => None,
    }
}
