//! A claim that was granted, untyped: what every guard is made of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::backend::{Release, Released, Renewal};
use crate::claim::Claim;
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::check_ttl;
use crate::lock::LockInner;
use crate::mode::Mode;
use crate::registry::{Duty, Entry, Slot};
use crate::renewal::lose;
use crate::request::{answer, unanswered};
use crate::retry::Retry;
use crate::tenure::Loss;
use crate::token::Fence;

/// A granted claim. Dropping it lets go.
pub(crate) struct Held {
    pub(crate) lock: Arc<LockInner>,
    pub(crate) claim: Arc<Claim>,
    pub(crate) mode: Mode,
    pub(crate) fence: Fence,
    pub(crate) ttl: Duration,
    pub(crate) automatic: bool,
    /// `None` once the claim was let go of, or out.
    pub(crate) slot: Option<Slot>,
}

impl Held {
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.claim.tenure.loss(self.lock.client.clock.now())
    }

    pub(crate) fn lost_error(&self, operation: &'static str, loss: Loss) -> Error {
        self.at(operation, Error::new(ErrorKind::Lost, loss.to_string()))
    }

    pub(crate) fn at(&self, operation: &'static str, error: Error) -> Error {
        self.lock.client.at(error, operation, Some(&self.lock.key))
    }

    pub(crate) fn remaining(&self) -> Duration {
        let now = self.lock.client.clock.now();
        match self.claim.tenure.loss(now) {
            Some(_) => Duration::ZERO,
            None => self.claim.deadline().remaining(now),
        }
    }

    /// Waits until the claim is lost.
    pub(crate) async fn lost(&self) -> Loss {
        let clock = &self.lock.client.clock;
        loop {
            let woken = self.claim.bell().woken();
            if let Some(loss) = self.loss() {
                return loss;
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = sleep_until(clock.timer(self.claim.deadline())) => {}
            }
        }
    }

    /// One renewal, asked for by the user.
    pub(crate) async fn renew(&mut self, ttl: Duration) -> Result<()> {
        let client = self.lock.client.clone();
        if let Some(loss) = self.loss() {
            return Err(self.lost_error("renew", loss));
        }
        check_ttl(ttl).map_err(|error| self.at("renew", error))?;
        let ttl = ttl.max(client.capabilities.min_ttl);
        self.ttl = ttl;
        let sent = client.clock.coarse();
        let order = self.claim.tenure.ask(sent, ttl, client.allowance);
        if let Some(slot) = self.slot {
            // A shorter lease is renewed sooner, answered or not.
            client.registry.update(slot, &self.claim, |entry| {
                entry.ttl = ttl;
                entry.plan(sent.renewal_due(ttl));
            });
        }
        let renewal = Renewal { claim: self.claim.clone(), ttl, order };
        let mut request = client.backend.clone().renew(vec![renewal]);
        let limit = client.settings.request_timeout;
        let lease = match answer(&mut request, limit).await.and_then(|mut answers| answers.pop()) {
            Some(Ok(lease)) => lease,
            Some(Err(error)) if error.kind() == ErrorKind::Lost => {
                lose(&self.claim, Loss::Unknown);
                return Err(self.at("renew", error));
            }
            Some(Err(error)) => return Err(self.at("renew", error)),
            None => return Err(self.at("renew", unanswered(limit))),
        };
        self.claim.tenure.answered(order, client.allowance.deadline(sent, lease.left), client.clock.now());
        match self.loss() {
            Some(loss) => Err(self.lost_error("renew", loss)),
            None => Ok(()),
        }
    }

    /// Lets go, and waits for the server's answer.
    pub(crate) async fn release(mut self) -> Result<()> {
        self.unregister();
        // No count that other threads share is touched here: cloning the client costs 30 ns as soon as two of them do.
        let mut leaving = Leaving { held: self, done: false };
        let result = leaving.release().await;
        leaving.done = result.is_ok() || result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Lost);
        result.map_err(|error| leaving.held.at("release", error))
    }

    /// Takes the claim out of the registry: from here on nobody renews it, and no late answer is reported.
    pub(crate) fn unregister(&mut self) -> bool {
        self.slot.take().is_some_and(|slot| self.lock.client.registry.remove(slot).is_some())
    }

    /// Registers the claim as the renewal task must see it; without a due moment it is not renewed.
    pub(crate) fn entry(claim: Arc<Claim>, due: LocalTime, ttl: Duration, hold_until: LocalTime) -> Entry {
        Entry { claim, duty: Duty::of_holder(due), due, in_flight: false, ttl, hold_until }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // What `close` ended it has released too.
        if self.unregister() && self.loss() != Some(Loss::Closed) {
            self.lock.client.reaper.let_go(self.claim.clone());
        }
    }
}

/// A release under way. When its future is dropped, or gives up, the reaper goes on.
struct Leaving {
    held: Held,
    done: bool,
}

impl Leaving {
    async fn release(&mut self) -> Result<()> {
        let client = &self.held.lock.client;
        let claim = &self.held.claim;
        let limit = client.settings.request_timeout;
        let mut retry = None;
        // An earlier try, sent while the lock was held, may have released it although its answer was lost.
        let mut in_doubt = false;
        loop {
            let release =
                Release { claim: claim.clone(), answered: claim.is_answered(), only_waiting: false };
            let mut request = client.backend.clone().release(vec![release]);
            let answer = answer(&mut request, limit).await.and_then(|mut answers| answers.pop());
            match answer.unwrap_or_else(|| Err(unanswered(limit))) {
                Ok(Released::Released | Released::Granted(_)) => return Ok(()),
                Ok(Released::NotHeld) if in_doubt => return Ok(()),
                Ok(Released::NotHeld) => {
                    let loss = self.held.loss().unwrap_or(Loss::Unknown);
                    return Err(Error::new(ErrorKind::Lost, format!("it had ended before: {loss}")));
                }
                Err(error) => {
                    in_doubt |= error.may_have_happened() && self.held.loss().is_none();
                    let retry = retry.get_or_insert_with(Retry::few_times);
                    match retry.next_delay().filter(|_| error.is_retryable()) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.done {
            self.held.lock.client.reaper.let_go(self.held.claim.clone());
        }
    }
}
