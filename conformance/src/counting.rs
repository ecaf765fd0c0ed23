//! A backend that counts what is asked of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Key, KeyPrefix, Lease, LockBackend,
    Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};

use crate::harness::Client;

/// Passes everything on, and counts it.
#[derive(Debug)]
pub(crate) struct Counting {
    inner: Client,
    requests: AtomicUsize,
    renewals: AtomicUsize,
    claims: Mutex<Vec<Arc<Claim>>>,
}

impl Counting {
    pub(crate) fn new(inner: Client) -> Arc<Counting> {
        let (requests, renewals) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Counting { inner, requests, renewals, claims: Mutex::default() })
    }

    /// How many requests were made, of any kind.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many of them were renewals.
    pub(crate) fn renewals(&self) -> usize {
        self.renewals.load(Ordering::SeqCst)
    }

    /// The claims that were asked for, each as often as it was.
    pub(crate) fn claims(&self) -> Vec<Arc<Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> Client {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.inner.clone()
    }
}

#[async_trait]
impl LockBackend for Counting {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        self.inner.renewal_group(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).push(claim.clone());
        self.count().acquire(claim, queue).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.count().renew(renewals).await
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.count().convert(conversion).await
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        self.count().release(releases).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.count().break_claims(key, target).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.count().inspect(key).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.count().list(prefix, page).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.inner.clone().close().await
    }
}
