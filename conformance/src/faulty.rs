//! A backend whose way to the server is bad.

use std::collections::VecDeque;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Passes requests on to another backend as a bad network does: some not at all, some late or twice, some without an answer.
///
/// For tests of code that locks, and of backends. Requests are under way by themselves, as on a wire: one whose future is dropped
/// still arrives, and one that is late may arrive after those that were made later. News are passed on as they come.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> lockcore::Result<()> {
/// use lock_conformance::{Fault, Faulty};
/// use lock_memory::MemoryBackend;
/// use lockcore::LockClient;
///
/// let backend = Faulty::new(MemoryBackend::new());
/// let lock = LockClient::new(backend.clone()).lock("k")?;
/// // The server grants the lock, and the client is never told.
/// backend.next([Fault::NoAnswer]);
/// let guard = lock.exclusive().acquire().await?;
/// assert_eq!(lock.inspect().await?.holders.len(), 1, "asking again was asking once");
/// # guard.release().await }
/// ```
pub struct Faulty {
    inner: Arc<dyn LockBackend>,
    plan: Mutex<Plan>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It cannot be sent: `Unavailable`.
    NotSent,
    /// It never arrives: `Indeterminate`.
    Lost,
    /// The server acts, and the answer is lost: `Indeterminate`.
    NoAnswer,
    /// As [`NoAnswer`](Fault::NoAnswer), and nobody ever says so: the request hangs.
    Silence,
    /// It arrives this much later.
    Late(Duration),
    /// Its answer comes this much later.
    LateAnswer(Duration),
    /// It arrives at once, and once more this much later.
    Twice(Duration),
}

#[derive(Default)]
struct Plan {
    next: VecDeque<Fault>,
    chance: Option<Chance>,
    otherwise: Fault,
}

struct Chance {
    random: fastrand::Rng,
    one_in: u32,
    latest: Duration,
}

impl Faulty {
    /// This backend, without any fault as yet.
    #[must_use]
    pub fn new(inner: Arc<dyn LockBackend>) -> Arc<Faulty> {
        Arc::new(Faulty { inner, plan: Mutex::default() })
    }

    /// What happens to the requests that are made next, in their order.
    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan().next.extend(faults);
    }

    /// What happens from now on to every request of which nothing else is said.
    pub fn always(&self, fault: Fault) {
        self.plan().otherwise = fault;
    }

    /// From now on one request in so many meets a fault by chance, the same ones for the same seed; what is late is at most so late.
    /// One in zero is none.
    pub fn by_chance(&self, seed: u64, one_in: u32, latest: Duration) {
        let random = fastrand::Rng::with_seed(seed);
        self.plan().chance = (one_in > 0).then_some(Chance { random, one_in, latest });
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request and gives its answer, or what `failed` makes of an error.
    async fn carry<T, F>(
        self: Arc<Self>,
        request: impl Fn(Arc<dyn LockBackend>) -> F + Send + 'static,
        failed: impl FnOnce(Error) -> T,
    ) -> T
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let fault = self.plan().draw();
        let inner = self.inner.clone();
        match fault {
            Fault::None => return request(inner).await,
            Fault::NotSent => return failed(fault_error(ErrorKind::Unavailable)),
            Fault::Lost => return failed(fault_error(ErrorKind::Indeterminate)),
            Fault::NoAnswer | Fault::Silence | Fault::Late(_) | Fault::LateAnswer(_) | Fault::Twice(_) => {}
        }
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            if let Fault::Late(late) = fault {
                sleep(late).await;
            }
            let answer = request(inner.clone()).await;
            if matches!(fault, Fault::NoAnswer | Fault::Silence) {
                return;
            }
            if let Fault::LateAnswer(late) = fault {
                sleep(late).await;
            }
            // Whoever asked may not care any more.
            drop(tell.send(answer));
            if let Fault::Twice(later) = fault {
                sleep(later).await;
                drop(request(inner).await);
            }
        });
        match told.await {
            Ok(answer) => answer,
            Err(_) if fault == Fault::Silence => pending().await,
            Err(_) => failed(fault_error(ErrorKind::Indeterminate)),
        }
    }
}

impl Plan {
    fn draw(&mut self) -> Fault {
        if let Some(fault) = self.next.pop_front() {
            return fault;
        }
        let Some(Chance { random, one_in, latest }) = &mut self.chance else { return self.otherwise };
        if random.u32(..*one_in) > 0 {
            return self.otherwise;
        }
        let late = latest.mul_f64(random.f64());
        match random.u8(..7) {
            0 => Fault::NotSent,
            1 => Fault::Lost,
            2 => Fault::NoAnswer,
            3 => Fault::Silence,
            4 => Fault::Late(late),
            5 => Fault::LateAnswer(late),
            _ => Fault::Twice(late),
        }
    }
}

fn fault_error(kind: ErrorKind) -> Error {
    Error::new(kind, "a fault that was asked for")
}

fn for_all<T>(number: usize) -> impl FnOnce(Error) -> Vec<Result<T>> {
    move |error| (0..number).map(|_| Err(fault_error(error.kind()))).collect()
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        self.inner.renewal_group(key)
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.carry(move |inner| inner.acquire(claim.clone(), queue), Err).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let failed = for_all(renewals.len());
        self.carry(move |inner| inner.renew(renewals.clone()), failed).await
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.carry(move |inner| inner.convert(conversion.clone()), Err).await
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let failed = for_all(releases.len());
        self.carry(move |inner| inner.release(releases.clone()), failed).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.carry(move |inner| inner.break_claims(key.clone(), target.clone()), Err).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.carry(move |inner| inner.inspect(key.clone()), Err).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.carry(move |inner| inner.list(prefix.clone(), page.clone()), Err).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.inner.clone().close().await
    }
}
