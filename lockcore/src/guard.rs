//! Proof that a lock is held, for as long as it is.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::claim::{Claim, ClaimId};
use crate::convert::{ConvertError, convert};
use crate::detach::DetachedClaim;
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::key::Key;
use crate::mode::Mode;
use crate::tenure::Loss;
use crate::token::{Fence, FencingToken};

/// The mode of a guard, as a type.
pub trait LockMode: sealed::Sealed + Send + Sync + Unpin + 'static {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! modes {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl sealed::Sealed for $name {}
        impl LockMode for $name {}
    )*};
}

modes! {
    /// Alone.
    Exclusive,
    /// With other shared holders.
    Shared,
    /// One of a bounded number of holders.
    Permit,
    /// Any of them: for guards of several modes in one list.
    Any
}

/// A held lock. Dropping it releases the lock in the background; [`release`](LockGuard::release) waits for the answer.
///
/// # What it promises
/// While [`is_held`](LockGuard::is_held) is true nobody who conflicts is a holder, as long as the clocks of this machine
/// and of the server run at the same speed within one per cent. A process can be stopped between the check and the write
/// that it allows: then only the [`fence`](LockGuard::fence), checked by the resource, keeps a stale write out.
///
/// A guard is lost when its lease could not be renewed in time, when somebody broke the lock or took it over, or when
/// the server lost its state. Loss is final; the guard then does nothing more.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct LockGuard<M> {
    held: Held,
    mode: PhantomData<M>,
}

impl<M: LockMode> LockGuard<M> {
    pub(crate) fn new(held: Held) -> LockGuard<M> {
        LockGuard { held, mode: PhantomData }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// The locked key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.held.lock.key
    }

    /// The mode in which it is held.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.held.mode
    }

    /// The name of the claim.
    #[must_use]
    pub fn claim_id(&self) -> ClaimId {
        self.held.claim.id()
    }

    /// The owner in whose name it is held.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.held.claim.owner().map(|owner| &**owner)
    }

    /// The fencing token: larger than that of every conflicting holder before.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.held.fence.token
    }

    /// The token and the floor, as a [`FenceGate`](crate::FenceGate) wants them.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.held.fence
    }

    /// Whether the lock is held at this moment, by this machine's clock.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.loss().is_none()
    }

    /// How long the lock is still held if no renewal is answered any more; zero when it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.held.remaining()
    }

    /// Makes sure that the lock is held for at least `min_remaining` more.
    ///
    /// # Errors
    /// `Lost` when it is not.
    pub fn ensure(&self, min_remaining: Duration) -> Result<()> {
        let remaining = self.remaining();
        if let Some(loss) = self.held.loss() {
            return Err(self.held.lost_error("ensure", loss));
        }
        if remaining < min_remaining {
            let message = format!("only {remaining:?} of the lease are left, {min_remaining:?} are needed");
            return Err(self.held.at("ensure", Error::new(ErrorKind::Lost, message)));
        }
        Ok(())
    }

    /// Whether and why it is lost at this moment.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.held.loss()
    }

    /// The lease that renewals ask for.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.held.ttl
    }

    /// Waits until the lock is lost, and says why. Any number of tasks may wait at once.
    ///
    /// Timers stand still while the machine is suspended: after that it may say so up to a third of the ttl late.
    /// [`is_held`](LockGuard::is_held) is right at once.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn lost(&self) -> Loss {
        self.held.lost().await
    }

    /// Renews the lease: it lasts its whole ttl from now on.
    ///
    /// # Errors
    /// `Lost` when the claim is not held any more: a renewal never takes the lock again. Anything else is no loss; the
    /// lock is held until [`remaining`](LockGuard::remaining) is over.
    ///
    /// # Cancel safety
    /// When the future is dropped the lease may or may not have been renewed; the guard counts on the old one.
    #[doc(alias = "refresh")]
    #[doc(alias = "extend")]
    pub async fn renew(&mut self) -> Result<()> {
        let ttl = self.held.ttl;
        self.held.renew(ttl).await
    }

    /// Renews the lease with another ttl, which may be shorter than what is left; later renewals ask for the same.
    ///
    /// # Errors
    /// As [`renew`](LockGuard::renew), and `InvalidArgument` for a ttl of zero or above 100 years.
    ///
    /// # Cancel safety
    /// When the future is dropped the lease may or may not have been renewed; a shorter one counts at once.
    pub async fn renew_for(&mut self, ttl: Duration) -> Result<()> {
        self.held.renew(ttl).await
    }

    /// Renews the lease if less than `threshold` of it is left; without a request otherwise. Whether it did.
    ///
    /// # Errors
    /// As [`renew`](LockGuard::renew).
    ///
    /// # Cancel safety
    /// As [`renew`](LockGuard::renew).
    pub async fn renew_if_below(&mut self, threshold: Duration) -> Result<bool> {
        if self.is_held() && self.remaining() >= threshold {
            return Ok(false);
        }
        self.renew().await.map(|()| true)
    }

    /// Releases the lock and waits for the server's answer.
    ///
    /// # Errors
    /// `Lost` when the claim had ended before: its work was not protected to the end. `Unavailable` or `Indeterminate`
    /// when the server could not be reached in three tries; the client then goes on trying in the background, and
    /// the lease ends the claim at the latest.
    ///
    /// # Cancel safety
    /// When the future is dropped the release goes on in the background.
    pub async fn release(self) -> Result<()> {
        self.held.release().await
    }

    /// Lets the claim go on without this guard: nobody renews it, and it is not released. Another process may
    /// [`resume`](crate::LockClient::resume) it before its lease runs out.
    ///
    /// # Errors
    /// `Lost` when it is not held any more.
    pub fn detach(self) -> Result<DetachedClaim> {
        crate::detach::detach(self.held)
    }

    /// A guard that has forgotten its mode's type, for lists of guards.
    pub fn into_any(self) -> LockGuard<Any> {
        LockGuard::new(self.held)
    }

    /// Becomes exclusive: waits for the other holders to leave, ahead of everybody in the queue, and gets a new token.
    /// Nobody joins meanwhile. Without bound; the shared lock is held, and renewed, while it waits.
    ///
    /// # Errors
    /// `WouldDeadlock` when another holder waits to upgrade already, `Lost`, or what keeps the server from answering. The
    /// error gives the guard back, still in its old mode; it is lost if the server could not be told to forget the
    /// upgrade.
    ///
    /// # Cancel safety
    /// Dropping the future releases the lock: the guard is inside it.
    pub async fn upgrade(self) -> Result<LockGuard<Exclusive>, ConvertError<M>> {
        convert(self.held, Mode::Exclusive, None).await.map(LockGuard::new).map_err(ConvertError::new)
    }

    /// [`upgrade`](LockGuard::upgrade) within `wait`; zero succeeds only for the last holder.
    ///
    /// # Errors
    /// As [`upgrade`](LockGuard::upgrade), and `Timeout`; the guard is then shared as before.
    ///
    /// # Cancel safety
    /// As [`upgrade`](LockGuard::upgrade).
    pub async fn upgrade_within(self, wait: Duration) -> Result<LockGuard<Exclusive>, ConvertError<M>> {
        convert(self.held, Mode::Exclusive, Some(wait)).await.map(LockGuard::new).map_err(ConvertError::new)
    }

    /// Becomes shared, without letting anybody conflicting in between, and lets in the waiters that it can. The token
    /// stays.
    ///
    /// # Errors
    /// `Lost`, or what keeps the server from answering; the error gives the guard back. After `Indeterminate` it is lost:
    /// it may be shared already, with others.
    ///
    /// # Cancel safety
    /// Dropping the future releases the lock: the guard is inside it.
    pub async fn downgrade(self) -> Result<LockGuard<Shared>, ConvertError<M>> {
        convert(self.held, Mode::Shared, None).await.map(LockGuard::new).map_err(ConvertError::new)
    }

    /// Becomes one of at most `at_most` holders; otherwise as [`downgrade`](LockGuard::downgrade).
    ///
    /// # Errors
    /// As [`downgrade`](LockGuard::downgrade).
    ///
    /// # Cancel safety
    /// As [`downgrade`](LockGuard::downgrade).
    pub async fn downgrade_to_permit(
        self,
        at_most: NonZeroU32,
    ) -> Result<LockGuard<Permit>, ConvertError<M>> {
        convert(self.held, Mode::Permit { at_most }, None)
            .await
            .map(LockGuard::new)
            .map_err(ConvertError::new)
    }
}

macro_rules! into_any {
    ($($mode:ident),*) => {$(
        impl From<LockGuard<$mode>> for LockGuard<Any> {
            fn from(guard: LockGuard<$mode>) -> LockGuard<Any> {
                guard.into_any()
            }
        }
    )*};
}

into_any!(Exclusive, Shared, Permit);

impl Held {
    /// Polls `work` as long as the claim is held: `None` when it was lost first.
    pub(crate) async fn while_held<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        // Made only when the work waits for something: it arms a timer.
        let mut lost = pin!(None);
        poll_fn(|context| {
            // Comparing clocks before each step: after a pause of the process no channel could tell in time.
            if self.loss().is_some() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if lost.is_none() {
                lost.set(Some(self.lost()));
            }
            match lost.as_mut().as_pin_mut() {
                Some(lost) => lost.poll(context).map(|_| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl<M: LockMode> fmt::Debug for LockGuard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", self.key())
            .field("mode", &self.mode())
            .field("token", &self.token())
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
