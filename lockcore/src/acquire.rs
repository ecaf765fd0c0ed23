//! How a lock is acquired: what can be asked for, and the one loop that every backend is waited on with.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::backend::{Attempt, Queue};
use crate::bell::Ending;
use crate::claim::Claim;
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{LockGuard, LockMode};
use crate::held::Held;
use crate::lock::LockInner;
use crate::mode::Mode;
use crate::pursuit::{HoldPlan, Pursuit, Woken};
use crate::request::bounded;
use crate::retry::Retry;
use crate::token::Fence;

/// Who keeps the lease of a guard alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renew {
    /// The client, every third of the ttl, for as long as the guard lives.
    #[default]
    Automatic,
    /// The user, by [`LockGuard::renew`].
    Manual,
}

/// An acquisition that is being described; [`acquire`](Acquire::acquire) or [`run`](Acquire::run) begins it.
#[derive(Clone, Debug)]
#[must_use = "this only describes an acquisition; call `acquire`, `try_acquire` or `run`"]
pub struct Acquire<M> {
    what: Wanted,
    mode: PhantomData<M>,
}

#[derive(Clone)]
struct Wanted {
    lock: Arc<LockInner>,
    mode: Mode,
    ttl: Duration,
    wait: Option<Duration>,
    owner: Option<Arc<str>>,
    note: Option<Arc<str>>,
    take_over: bool,
    renew: Renew,
    max_hold: Option<Duration>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted")
            .field("key", &self.lock.key)
            .field("mode", &self.mode)
            .field("ttl", &self.ttl)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl<M: LockMode> Acquire<M> {
    pub(crate) fn new(lock: Arc<LockInner>, mode: Mode) -> Acquire<M> {
        let ttl = lock.client.settings.ttl;
        let owner = lock.owner.clone();
        let what = Wanted {
            lock,
            mode,
            ttl,
            wait: None,
            owner,
            note: None,
            take_over: false,
            renew: Renew::Automatic,
            max_hold: None,
        };
        Acquire { what, mode: PhantomData }
    }

    /// How long the lock survives its holder: the lease; 30 s by default, at least the backend's
    /// [`min_ttl`](crate::Capabilities::min_ttl), at most 100 years.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.what.ttl = ttl;
        self
    }

    /// How long to wait at most, retries and reconnects included; zero is a try. Without it the wait has no end, and only
    /// a server that cannot be reached ends it.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.what.wait = Some(wait);
        self
    }

    /// In whose name the claim is made: shown to others, and what [`take_over`](Acquire::take_over) goes by. At most
    /// 1,024 bytes.
    pub fn owner(mut self, owner: impl Into<Arc<str>>) -> Self {
        self.what.owner = Some(owner.into());
        self
    }

    /// A note for whoever inspects the lock. At most 1,024 bytes.
    pub fn note(mut self, note: impl Into<Arc<str>>) -> Self {
        self.what.note = Some(note.into());
        self
    }

    /// Ends all claims of the same owner on this key and takes their place, ahead of those who came later: after a crash,
    /// a restart, or to move a lock between processes. They are lost even when this claim must wait; a try that is not
    /// granted replaces nothing.
    ///
    /// The claim id keeps late copies out, but not a first one: the request of a process that crashed right after it
    /// sent it takes over when it arrives, however late.
    pub fn take_over(mut self) -> Self {
        self.what.take_over = true;
        self
    }

    /// Who keeps the lease alive; the client, by default.
    pub fn renew(mut self, renew: Renew) -> Self {
        self.what.renew = renew;
        self
    }

    /// The longest time that the client keeps the lease alive, so that a stuck holder does not keep the lock for ever.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.what.max_hold = Some(max_hold);
        self
    }

    /// Waits until the lock is granted.
    ///
    /// # Errors
    /// `Timeout` when the wait is over, saying who is in the way. `Unavailable` or `Indeterminate` when the server cannot
    /// be reached; it is retried within the wait, or three times without one. `Lost` when somebody broke the waiting
    /// claim. `InvalidArgument`, `Denied`, `Conflict`, `Closed` as they say. In every case the lock is not held; what an
    /// unanswered request may have left on the server is withdrawn in the background.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the claim, queued or granted, in the background: nothing is left behind, at whatever
    /// point it is dropped. The place in the queue is lost.
    pub async fn acquire(self) -> Result<LockGuard<M>> {
        Ok(LockGuard::new(self.what.acquire().await?))
    }

    /// Takes the lock if it is free right now: `None` when others hold it or wait for it. Never overtakes the queue.
    ///
    /// # Errors
    /// As [`acquire`](Acquire::acquire), except `Timeout`.
    ///
    /// # Cancel safety
    /// As [`acquire`](Acquire::acquire).
    pub async fn try_acquire(self) -> Result<Option<LockGuard<M>>> {
        Ok(self.what.try_acquire().await?.map(LockGuard::new))
    }

    /// Acquires the lock, runs `work` under it, and releases it. When the lock is lost, `work` is dropped at once.
    ///
    /// Takes an `async |guard| …` closure or an `async fn`; a plain closure that returns an `async` block does not
    /// compile. Generic callers that need a nameable future use [`run_boxed`](Acquire::run_boxed).
    ///
    /// # Errors
    /// As [`acquire`](Acquire::acquire), and `Lost` when the lock was lost before `work` was done, or turned out at the
    /// release to have been lost: its work is then not protected, and its result is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future drops `work` first, then lets go of the lock.
    pub async fn run<T, F>(self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&LockGuard<M>) -> T,
    {
        let guard = self.acquire().await?;
        let outcome = {
            let mut work = std::pin::pin!(work(&guard));
            guard.held().while_held(work.as_mut()).await
        };
        finish(guard, outcome).await
    }

    /// [`run`](Acquire::run) for callers that are generic over the work.
    ///
    /// # Errors
    /// As [`run`](Acquire::run).
    ///
    /// # Cancel safety
    /// As [`run`](Acquire::run).
    pub async fn run_boxed<T, F>(self, work: F) -> Result<T>
    where
        F: for<'g> FnOnce(&'g LockGuard<M>) -> Pin<Box<dyn Future<Output = T> + Send + 'g>>,
    {
        let guard = self.acquire().await?;
        let outcome = guard.held().while_held(work(&guard)).await;
        finish(guard, outcome).await
    }
}

async fn finish<M: LockMode, T>(guard: LockGuard<M>, outcome: Option<T>) -> Result<T> {
    match outcome {
        Some(value) => {
            // A release that could not be sent is the reaper's; one that finds the claim gone is the caller's business.
            match guard.release().await {
                Err(error) if error.kind() == ErrorKind::Lost => Err(error),
                Ok(()) | Err(_) => Ok(value),
            }
        }
        None => {
            Err(guard.held().lost_error("run", guard.held().loss().unwrap_or(crate::tenure::Loss::Unknown)))
        }
    }
}

pub(crate) async fn wait_free(lock: &Arc<LockInner>, mode: Mode, wait: Duration) -> Result<bool> {
    let mut what = Acquire::<crate::guard::Any>::new(lock.clone(), mode).what;
    what.wait = Some(wait);
    match what.acquire().await {
        Ok(held) => held.release().await.map(|()| true),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(false),
        Err(error) => Err(error),
    }
}

impl Wanted {
    async fn acquire(self) -> Result<Held> {
        let queue = if self.wait.is_some_and(|wait| wait.is_zero()) { Queue::Never } else { Queue::Join };
        let outcome = match self.pursue(queue).await {
            Ok(Some(held)) => Ok(held),
            Ok(None) => Err(Error::new(ErrorKind::Timeout, self.blocked_by(None).await)),
            Err(error) => Err(error),
        };
        self.report("acquire", outcome)
    }

    async fn try_acquire(mut self) -> Result<Option<Held>> {
        self.wait = Some(Duration::ZERO);
        let outcome = self.pursue(Queue::Never).await;
        self.report("try_acquire", outcome)
    }

    fn report<T>(&self, operation: &'static str, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let error = self.lock.client.at(error, operation, Some(&self.lock.key));
            tracing::debug!(key = %self.lock.key, mode = %self.mode, %error, "not granted");
            error
        })
    }

    /// The one wait loop. `None` when the lock is busy and the claim does not queue.
    async fn pursue(&self, queue: Queue) -> Result<Option<Held>> {
        let client = &self.lock.client;
        client.ready()?;
        let claim = self.claim()?;
        let end = self.wait.map_or(LocalTime::NEVER, |wait| client.clock.now().plus(wait));
        let mut retry = None;
        let mut pursuit = Pursuit::new(self.lock.clone(), claim);
        loop {
            client.ready()?;
            let asked = client.clock.coarse();
            let limit = match queue {
                Queue::Never => client.settings.request_timeout,
                Queue::Join => client.settings.request_timeout.min(end.remaining(asked)),
            };
            match pursuit.ask(queue, limit).await {
                Ok(Attempt::Granted(lease)) => {
                    let deadline = client.allowance.deadline(asked, lease.left);
                    if deadline > client.clock.now() {
                        return self.held(pursuit, lease.fence, asked, lease.left, deadline).await.map(Some);
                    }
                    // The answer took longer than the lease: worthless. Once more, as somebody new.
                    pursuit.renew_id();
                    if client.clock.now() >= end || queue == Queue::Never {
                        return Err(Error::new(
                            ErrorKind::Timeout,
                            "the grant came later than its lease allows",
                        ));
                    }
                    self.pause(&mut retry, end).await;
                }
                Ok(Attempt::Queued(queued)) => {
                    retry = None;
                    let deadline = client.allowance.deadline(asked, queued.left);
                    match pursuit.wait(queued, asked, end).await {
                        Woken::Granted(fence) if deadline > client.clock.now() => {
                            return self.held(pursuit, fence, asked, queued.left, deadline).await.map(Some);
                        }
                        Woken::Granted(_) | Woken::AskAgain => {}
                        Woken::Ended(Ending::Expired) => pursuit.renew_id(),
                        Woken::Ended(ending) => return Err(Pursuit::ended_error(ending)),
                        Woken::BudgetOver => return self.give_up(pursuit, None).await,
                    }
                }
                Ok(Attempt::Busy) => return Ok(None),
                Ok(Attempt::Gone) => {
                    pursuit.renew_id();
                    if !self.pause(&mut retry, end).await {
                        return Err(Error::new(ErrorKind::Timeout, "the claim expired while it waited"));
                    }
                }
                Err(error) if error.is_retryable() && queue == Queue::Join => {
                    tracing::debug!(key = %self.lock.key, %error, "no answer, trying again");
                    if !self.pause(&mut retry, end).await {
                        return self.give_up(pursuit, Some(error)).await;
                    }
                }
                Err(error) if error.may_have_happened() => return self.give_up(pursuit, Some(error)).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The claim as it is sent, every value within its bounds.
    fn claim(&self) -> Result<Claim> {
        let capabilities = &self.lock.client.capabilities;
        if matches!(self.mode, Mode::Permit { .. }) && !capabilities.permits {
            return Err(Error::new(ErrorKind::Unsupported, "this backend has no permits"));
        }
        if self.max_hold.is_some_and(|longest| longest.is_zero()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "max_hold must be longer than zero"));
        }
        let asked = Claim::new(self.lock.key.clone(), self.mode, self.ttl)
            .with_owner(self.owner.clone())
            .with_note(self.note.clone())
            .taking_over(self.take_over);
        asked.validate()?;
        let ttl = self.ttl.min(self.max_hold.unwrap_or(Duration::MAX)).max(capabilities.min_ttl);
        Ok(asked
            .with_ttl(ttl)
            .with_waiter_ttl(self.lock.client.settings.waiter_ttl.max(capabilities.min_ttl)))
    }

    fn new_retry(&self) -> Retry {
        if self.wait.is_some() { Retry::within_budget() } else { Retry::few_times() }
    }

    /// Waits before the next try, but not beyond the end; `false` when it is time to give up.
    async fn pause(&self, retry: &mut Option<Retry>, end: LocalTime) -> bool {
        let clock = &self.lock.client.clock;
        let Some(delay) = retry.get_or_insert_with(|| self.new_retry()).next_delay() else { return false };
        let until = clock.coarse().plus(delay);
        if until >= end {
            return false;
        }
        sleep_until(clock.timer(until)).await;
        true
    }

    async fn held(
        &self,
        pursuit: Pursuit,
        fence: Fence,
        asked: LocalTime,
        lease: Duration,
        deadline: LocalTime,
    ) -> Result<Held> {
        let client = &self.lock.client;
        let automatic = self.renew == Renew::Automatic;
        let hold_until =
            self.max_hold.map_or(LocalTime::NEVER, |longest| client.clock.coarse().plus(longest));
        let plan = HoldPlan { automatic, due: asked.renewal_due(lease), hold_until };
        let mut held = pursuit.hold(fence, deadline, &plan);
        // Looked at after the claim is where `close` finds it: one of the two sees the other.
        client.ready()?;
        tracing::debug!(key = %self.lock.key, mode = %self.mode, token = %fence.token, "granted");
        // A hand-over leaves the waiter's lease; who renews by hand is given the whole ttl once.
        if !automatic && held.remaining() < held.ttl.mul_f64(0.9) {
            let ttl = held.ttl;
            held.renew(ttl).await?;
        }
        // Taking part in tokio's budget after the grant, not before: yielding with the lock free would let one task have
        // it again and again.
        tokio::task::coop::consume_budget().await;
        Ok(held)
    }

    /// The wait is over, or the server answers no more: withdraws, and says who is in the way. A grant that came just in
    /// time is kept.
    async fn give_up(&self, mut pursuit: Pursuit, failure: Option<Error>) -> Result<Option<Held>> {
        let failure = match failure {
            Some(failure) if !pursuit.is_known() => return Err(failure),
            other => other,
        };
        let client = &self.lock.client;
        let claim = pursuit.claim.clone();
        let (message, withdrawn) = tokio::join!(self.blocked_by(Some(&claim)), pursuit.withdraw());
        match withdrawn {
            Ok(Some((lease, sent))) => {
                let deadline = client.allowance.deadline(sent, lease.left);
                if deadline > client.clock.now() {
                    return self.held(pursuit, lease.fence, sent, lease.left, deadline).await.map(Some);
                }
                Err(Error::new(ErrorKind::Timeout, message))
            }
            Ok(None) => match failure {
                Some(failure) if self.wait.is_none_or(|wait| wait.is_zero()) => {
                    Err(failure.with_kind(ErrorKind::Unavailable))
                }
                _ => Err(Error::new(ErrorKind::Timeout, message)),
            },
            Err(error) => Err(failure.unwrap_or(error).with_kind(ErrorKind::Indeterminate)),
        }
    }

    /// Such as `blocked by exclusive holder web-3 (for 42s), 2 ahead`.
    async fn blocked_by(&self, claim: Option<&Claim>) -> String {
        let client = &self.lock.client;
        let request = client.backend.clone().inspect(self.lock.key.clone());
        let Ok(snapshot) = bounded(request, client.settings.request_timeout).await else {
            return "the server did not say who is in the way".into();
        };
        let ahead =
            snapshot.waiters.iter().position(|waiter| claim.is_some_and(|claim| waiter.id == claim.id()));
        let ahead = ahead.unwrap_or(snapshot.waiters.len());
        let in_the_way = snapshot.holders.first().or(snapshot.waiters.first());
        match in_the_way {
            Some(blocker) => format!("blocked by {blocker}, {ahead} ahead"),
            None => "free again just now".into(),
        }
    }
}
