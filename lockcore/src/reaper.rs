//! Lets go, in the background, of what dropped futures and guards leave on the server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backend::{Attempt, LockBackend, Release, Released};
use crate::capability::LeaseClock;
use crate::claim::Claim;
use crate::error::{ErrorKind, Result};
use crate::request::{Request, answer};
use crate::retry::Retry;

/// A claim to let go of, with the acquire that is still under way, if one is.
pub(crate) struct Job {
    claim: Arc<Claim>,
    under_way: Option<Request<Result<Attempt>>>,
    /// Whether the server may know the claim from before that acquire.
    known: bool,
    /// A release that was begun already.
    begun: Option<Request<Vec<Result<Released>>>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("claim", &self.claim).finish_non_exhaustive()
    }
}

/// The jobs of one client. They outlive the runtime: what one leaves undone the next one finds.
#[derive(Debug)]
pub(crate) struct Reaper {
    backend: Arc<dyn LockBackend>,
    /// Whether a request may need timers or sockets, which a drop outside of a runtime does not have.
    needs_runtime: bool,
    request_timeout: Duration,
    jobs: Mutex<VecDeque<Job>>,
    unfinished: AtomicUsize,
    nudge: Notify,
    drained: Notify,
    ended: Arc<AtomicBool>,
}

impl Reaper {
    pub(crate) fn new(
        backend: Arc<dyn LockBackend>,
        request_timeout: Duration,
        ended: Arc<AtomicBool>,
    ) -> Reaper {
        let needs_runtime = backend.capabilities().clock != LeaseClock::Own;
        Reaper {
            backend,
            needs_runtime,
            request_timeout,
            jobs: Mutex::default(),
            unfinished: AtomicUsize::new(0),
            nudge: Notify::new(),
            drained: Notify::new(),
            ended,
        }
    }

    /// Lets go of a claim, at once if the backend answers at once, else in the background. Never blocks; safe in `drop`.
    pub(crate) fn let_go(&self, claim: Arc<Claim>) {
        let mut begun = None;
        if !self.needs_runtime || Handle::try_current().is_ok() {
            let mut release = release_request(&self.backend, &claim);
            match release.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answers) if answers.first().is_some_and(Result::is_ok) => return,
                Poll::Ready(_) => {}
                Poll::Pending => begun = Some(release),
            }
        }
        self.enqueue(Job { claim, under_way: None, known: true, begun });
    }

    /// Like [`let_go`](Reaper::let_go) for a claim of which an acquire is under way. That is finished first: a release
    /// that overtook it on the wire would find nothing, and the claim would be left behind.
    pub(crate) fn finish_first(&self, claim: Arc<Claim>, under_way: Request<Result<Attempt>>, known: bool) {
        self.enqueue(Job { claim, under_way: Some(under_way), known, begun: None });
    }

    fn enqueue(&self, job: Job) {
        self.unfinished.fetch_add(1, Ordering::AcqRel);
        self.jobs().push_back(job);
        self.nudge.notify_one();
    }

    /// Waits until nothing is left to let go of.
    pub(crate) async fn drain(&self) {
        loop {
            let drained = self.drained.notified();
            if self.unfinished.load(Ordering::Acquire) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Works until the client has ended and nothing is left to do.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut under_way = JoinSet::new();
        loop {
            while let Some(job) = self.next_job() {
                let reaper = self.clone();
                under_way.spawn(async move {
                    let _finished = Finished(&reaper);
                    reaper.finish(job).await;
                });
            }
            if self.ended.load(Ordering::Acquire) && under_way.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(_) = under_way.join_next() => {}
                () = self.nudge.notified() => {}
            }
        }
    }

    pub(crate) fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Finishes the acquire, then releases, again and again until the server answers or the lease is surely over.
    async fn finish(&self, job: Job) {
        let Job { claim, under_way, known, mut begun } = job;
        if let Some(mut acquire) = under_way {
            match answer(&mut acquire, self.request_timeout).await {
                Some(Ok(Attempt::Busy | Attempt::Gone)) => return,
                Some(Ok(Attempt::Granted(_) | Attempt::Queued(_))) => {}
                Some(Err(error)) if !error.may_have_happened() => {
                    if !known {
                        return;
                    }
                }
                Some(Err(_)) | None => claim.mark_unanswered(),
            }
        }
        let over = tokio::time::Instant::now() + claim.ttl().min(LONGEST_EFFORT);
        let mut retry = Retry::within_budget();
        loop {
            let mut release = begun.take().unwrap_or_else(|| release_request(&self.backend, &claim));
            let answers = answer(&mut release, self.request_timeout).await;
            let failure = match answers.map(|mut answers| answers.pop()) {
                Some(Some(Ok(_))) => return,
                Some(Some(Err(error))) if error.kind() == ErrorKind::Closed => return,
                Some(Some(Err(error))) => Some(error),
                Some(None) | None => None,
            };
            let pause = retry.next_delay().unwrap_or_default();
            if tokio::time::Instant::now() + pause >= over {
                let (key, claim) = (claim.key(), claim.id());
                tracing::warn!(%key, %claim, error = ?failure, "could not let go, the lease will run out by itself");
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn next_job(&self) -> Option<Job> {
        self.jobs().pop_front()
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A longer lease is left to run out by itself after this time.
const LONGEST_EFFORT: Duration = Duration::from_secs(600);

/// Counts a job as finished, also when its runtime ends under it.
struct Finished<'r>(&'r Reaper);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if self.0.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}

fn release_request(backend: &Arc<dyn LockBackend>, claim: &Arc<Claim>) -> Request<Vec<Result<Released>>> {
    let release = Release { claim: claim.clone(), answered: claim.is_answered(), only_waiting: false };
    backend.clone().release(vec![release])
}
