//! A backend that counts what its client asks of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Key, KeyPrefix, Lease, LockBackend,
    Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};

/// Passes everything on. It costs a box for each request, so it is used where requests are few.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn LockBackend>,
    requests: AtomicU64,
    renewed: AtomicU64,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn LockBackend>) -> Arc<Counted> {
        Arc::new(Counted { inner, requests: AtomicU64::new(0), renewed: AtomicU64::new(0) })
    }

    /// Requests so far; a batch is one.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Renewals so far, each of a batch.
    pub(crate) fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }

    fn next(&self) -> Arc<dyn LockBackend> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.clone()
    }
}

#[async_trait]
impl LockBackend for Counted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        self.inner.renewal_group(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.next().acquire(claim, queue).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let count = renewals.len();
        self.renewed.fetch_add(count.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        self.next().renew(renewals).await
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.next().convert(conversion).await
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        self.next().release(releases).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.next().break_claims(key, target).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.next().inspect(key).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.next().list(prefix, page).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.inner.clone().close().await
    }
}
