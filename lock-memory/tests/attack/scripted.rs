//! A backend that answers as the test tells it, and else as memory does.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use lock_memory::MemoryBackend;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Fence, FencingToken,
    Key, KeyPrefix, Lease, LeaseClock, LockBackend, LockClient, Page, PageToken, Queue, Release, Released,
    Renewal, Result, Snapshot,
};

pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type Script<A, T> = Box<dyn Fn(Arc<MemoryBackend>, A) -> Answer<Result<T>> + Send + Sync>;

/// What happens to the requests of one client; what is not scripted goes to memory.
pub(crate) struct Scripted {
    pub(crate) memory: Arc<MemoryBackend>,
    pub(crate) clock: LeaseClock,
    /// In which group the claims of a key are renewed.
    pub(crate) group: fn(&Key) -> Option<usize>,
    pub(crate) acquire: Option<Script<(Arc<Claim>, Queue), Attempt>>,
    pub(crate) renew: Option<Script<Renewal, Lease>>,
    pub(crate) convert: Option<Script<Conversion, Attempt>>,
    pub(crate) release: Option<Script<Release, Released>>,
}

impl Scripted {
    pub(crate) fn new(memory: Arc<MemoryBackend>) -> Scripted {
        let (clock, group) = (LeaseClock::Own, |_: &Key| None);
        Scripted { memory, clock, group, acquire: None, renew: None, convert: None, release: None }
    }

    pub(crate) fn client(self) -> LockClient {
        LockClient::new(Arc::new(self))
    }
}

/// A script of a closure that answers with a future.
pub(crate) fn script<A, T, F>(
    answer: impl Fn(Arc<MemoryBackend>, A) -> F + Send + Sync + 'static,
) -> Script<A, T>
where
    F: Future<Output = Result<T>> + Send + 'static,
{
    Box::new(move |memory, asked| Box::pin(answer(memory, asked)))
}

pub(crate) fn away() -> Error {
    Error::new(ErrorKind::Unavailable, "as the test asked")
}

/// A fence with the smallest token.
pub(crate) fn fence() -> Fence {
    Fence { token: FencingToken::FIRST, floor: FencingToken::FIRST }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities { clock: self.clock, ..self.memory.capabilities() }
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        (self.group)(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        match &self.acquire {
            Some(script) => script(self.memory.clone(), (claim, queue)).await,
            None => self.memory.clone().acquire(claim, queue).await,
        }
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let Some(script) = &self.renew else { return self.memory.clone().renew(renewals).await };
        let mut answers = Vec::new();
        for renewal in renewals {
            answers.push(script(self.memory.clone(), renewal).await);
        }
        answers
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        match &self.convert {
            Some(script) => script(self.memory.clone(), conversion).await,
            None => self.memory.clone().convert(conversion).await,
        }
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let Some(script) = &self.release else { return self.memory.clone().release(releases).await };
        let mut answers = Vec::new();
        for release in releases {
            answers.push(script(self.memory.clone(), release).await);
        }
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.memory.clone().break_claims(key, target).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.memory.clone().inspect(key).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.memory.clone().list(prefix, page).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.memory.clone().close().await
    }
}
