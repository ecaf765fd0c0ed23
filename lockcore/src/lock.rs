//! The lock on one key: where acquisitions begin, and what can be seen and done from outside.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::Acquire;
use crate::backend::BreakTarget;
use crate::client::Inner;
use crate::error::Result;
use crate::guard::{Exclusive, Permit, Shared};
use crate::inspect::{ClaimInfo, Snapshot};
use crate::key::Key;
use crate::mode::Mode;
use crate::request::bounded;

/// The lock on one key of one client. Making it costs no request; keep it where the key is used again and again.
///
/// # Fairness
/// Where the backend is [fair](crate::Capabilities::fair), claims are granted in the order in which they arrived at the
/// server, exclusive and shared in one queue: readers never starve a writer, nor writers a reader. Shared claims at the
/// head of the queue are granted together.
///
/// A task that acquires a lock which it holds already waits for itself.
#[derive(Clone)]
pub struct Lock(pub(crate) Arc<LockInner>);

// Locks made in a row would share cache lines, and their reference counts are written on every acquire.
#[repr(align(128))]
pub(crate) struct LockInner {
    pub(crate) client: Arc<Inner>,
    pub(crate) key: Key,
    pub(crate) owner: Option<Arc<str>>,
}

impl Lock {
    pub(crate) fn new(client: Arc<Inner>, key: Key) -> Lock {
        // A copy of its own: one shared count would be written by every thread.
        let owner = client.settings.owner.as_deref().map(Arc::from);
        Lock(Arc::new(LockInner { client, key, owner }))
    }

    /// The key that is locked.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// To hold the key alone.
    pub fn exclusive(&self) -> Acquire<Exclusive> {
        Acquire::new(self.0.clone(), Mode::Exclusive)
    }

    /// To hold the key together with other shared holders.
    pub fn shared(&self) -> Acquire<Shared> {
        Acquire::new(self.0.clone(), Mode::Shared)
    }

    /// To be one of at most `at_most` holders: a counting semaphore.
    pub fn permit(&self, at_most: NonZeroU32) -> Acquire<Permit> {
        Acquire::new(self.0.clone(), Mode::Permit { at_most })
    }

    /// Who holds the key and who waits for it, as at some point during the call.
    ///
    /// # Errors
    /// Whatever keeps the server from answering within the request timeout.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on the lock.
    pub async fn inspect(&self) -> Result<Snapshot> {
        let inner = &self.0.client;
        let request = inner.backend.clone().inspect(self.0.key.clone());
        bounded(request, inner.settings.request_timeout)
            .await
            .map_err(|e| inner.at(e, "inspect", Some(&self.0.key)))
    }

    /// Takes claims off the key by force, and answers those that it removed.
    ///
    /// Whoever held one learns it at once where the backend pushes, else at the next renewal; until then both it and
    /// its successor may believe that they hold the lock, and only fencing tokens tell them apart.
    ///
    /// # Errors
    /// Whatever keeps the server from answering; after `Indeterminate` the claims may be broken.
    ///
    /// # Cancel safety
    /// Dropping the future may or may not break the claims.
    pub async fn break_claims(&self, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        let inner = &self.0.client;
        let request = inner.backend.clone().break_claims(self.0.key.clone(), target);
        bounded(request, inner.settings.request_timeout)
            .await
            .map_err(|e| inner.at(e, "break", Some(&self.0.key)))
    }

    /// Waits until a claim of this mode could be granted, without keeping it: queues like an acquire, and lets go at once
    /// when its turn comes. Whether it was free in time; by the time that the caller looks, it may not be any more.
    ///
    /// # Errors
    /// As [`Acquire::acquire`], except that a wait that is over is the answer `false`.
    ///
    /// # Cancel safety
    /// As [`Acquire::acquire`].
    pub async fn wait_free(&self, mode: Mode, wait: Duration) -> Result<bool> {
        crate::wanted::wait_free(&self.0, mode, wait).await
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("key", self.key()).field("backend", &self.0.client.backend).finish()
    }
}
