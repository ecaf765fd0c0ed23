//! The way of a claim from its first request to its grant.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::backend::{Attempt, Queue, Queued, Release, Released};
use crate::bell::Ending;
use crate::claim::Claim;
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::lease::Lease;
use crate::lock::LockInner;
use crate::registry::Slot;
use crate::request::{Request, answer, unanswered};
use crate::tenure::Loss;
use crate::token::Fence;

/// A claim that is not held yet. Dropping it, at any point, leaves nothing behind.
pub(crate) struct Pursuit {
    pub(crate) lock: Arc<LockInner>,
    pub(crate) claim: Arc<Claim>,
    /// The acquire that is under way; dropped with the pursuit it goes to the reaper, which finishes it.
    under_way: Option<Request<Result<Attempt>>>,
    /// Whether the server may know the claim.
    known: bool,
    /// Its place in the registry while it waits, so that `close` finds it.
    slot: Option<Slot>,
}

/// How a wait ended.
pub(crate) enum Woken {
    Granted(Fence),
    AskAgain,
    Ended(Ending),
    BudgetOver,
}

impl Pursuit {
    pub(crate) fn new(lock: Arc<LockInner>, claim: Claim) -> Pursuit {
        Pursuit { lock, claim: Arc::new(claim), under_way: None, known: false, slot: None }
    }

    /// One request, for at most `limit`.
    pub(crate) async fn ask(&mut self, queue: Queue, limit: Duration) -> Result<Attempt> {
        let backend = self.lock.client.backend.clone();
        let request = self.under_way.insert(backend.acquire(self.claim.clone(), queue));
        let answer = answer(request, limit).await;
        self.under_way = None;
        match answer {
            Some(Ok(attempt)) => {
                self.known = matches!(attempt, Attempt::Granted(_) | Attempt::Queued(_));
                Ok(attempt)
            }
            Some(Err(error)) => {
                if error.may_have_happened() {
                    self.in_doubt();
                }
                Err(error)
            }
            None => {
                self.in_doubt();
                Err(unanswered(limit))
            }
        }
    }

    /// Whether the server may know the claim.
    pub(crate) fn is_known(&self) -> bool {
        self.known
    }

    fn in_doubt(&mut self) {
        self.claim.mark_unanswered();
        self.known = true;
    }

    /// Waits for news of a queued claim: until its turn comes, asking again is worth it, or `end` passes.
    pub(crate) async fn wait(&mut self, queued: Queued, asked: LocalTime, end: LocalTime) -> Woken {
        let client = &self.lock.client;
        if self.slot.is_none() {
            let never = LocalTime::NEVER;
            let entry = Held::entry(self.claim.clone(), never, self.claim.ttl(), never);
            self.slot = Some(client.registry.insert(entry));
        }
        let ask_again = ask_again(queued, asked);
        loop {
            let woken = self.claim.bell().woken();
            let mail = self.claim.bell().take();
            if client.is_closed() {
                return Woken::AskAgain;
            }
            // A claim may have been granted and ended since; the end is final.
            if let Some(ending) = mail.ended {
                return Woken::Ended(ending);
            }
            if let Some(fence) = mail.granted {
                return Woken::Granted(fence);
            }
            if mail.look {
                return Woken::AskAgain;
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = sleep_until(client.clock.timer(ask_again.min(end))) => {
                    return if client.clock.now() >= end { Woken::BudgetOver } else { Woken::AskAgain };
                }
            }
        }
    }

    /// Withdraws a claim that waits; answers its lease, and when it was asked for, if it was granted meanwhile.
    pub(crate) async fn withdraw(&mut self) -> Result<Option<(Lease, LocalTime)>> {
        let client = self.lock.client.clone();
        let sent = client.clock.coarse();
        let release =
            Release { claim: self.claim.clone(), answered: self.claim.is_answered(), only_waiting: true };
        let mut request = client.backend.clone().release(vec![release]);
        let limit = client.settings.request_timeout;
        match answer(&mut request, limit).await.and_then(|mut answers| answers.pop()) {
            Some(Ok(Released::Granted(lease))) => Ok(Some((lease, sent))),
            Some(Ok(Released::Released | Released::NotHeld)) => {
                self.known = false;
                Ok(None)
            }
            Some(Err(error)) => Err(error),
            None => Err(unanswered(limit)),
        }
    }

    /// Gives the claim up for a new one with a new id, at the tail of the queue. It takes nothing over: that was done when
    /// the old one joined, and whoever has taken over from that one since must not be evicted.
    pub(crate) fn renew_id(&mut self) {
        let old = self.claim.clone();
        let claim = Claim::new(old.key().clone(), old.mode(), old.ttl())
            .with_owner(old.owner().cloned())
            .with_note(old.note().cloned())
            .with_waiter_ttl(old.waiter_ttl());
        let next = Pursuit::new(self.lock.clone(), claim);
        // Dropping the old pursuit lets go of whatever the server still knows of it.
        *self = next;
    }

    /// The granted claim, held until `deadline`.
    pub(crate) fn hold(mut self, fence: Fence, deadline: LocalTime, plan: &HoldPlan) -> Held {
        self.claim.tenure.begin(deadline);
        let due = if plan.automatic { plan.due } else { LocalTime::NEVER };
        let registry = &self.lock.client.registry;
        let slot = match self.slot.take() {
            Some(slot) => {
                registry.update(slot, &self.claim, |entry| {
                    entry.renewing = plan.automatic;
                    entry.due = due;
                    entry.hold_until = plan.hold_until;
                });
                slot
            }
            None => registry.insert(Held::entry(self.claim.clone(), due, self.claim.ttl(), plan.hold_until)),
        };
        self.known = false;
        Held {
            lock: self.lock.clone(),
            claim: self.claim.clone(),
            mode: self.claim.mode(),
            fence,
            ttl: self.claim.ttl(),
            automatic: plan.automatic,
            slot: Some(slot),
        }
    }

    /// What an ended waiter's owner is told.
    pub(crate) fn ended_error(ending: Ending) -> Error {
        let loss = Loss::from(ending);
        Error::new(ErrorKind::Lost, format!("the claim ended while it waited: {loss}"))
    }
}

/// When to ask again for what is queued: the waiter's heartbeat, the slow poll behind lost messages, and the end of a
/// lease that is in the way.
pub(crate) fn ask_again(queued: Queued, asked: LocalTime) -> LocalTime {
    // Even if the server says "now" again and again.
    const SHORTEST: Duration = Duration::from_millis(1);
    let heartbeat = queued.left / 3;
    asked.plus(queued.recheck.map_or(heartbeat, |recheck| recheck.min(heartbeat)).max(SHORTEST))
}

/// How a held claim is renewed.
pub(crate) struct HoldPlan {
    pub(crate) automatic: bool,
    pub(crate) due: LocalTime,
    pub(crate) hold_until: LocalTime,
}

impl Drop for Pursuit {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.lock.client.registry.remove(slot);
        }
        let reaper = &self.lock.client.reaper;
        match self.under_way.take() {
            Some(request) => reaper.finish_first(self.claim.clone(), request, self.known),
            None if self.known => reaper.let_go(self.claim.clone()),
            None => {}
        }
    }
}
