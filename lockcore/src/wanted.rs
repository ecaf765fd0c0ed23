//! What an acquisition wants, and the one loop that every backend is waited on with.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;
use tracing::Instrument;
use tracing::field::Empty;

use crate::acquire::Renew;
use crate::backend::{Attempt, Queue};
use crate::bell::Ending;
use crate::claim::Claim;
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::lease::check_ttl;
use crate::lock::LockInner;
use crate::mode::Mode;
use crate::pursuit::{HoldPlan, Pursuit, Woken};
use crate::request::bounded;
use crate::retry::Retry;
use crate::token::Fence;

#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) lock: Arc<LockInner>,
    pub(crate) mode: Mode,
    pub(crate) ttl: Duration,
    pub(crate) wait: Option<Duration>,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) note: Option<Arc<str>>,
    pub(crate) take_over: bool,
    pub(crate) renew: Renew,
    pub(crate) max_hold: Option<Duration>,
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

pub(crate) async fn wait_free(lock: &Arc<LockInner>, mode: Mode, wait: Duration) -> Result<bool> {
    let mut wanted = Wanted::new(lock.clone(), mode);
    wanted.wait = Some(wait);
    match wanted.acquire().await {
        Ok(held) => held.release().await.map(|()| true),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(false),
        Err(error) => Err(error),
    }
}

impl Wanted {
    pub(crate) fn new(lock: Arc<LockInner>, mode: Mode) -> Wanted {
        Wanted {
            mode,
            ttl: lock.client.settings.ttl,
            wait: None,
            owner: lock.owner.clone(),
            note: None,
            take_over: false,
            renew: Renew::Automatic,
            max_hold: None,
            lock,
        }
    }

    pub(crate) async fn acquire(self) -> Result<Held> {
        let queue = if self.wait.is_some_and(|wait| wait.is_zero()) { Queue::Never } else { Queue::Join };
        let outcome = match self.pursue_in_span(queue).await {
            Ok(Some(held)) => Ok(held),
            Ok(None) => Err(Error::new(ErrorKind::Timeout, Box::pin(self.blocked_by(None)).await)),
            Err(error) => Err(error),
        };
        self.report("acquire", outcome)
    }

    pub(crate) async fn try_acquire(mut self) -> Result<Option<Held>> {
        self.wait = Some(Duration::ZERO);
        let outcome = self.pursue_in_span(Queue::Never).await;
        self.report("try_acquire", outcome)
    }

    /// In a span if anybody listens; otherwise the wrapper alone would cost a tenth of a cycle in memory.
    async fn pursue_in_span(&self, queue: Queue) -> Result<Option<Held>> {
        let span = self.span();
        if span.is_disabled() {
            self.pursue(queue).await
        } else {
            Box::pin(self.pursue(queue).instrument(span)).await
        }
    }

    fn span(&self) -> tracing::Span {
        tracing::debug_span!("acquire", key = %self.lock.key, mode = %self.mode, wait = ?self.wait, token = Empty)
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
        let mut pursuit = Pursuit::new(&self.lock, claim);
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
                    // The clock is read again only if time can have passed.
                    let now = if pursuit.waited { client.clock.now() } else { asked };
                    if deadline > now {
                        return self.held(pursuit, lease.fence, asked, lease.left, deadline).await.map(Some);
                    }
                    // The answer took longer than the lease: worthless. Once more, as somebody new.
                    pursuit.renew_id();
                    if queue == Queue::Never || !self.pause(&mut retry, end).await {
                        let message = "the grant came later than its lease allows";
                        return Err(Error::new(ErrorKind::Timeout, message));
                    }
                }
                Ok(Attempt::Queued(queued)) => {
                    retry = None;
                    let deadline = client.allowance.deadline(asked, queued.left);
                    pursuit.queued_until = Some(deadline);
                    match pursuit.wait(queued, asked, end).await {
                        Woken::Granted(fence) if deadline > client.clock.now() => {
                            return self.held(pursuit, fence, asked, queued.left, deadline).await.map(Some);
                        }
                        Woken::Granted(_) | Woken::AskAgain => {}
                        Woken::Ended(Ending::Expired) => pursuit.renew_id(),
                        Woken::Ended(ending) => return Err(Pursuit::ended_error(ending)),
                        Woken::BudgetOver => return Box::pin(self.give_up(pursuit, None)).await,
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
                    let patience = match pursuit.queued_until.filter(|_| self.wait.is_none()) {
                        // Its place in the queue lasts as long as its lease.
                        Some(kept) => {
                            retry.get_or_insert_with(Retry::within_budget);
                            kept
                        }
                        None => end,
                    };
                    if !self.pause(&mut retry, patience).await {
                        return Box::pin(self.give_up(pursuit, Some(error))).await;
                    }
                }
                Err(error) if error.may_have_happened() => {
                    return Box::pin(self.give_up(pursuit, Some(error))).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The claim as it is sent, every value within its bounds.
    fn claim(&self) -> Result<Arc<Claim>> {
        let capabilities = &self.lock.client.capabilities;
        let waiter_ttl = self.lock.client.settings.waiter_ttl;
        if matches!(self.mode, Mode::Permit { .. }) && !capabilities.permits {
            return Err(Error::new(ErrorKind::Unsupported, "this backend has no permits"));
        }
        if self.max_hold.is_some_and(|longest| longest.is_zero()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "max_hold must be longer than zero"));
        }
        check_ttl(self.ttl)?;
        let ttl = self.ttl.min(self.max_hold.unwrap_or(Duration::MAX)).max(capabilities.min_ttl);
        // Zero is refused, not rounded up.
        let waiter_ttl = if waiter_ttl.is_zero() { waiter_ttl } else { waiter_ttl.max(capabilities.min_ttl) };
        let (owner, note) = (self.owner.clone(), self.note.clone());
        let kept = self.renew == Renew::Automatic && self.max_hold.is_none();
        let key = self.lock.key.clone();
        let claim = Claim::assemble(key, self.mode, ttl, waiter_ttl, owner, note, self.take_over, kept);
        claim.validate()?;
        Ok(claim)
    }

    fn new_retry(&self) -> Retry {
        if self.wait.is_some() { Retry::within_budget() } else { Retry::patiently() }
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
        pursuit: Pursuit<'_>,
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
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::Span::current().record("token", fence.token.get());
            tracing::debug!(key = %self.lock.key, mode = %self.mode, token = %fence.token, "granted");
        }
        // A hand-over leaves the waiter's lease; who renews by hand is given the whole ttl once.
        if !automatic && held.remaining() < held.ttl.mul_f64(0.9) {
            // Boxed, as all that is rare: the future of an acquire is smaller without.
            Box::pin(renew_once(&mut held)).await?;
        }
        // Taking part in tokio's budget after the grant, not before: yielding with the lock free would let one task have
        // it again and again. Not every time: a yield wakes a thread that sleeps, to find nothing to do.
        if held.claim.id().to_bits().is_multiple_of(8) {
            tokio::task::coop::consume_budget().await;
        }
        Ok(held)
    }

    /// The wait is over, or the server answers no more: withdraws, and says who is in the way. A grant that came just in
    /// time is kept.
    async fn give_up(&self, mut pursuit: Pursuit<'_>, failure: Option<Error>) -> Result<Option<Held>> {
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
        let (asker, key) = (client.clone(), self.lock.key.clone());
        // An answer is as long as the queue: a crowd whose waits end at once must not ask for as many of them at once.
        let request = Box::pin(async move {
            let _turn = asker.asking.acquire().await;
            asker.backend.clone().inspect(key).await
        });
        let Ok(snapshot) = bounded(request, client.settings.request_timeout).await else {
            return "the server did not say who is in the way".into();
        };
        let ahead = match claim {
            None => Some(snapshot.waiters.len()),
            // Unknown when it was withdrawn before the answer.
            Some(claim) => snapshot.waiters.iter().position(|waiter| waiter.id == claim.id()),
        };
        let blocker = snapshot.holders.first().or(snapshot.waiters[..ahead.unwrap_or(0)].first());
        match (blocker, ahead) {
            (Some(blocker), Some(ahead)) => format!("blocked by {blocker}, {ahead} ahead"),
            (Some(blocker), None) => format!("blocked by {blocker}"),
            (None, _) => "free again just now".into(),
        }
    }
}

/// Renews with the whole ttl; a server that does not answer is asked a few times.
async fn renew_once(held: &mut Held) -> Result<()> {
    let (ttl, mut retry) = (held.ttl, Retry::few_times());
    while let Err(error) = held.renew(ttl).await {
        match retry.next_delay().filter(|_| error.is_retryable()) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(error),
        }
    }
    Ok(())
}
