//! A backend whose answers take their time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Key, KeyPrefix, Lease, LockBackend,
    Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};
use tokio::time::sleep;

use crate::harness::Client;

/// Passes everything on at once, and each answer back after a while.
#[derive(Debug)]
pub(crate) struct Delaying {
    inner: Client,
    answers: Mutex<Duration>,
}

impl Delaying {
    pub(crate) fn new(inner: Client, answers: Duration) -> Arc<Delaying> {
        Arc::new(Delaying { inner, answers: Mutex::new(answers) })
    }

    /// Answers of requests that are made from now on take this long.
    pub(crate) fn slow_down(&self, answers: Duration) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    async fn slowly<T>(&self, request: impl Future<Output = T>) -> T {
        let pause = *self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = request.await;
        sleep(pause).await;
        answer
    }
}

#[async_trait]
impl LockBackend for Delaying {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        self.inner.renewal_group(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.slowly(self.inner.clone().acquire(claim, queue)).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        self.slowly(self.inner.clone().renew(renewals)).await
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.slowly(self.inner.clone().convert(conversion)).await
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        self.slowly(self.inner.clone().release(releases)).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.slowly(self.inner.clone().break_claims(key, target)).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.slowly(self.inner.clone().inspect(key)).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.slowly(self.inner.clone().list(prefix, page)).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.inner.clone().close().await
    }
}
