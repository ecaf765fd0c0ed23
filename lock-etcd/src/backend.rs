//! The backend itself: each method is a transaction or two.

use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, Key, KeyPrefix, Lease,
    LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};
use tokio::task::JoinHandle;

use crate::connect::EtcdBuilder;
use crate::core::{Core, together};
use crate::errors::NAME;

/// Locks on one etcd cluster.
///
/// One connection, to one member until that does not answer, carries the requests of all tasks, and one watch brings the news of all
/// claims. The client lives on the runtime that it was connected on: when that ends, so does it.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), lockcore::Error> {
/// let backend = lock_etcd::EtcdBackend::connect("etcd://127.0.0.1:2379").await?;
/// # drop(backend);
/// # Ok(())
/// # }
/// ```
pub struct EtcdBackend {
    core: Arc<Core>,
    capabilities: Capabilities,
    keeper: Mutex<Option<JoinHandle<()>>>,
    address: String,
}

impl EtcdBackend {
    /// Connects to the cluster at `url`, such as `etcd://user:password@one:2379,two:2379/?prefix=lock/`.
    ///
    /// # Errors
    /// As [`EtcdBuilder::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(url: &str) -> Result<Arc<EtcdBackend>> {
        EtcdBackend::builder(url).connect().await
    }

    /// Begins a connection with options.
    pub fn builder(url: &str) -> EtcdBuilder {
        EtcdBuilder::new(url)
    }

    pub(crate) fn new(
        core: Arc<Core>,
        capabilities: Capabilities,
        keeper: JoinHandle<()>,
        address: String,
    ) -> EtcdBackend {
        EtcdBackend { core, capabilities, keeper: Mutex::new(Some(keeper)), address }
    }

    /// How many claims of this client are known: none is left behind when all were released.
    #[doc(hidden)]
    #[must_use]
    pub fn listening(&self) -> usize {
        self.core.registry.len()
    }

    fn stop(&self) {
        self.core.link.close();
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

#[async_trait]
impl LockBackend for EtcdBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.core.acquire(&claim, queue).await.map_err(|error| at(error, "acquire", claim.key()))
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let answers = self.core.renew_all(&renewals).await;
        let located = |(answer, renewal): (Result<Lease>, &Renewal)| {
            answer.map_err(|error| at(error, "renew", renewal.claim.key()))
        };
        answers.into_iter().zip(&renewals).map(located).collect()
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.core.convert(&conversion).await.map_err(|error| at(error, "convert", conversion.claim.key()))
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let mut requests = Vec::with_capacity(releases.len());
        for release in &releases {
            requests.push(self.core.release(release));
        }
        let answers = together(requests).await;
        let located = |(answer, release): (Result<Released>, &Release)| {
            answer.map_err(|error| at(error, "release", release.claim.key()))
        };
        answers.into_iter().zip(&releases).map(located).collect()
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.core.break_claims(&key, &target).await.map_err(|error| at(error, "break", &key))
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.core.inspect(&key).await.map_err(|error| at(error, "inspect", &key))
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.core.list(&prefix, &page).await.map_err(|error| error.at("list", NAME, None))
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        // First of all: another user of this backend must not put a claim on a lease of which was seen that nothing uses it.
        self.core.link.close();
        // Leases on which claims lie that somebody may resume run out by themselves.
        for lease in self.core.leases.all_shared() {
            if !self.core.registry.uses(&lease)
                && let Err(trouble) = self.core.link.revoke(lease.id).await
            {
                tracing::debug!(?trouble, lease = lease.id, "an unused lease is left to run out");
            }
        }
        self.stop();
        Ok(())
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend")
            .field("address", &self.address)
            .field("prefix", &self.core.keys.prefix())
            .finish_non_exhaustive()
    }
}

fn at(error: Error, operation: &'static str, key: &Key) -> Error {
    error.at(operation, NAME, Some(key))
}
