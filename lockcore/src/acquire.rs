//! How an acquisition is described, and begun.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::guard::{LockGuard, LockMode};
use crate::lock::LockInner;
use crate::mode::Mode;
use crate::tenure::Loss;
use crate::wanted::Wanted;

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

impl<M: LockMode> Acquire<M> {
    pub(crate) fn new(lock: Arc<LockInner>, mode: Mode) -> Acquire<M> {
        Acquire { what: Wanted::new(lock, mode), mode: PhantomData }
    }

    /// How long the lock survives its holder: the lease; 30 s by default, at least the backend's
    /// [`min_ttl`](crate::Capabilities::min_ttl), at most 100 years. A lease that is kept alive should be many times as long
    /// as the server takes to answer: it is renewed every third of it, and a renewal that hangs is given up after a quarter.
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
    /// be reached: it is tried again within the wait; without one three more times, a second or two apart, or, once
    /// queued, until the waiter's lease is over. `Lost` when somebody broke the waiting claim. `InvalidArgument`, `Denied`,
    /// `Conflict`, `Closed` as they say. In every case the lock is not held; what an unanswered request may have left on
    /// the server is withdrawn in the background.
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
    /// As [`acquire`](Acquire::acquire); `Timeout` only when the answer came later than the lease allows.
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
        None => Err(guard.held().lost_error("run", guard.held().loss().unwrap_or(Loss::Unknown))),
    }
}
