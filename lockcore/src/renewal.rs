//! One task per client keeps the leases of all its guards alive, in batches, and wakes its waiters for their heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::backend::{LockBackend, Renewal};
use crate::bell::News;
use crate::claim::Claim;
use crate::clock::{Allowance, Clock, LocalTime};
use crate::error::{ErrorKind, Result};
use crate::lease::Lease;
use crate::registry::{Duty, Entry, Registry, Slot};
use crate::request::answer;
use crate::tenure::Loss;

/// Renewals that fall due within this time go out together.
const GATHER: Duration = Duration::from_millis(100);

/// At most so many renewals in one request, unless the backend wants them all in one.
const BATCH: usize = 512;

/// Where renewals are joint, what is due within this part of its ttl goes out as well. As that is half of the time from one
/// renewal to the next, two groups of claims that are renewed at different times become one.
const JOINT_DIVISOR: u32 = 6;

/// A failed renewal is tried again after at most this time.
const RETRY: Duration = Duration::from_secs(1);

/// What the renewal task works with. It holds no client, so a client can end while it sleeps.
#[derive(Debug)]
pub(crate) struct Renewer {
    pub(crate) backend: Arc<dyn LockBackend>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) allowance: Allowance,
    pub(crate) registry: Arc<Registry>,
    pub(crate) request_timeout: Duration,
    /// The backend wants its renewals together.
    pub(crate) joint: bool,
    pub(crate) ended: Arc<AtomicBool>,
}

impl Renewer {
    pub(crate) async fn run(self) {
        let renewer = Arc::new(self);
        let mut under_way = JoinSet::new();
        while !renewer.ended.load(Ordering::Acquire) {
            for batch in renewer.gather() {
                under_way.spawn(renewer.clone().renew(batch));
            }
            let wake = renewer.clock.timer(renewer.registry.planned());
            tokio::select! {
                () = renewer.registry.nudged() => {}
                () = tokio::time::sleep_until(wake) => {}
                Some(_) = under_way.join_next() => {}
            }
            while under_way.try_join_next().is_some() {}
        }
    }

    /// Takes out what is due, and plans for the rest.
    fn gather(&self) -> Vec<Vec<(Slot, Renewal)>> {
        let now = self.clock.now();
        if self.registry.planned() > now {
            return Vec::new();
        }
        let limit = if self.joint { usize::MAX } else { BATCH };
        let mut batches: Vec<Vec<(Slot, Renewal)>> = Vec::new();
        let (mut lost, mut waiting) = (Vec::new(), Vec::new());
        let earliest = self.registry.scan(|slot, entry| {
            if entry.due > now.plus(self.ahead(entry)) {
                return;
            }
            entry.due = LocalTime::NEVER;
            if entry.duty == Duty::Wake {
                waiting.push(entry.claim.clone());
                return;
            }
            if entry.claim.tenure.loss(now).is_some() {
                lost.push(entry.claim.clone());
                return;
            }
            let Some(renewal) = self.renewal(entry, now) else { return };
            entry.in_flight = true;
            match batches.last_mut().filter(|batch| batch.len() < limit) {
                Some(batch) => batch.push((slot, renewal)),
                None => batches.push(vec![(slot, renewal)]),
            }
        });
        self.registry.plan_quietly(earliest);
        // Outside of the slabs' mutexes: whoever is woken may come back to them.
        for claim in lost {
            claim.bell().wake();
        }
        for claim in waiting {
            claim.ring(News::Look);
        }
        batches
    }

    /// How much sooner than it is due an entry is seen to.
    fn ahead(&self, entry: &Entry) -> Duration {
        let renews_jointly = self.joint && entry.duty == Duty::Renew;
        if renews_jointly { GATHER.max(entry.ttl / JOINT_DIVISOR) } else { GATHER }
    }

    /// The renewal that an entry needs now; none for a claim that is held as long as it may be.
    fn renewal(&self, entry: &Entry, now: LocalTime) -> Option<Renewal> {
        let hold_on = entry.hold_until.remaining(now);
        if self.allowance.deadline(now, hold_on) <= entry.claim.deadline() {
            return None;
        }
        let ttl = entry.ttl.min(hold_on);
        Some(Renewal {
            claim: entry.claim.clone(),
            ttl,
            order: entry.claim.tenure.ask(now, ttl, self.allowance),
        })
    }

    async fn renew(self: Arc<Self>, batch: Vec<(Slot, Renewal)>) {
        // Taken before the request goes out: the lease counts from here.
        let sent = self.clock.coarse();
        let renewals: Vec<Renewal> = batch.iter().map(|(_, renewal)| renewal.clone()).collect();
        // A request that hangs must leave time for another one before the shortest of the leases is over.
        let shortest = renewals.iter().map(|renewal| renewal.ttl).min().unwrap_or_default();
        let mut request = self.backend.clone().renew(renewals);
        let answers = answer(&mut request, self.request_timeout.min(shortest / 4)).await;
        let mut answers = answers.unwrap_or_default().into_iter();
        for (slot, renewal) in batch {
            self.settle(slot, &renewal, sent, answers.next());
        }
    }

    /// Takes in one answer. Unanswered or refused by a server in trouble: tried again until the deadline.
    fn settle(&self, slot: Slot, renewal: &Renewal, sent: LocalTime, answer: Option<Result<Lease>>) {
        let claim = &renewal.claim;
        let due = match answer {
            Some(Ok(lease)) => {
                let deadline = self.allowance.deadline(sent, lease.left);
                claim.tenure.answered(renewal.order, deadline, self.clock.now());
                sent.renewal_due(lease.left)
            }
            Some(Err(error)) if error.kind() == ErrorKind::Lost => {
                // A claim that was released meanwhile is in the registry no more, and nobody is told.
                if self.registry.update(slot, claim, |entry| entry.due = LocalTime::NEVER) {
                    lose(claim, Loss::Unknown);
                }
                return;
            }
            failure => {
                let error = failure.and_then(Result::err);
                tracing::debug!(key = %claim.key(), claim = %claim.id(), ?error, "renewal failed, trying again");
                let pause = (renewal.ttl / 10).min(RETRY).mul_f64(0.5 + 0.5 * fastrand::f64());
                self.clock.now().plus(pause)
            }
        };
        self.registry.update(slot, claim, |entry| {
            entry.in_flight = false;
            entry.plan(due);
        });
    }
}

/// Dropped with its runtime, it leaves waiters behind who have nobody to wake them.
impl Drop for Renewer {
    fn drop(&mut self) {
        self.registry.wake_waiters();
    }
}

/// Marks a claim lost and tells whoever waits for that.
pub(crate) fn lose(claim: &Claim, loss: Loss) {
    tracing::warn!(key = %claim.key(), claim = %claim.id(), owner = claim.owner().map(|o| &**o), %loss, "lock lost");
    claim.tenure.lose(loss);
    claim.bell().wake();
}
