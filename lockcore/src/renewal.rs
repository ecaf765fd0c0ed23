//! One task per client keeps the leases of all its guards alive, in batches, and wakes its waiters for their heartbeats.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::backend::{LockBackend, Renewal};
use crate::bell::News;
use crate::claim::Claim;
use crate::clock::{Allowance, Clock, LocalTime};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::lease::Lease;
use crate::registry::{Duty, Entry, Registry, Slot};
use crate::request::answer;
use crate::tenure::Loss;

/// Renewals that fall due within this time go out together.
const GATHER: Duration = Duration::from_millis(100);

/// At most so many renewals in one request.
const BATCH: usize = 512;

/// The same for the claims of a group, which are wanted in one.
const BATCH_OF_GROUP: usize = 10_000;

/// With one claim of a group go all others that are due within this part of their ttl. As that is half of the time from one
/// renewal to the next, claims that were renewed at different times come together.
const GROUP_DIVISOR: u32 = 6;

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
    pub(crate) ended: Arc<AtomicBool>,
}

/// With whom a claim is renewed: those of its group whose ttl is about the same. A request may take a part of the shortest
/// ttl in it, so one that is much longer would be given up too soon.
type Company = (usize, u32);

type Batch = Vec<(Slot, Renewal)>;

/// What is due.
#[derive(Default)]
struct Gathered {
    lost: Vec<Arc<Claim>>,
    waiting: Vec<Arc<Claim>>,
    /// What is renewed by itself, and what with its company, as far as the batch is not full.
    single: Batch,
    joint: BTreeMap<Company, Batch>,
    full: Vec<Batch>,
}

impl Gathered {
    fn add(&mut self, company: Option<Company>, slot: Slot, renewal: Renewal) {
        let (batch, limit) = match company {
            Some(company) => (self.joint.entry(company).or_default(), BATCH_OF_GROUP),
            None => (&mut self.single, BATCH),
        };
        batch.push((slot, renewal));
        if batch.len() >= limit {
            self.full.push(mem::take(batch));
        }
    }

    fn has(&self, company: Option<Company>) -> bool {
        company.is_some_and(|company| self.joint.contains_key(&company))
    }

    fn batches(self) -> Vec<Batch> {
        let mut batches = self.full;
        batches.push(self.single);
        batches.extend(self.joint.into_values());
        batches.retain(|batch| !batch.is_empty());
        batches
    }
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
                biased;
                () = renewer.registry.nudged() => {}
                () = tokio::time::sleep_until(wake) => {}
                Some(_) = under_way.join_next() => {}
            }
            while under_way.try_join_next().is_some() {}
        }
    }

    /// Takes out what is due, and plans for the rest.
    fn gather(&self) -> Vec<Batch> {
        let now = self.clock.now();
        if self.registry.planned() > now {
            return Vec::new();
        }
        let mut gathered = Gathered::default();
        let horizon = now.plus(GATHER);
        let mut earliest = self.registry.scan(|slot, entry| {
            if entry.due <= horizon {
                self.take(slot, entry, now, &mut gathered);
            }
        });
        if !gathered.joint.is_empty() {
            earliest = self.registry.scan(|slot, entry| {
                let is_near = entry.duty == Duty::Renew && entry.due <= now.plus(entry.ttl / GROUP_DIVISOR);
                if is_near && gathered.has(self.company(entry.claim.key(), entry.ttl)) {
                    self.take(slot, entry, now, &mut gathered);
                }
            });
        }
        self.registry.plan_quietly(earliest);
        // Outside of the slabs' mutexes: whoever is woken may come back to them.
        for claim in gathered.lost.drain(..) {
            claim.bell().wake();
        }
        for claim in gathered.waiting.drain(..) {
            claim.ring(News::Look);
        }
        gathered.batches()
    }

    /// Sees to an entry that is due.
    fn take(&self, slot: Slot, entry: &mut Entry, now: LocalTime, gathered: &mut Gathered) {
        entry.due = LocalTime::NEVER;
        if entry.duty == Duty::Wake {
            gathered.waiting.push(entry.claim.clone());
        } else if entry.claim.tenure.loss(now).is_some() {
            gathered.lost.push(entry.claim.clone());
        } else if let Some(renewal) = self.renewal(entry, now) {
            entry.in_flight = true;
            gathered.add(self.company(entry.claim.key(), renewal.ttl), slot, renewal);
        }
    }

    fn company(&self, key: &Key, ttl: Duration) -> Option<Company> {
        let group = self.backend.renewal_group(key)?;
        Some((group, ttl.as_millis().checked_ilog2().unwrap_or(0)))
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

    async fn renew(self: Arc<Self>, batch: Batch) {
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
