//! The way of a claim from its first request to its grant.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::backend::{Attempt, Queue, Queued, Release, Released};
use crate::bell::Ending;
use crate::claim::Claim;
use crate::clock::{Clock, LocalTime};
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::lease::Lease;
use crate::lock::LockInner;
use crate::registry::{Duty, Entry, Slot};
use crate::request::{Request, answer, answer_noting, unanswered};
use crate::tenure::Loss;
use crate::token::Fence;

/// A claim that is not held yet. Dropping it, at any point, leaves nothing behind.
pub(crate) struct Pursuit<'l> {
    pub(crate) lock: &'l Arc<LockInner>,
    pub(crate) claim: Arc<Claim>,
    /// The acquire that is under way; dropped with the pursuit it goes to the reaper, which finishes it.
    under_way: Option<Request<Result<Attempt>>>,
    /// Whether the server may know the claim.
    known: bool,
    /// Its place in the registry while it waits, so that `close` finds it.
    slot: Option<Slot>,
    /// Until when the server keeps its place in the queue, as last heard.
    pub(crate) queued_until: Option<LocalTime>,
    /// Whether the last answer had to be waited for.
    pub(crate) waited: bool,
}

/// How a wait ended.
pub(crate) enum Woken {
    Granted(Fence),
    AskAgain,
    Ended(Ending),
    BudgetOver,
}

impl<'l> Pursuit<'l> {
    pub(crate) fn new(lock: &'l Arc<LockInner>, claim: Arc<Claim>) -> Pursuit<'l> {
        Pursuit { lock, claim, under_way: None, known: false, slot: None, queued_until: None, waited: false }
    }

    /// One request, for at most `limit`.
    pub(crate) async fn ask(&mut self, queue: Queue, limit: Duration) -> Result<Attempt> {
        let backend = self.lock.client.backend.clone();
        let request = self.under_way.insert(backend.acquire(self.claim.clone(), queue));
        let answer = answer_noting(request, limit, &mut self.waited).await;
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
        let heartbeat = heartbeat(queued, asked);
        self.wake_at(heartbeat);
        // The renewal task brings the heartbeat; a timer is only made for what comes sooner.
        let until = recheck(queued, asked).filter(|&at| at < heartbeat).unwrap_or(LocalTime::NEVER).min(end);
        loop {
            let woken = self.claim.bell().woken();
            let mail = self.claim.bell().take();
            // Looked at after the claim is where `close` and the renewal task find it. If the client was closed, or has
            // to start its tasks anew, that is seen by whoever asks again.
            if client.ready().is_err() {
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
                () = timer(&client.clock, until) => {
                    return if client.clock.now() >= end { Woken::BudgetOver } else { Woken::AskAgain };
                }
            }
        }
    }

    /// Has the renewal task wake this waiter.
    fn wake_at(&mut self, due: LocalTime) {
        let registry = &self.lock.client.registry;
        if let Some(slot) = self.slot {
            registry.update(slot, &self.claim, |entry| entry.due = due);
        } else {
            let (claim, ttl) = (self.claim.clone(), self.claim.ttl());
            let hold_until = LocalTime::NEVER;
            let entry = Entry { claim, duty: Duty::Wake, due, in_flight: false, ttl, hold_until };
            self.slot = Some(registry.insert(entry));
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
        let (owner, note) = (old.owner().cloned(), old.note().cloned());
        let (mode, ttl, waiter_ttl) = (old.mode(), old.ttl(), old.waiter_ttl());
        let claim = Claim::assemble(old.key().clone(), mode, ttl, waiter_ttl, owner, note, false, old.kept());
        let next = Pursuit::new(self.lock, claim);
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
                    entry.duty = Duty::of_holder(due);
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

/// No request is repeated sooner, even if the server says "now" again and again.
const SHORTEST: Duration = Duration::from_millis(1);

/// When a waiter asks again, whatever happens: that keeps its lease, and finds a grant whose message was lost.
fn heartbeat(queued: Queued, asked: LocalTime) -> LocalTime {
    asked.plus((queued.left / 3).max(SHORTEST))
}

/// When the lease in the way ends, if the claim is next.
fn recheck(queued: Queued, asked: LocalTime) -> Option<LocalTime> {
    queued.recheck.map(|recheck| asked.plus(recheck.max(SHORTEST)))
}

/// When to ask again for what is queued: its heartbeat, or the end of a lease that is in the way.
pub(crate) fn ask_again(queued: Queued, asked: LocalTime) -> LocalTime {
    recheck(queued, asked).unwrap_or(LocalTime::NEVER).min(heartbeat(queued, asked))
}

/// Waits until `at`; for `NEVER` without a timer, which would cost more than all the rest of a hand-over in memory.
async fn timer(clock: &Clock, at: LocalTime) {
    if at == LocalTime::NEVER {
        pending::<()>().await;
    }
    sleep_until(clock.timer(at)).await;
}

/// How a held claim is renewed.
pub(crate) struct HoldPlan {
    pub(crate) automatic: bool,
    pub(crate) due: LocalTime,
    pub(crate) hold_until: LocalTime,
}

impl Drop for Pursuit<'_> {
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
