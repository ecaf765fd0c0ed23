//! Futures that are polled by hand, and a backend whose requests need several polls.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};

use crate::harness::Client;

/// Polls `future` once, and gives back control at once: whoever owns it may go on with it, or drop it before anything that
/// it set in motion has gone any further.
pub(crate) async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Passes everything on, and lets each request be pending before it is carried out and after.
///
/// A backend in this process answers at the first poll; behind this one there are points to be dropped at, as on a network:
/// with the request not sent, with the answer not received, and for what joins or converts also on the way. That arrives
/// although nobody waits for it any more, and everything else may overtake it.
#[derive(Debug)]
pub(crate) struct Pausing(Client);

impl Pausing {
    pub(crate) fn new(inner: Client) -> Arc<Pausing> {
        Arc::new(Pausing(inner))
    }
}

/// How often what is on the way is overtaken, at least.
const TURNS_ON_THE_WAY: usize = 20;

/// Sends a request that arrives whatever becomes of the one who sent it.
async fn sent<T: Send + 'static>(request: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    turn().await;
    let arrives = tokio::spawn(async move {
        for _ in 0..TURNS_ON_THE_WAY {
            turn().await;
        }
        request.await
    });
    let answer = arrives.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Indeterminate, "its runtime has ended").with_source(error))
    });
    turn().await;
    answer
}

async fn turn() {
    let mut pending = true;
    poll_fn(|context| {
        if std::mem::take(&mut pending) {
            context.waker().wake_by_ref();
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

async fn around<T>(request: impl Future<Output = T>) -> T {
    turn().await;
    let answer = request.await;
    turn().await;
    answer
}

#[async_trait]
impl LockBackend for Pausing {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        self.0.renewal_group(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        sent(self.0.clone().acquire(claim, queue)).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        around(self.0.clone().renew(renewals)).await
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        sent(self.0.clone().convert(conversion)).await
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        around(self.0.clone().release(releases)).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        around(self.0.clone().break_claims(key, target)).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        around(self.0.clone().inspect(key)).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        around(self.0.clone().list(prefix, page)).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        around(self.0.clone().close()).await
    }
}
