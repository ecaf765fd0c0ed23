//! A client of one backend: what users make first, and share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::backend::{LockBackend, Release};
use crate::capability::{Capabilities, LeaseClock};
use crate::claim::{Claim, DEFAULT_WAITER_TTL};
use crate::clock::{Allowance, Clock};
use crate::detach::DetachedClaim;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Any, LockGuard};
use crate::inspect::{Page, PageToken};
use crate::key::{Key, KeyPrefix};
use crate::lock::Lock;
use crate::reaper::Reaper;
use crate::registry::Registry;
use crate::renewal::Renewer;
use crate::request::{Request, answer, bounded};
use crate::tenure::Loss;

/// The lease of a claim unless it says otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// How long one request may take unless the client says otherwise.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How many ask at once who is in their way.
const ASKING: usize = 4;

/// Locks on one server. Cheap to clone; all clones share one connection, one renewal task and one reaper.
///
/// The two tasks start with the first acquire, on the runtime that it runs on: leases are renewed, and waiters keep their
/// places, only while that runtime is driven and its threads are not blocked. When it ends, what is held is renewed no
/// more; whoever waits or acquires next starts the tasks on its own runtime. Dropping the last clone, and the last guard,
/// ends them.
///
/// # Examples
/// ```no_run
/// # async fn example(backend: std::sync::Arc<dyn lockcore::LockBackend>) -> lockcore::Result<()> {
/// use lockcore::LockClient;
///
/// let locks = LockClient::new(backend);
/// let guard = locks.lock("invoices/2026-11")?.exclusive().acquire().await?;
/// println!("mine, with token {}", guard.token());
/// guard.release().await?;
/// locks.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LockClient(pub(crate) Arc<Inner>);

// Read for every request; the reference count beside it is written by whoever makes a lock.
#[repr(align(128))]
pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn LockBackend>,
    pub(crate) capabilities: Capabilities,
    pub(crate) clock: Arc<Clock>,
    pub(crate) allowance: Allowance,
    pub(crate) settings: Settings,
    pub(crate) registry: Arc<Registry>,
    pub(crate) reaper: Arc<Reaper>,
    /// Whether the two tasks run; their futures clear it when they end or are dropped with their runtime.
    tasks: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    closed: AtomicBool,
    /// Turns for those who ask who is in their way.
    pub(crate) asking: Semaphore,
}

/// What a client gives to its claims unless they say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Duration,
    pub(crate) waiter_ttl: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) owner: Option<Arc<str>>,
}

/// Makes a [`LockClient`] with other settings than the default ones.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct LockClientBuilder {
    backend: Arc<dyn LockBackend>,
    settings: Settings,
}

impl LockClientBuilder {
    /// The lease of claims that do not say otherwise; 30 s by default.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// The lease of a claim while it waits, 10 s by default and never longer than its ttl: what a crashed waiter costs
    /// those behind it. A waiter asks again every third of it.
    pub fn waiter_ttl(mut self, waiter_ttl: Duration) -> Self {
        self.settings.waiter_ttl = waiter_ttl;
        self
    }

    /// How long one request to the server may take; 2 s by default.
    pub fn request_timeout(mut self, request_timeout: Duration) -> Self {
        self.settings.request_timeout = request_timeout;
        self
    }

    /// In whose name claims are made that do not say otherwise.
    pub fn owner(mut self, owner: impl Into<Arc<str>>) -> Self {
        self.settings.owner = Some(owner.into());
        self
    }

    /// The client.
    #[must_use]
    pub fn build(self) -> LockClient {
        let LockClientBuilder { backend, settings } = self;
        let capabilities = backend.capabilities();
        let own_clock = capabilities.clock == LeaseClock::Own;
        let allowance = match capabilities.clock {
            // One clock; only what the server rounds by.
            LeaseClock::Own => Allowance { drift_divisor: 0, margin: capabilities.ttl_step },
            LeaseClock::ServerWall | LeaseClock::ServerMonotonic => {
                Allowance { drift_divisor: 100, margin: Duration::from_millis(2) }
            }
        };
        let ended = Arc::new(AtomicBool::new(false));
        let reaper = Reaper::new(backend.clone(), settings.request_timeout, ended.clone());
        LockClient(Arc::new(Inner {
            backend,
            capabilities,
            clock: Arc::new(Clock::new(!own_clock)),
            allowance,
            settings,
            registry: Arc::new(Registry::new()),
            reaper: Arc::new(reaper),
            tasks: Arc::new(AtomicBool::new(false)),
            ended,
            closed: AtomicBool::new(false),
            asking: Semaphore::new(ASKING),
        }))
    }
}

impl LockClient {
    /// A client of `backend` with the default settings.
    #[must_use]
    pub fn new(backend: Arc<dyn LockBackend>) -> LockClient {
        LockClient::builder(backend).build()
    }

    /// A client of `backend` with other settings.
    pub fn builder(backend: Arc<dyn LockBackend>) -> LockClientBuilder {
        let settings = Settings {
            ttl: DEFAULT_TTL,
            waiter_ttl: DEFAULT_WAITER_TTL,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            owner: None,
        };
        LockClientBuilder { backend, settings }
    }

    /// The lock on `key`. No request is made.
    ///
    /// # Errors
    /// `InvalidArgument` when `key` is empty or longer than 512 bytes.
    pub fn lock(&self, key: impl Into<String>) -> Result<Lock> {
        Ok(Lock::new(self.0.clone(), Key::new(key)?))
    }

    /// What the backend can promise here.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    /// Some of the keys under `prefix` that somebody holds or waits for; begin with [`PageToken::default`] and go on
    /// with [`Page::next`].
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot list, and whatever keeps the server from answering.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on any lock.
    pub async fn list(&self, prefix: impl Into<String>, page: PageToken) -> Result<Page> {
        let prefix = KeyPrefix::new(prefix)?;
        let request = self.0.backend.clone().list(prefix, page);
        bounded(request, self.0.settings.request_timeout)
            .await
            .map_err(|error| self.0.at(error, "list", None))
    }

    /// Takes up a claim that [`LockGuard::detach`] let out, in this process or another. Its lease is renewed first.
    ///
    /// Take it up once: two guards of one claim are one holder to the server, and do not keep each other out.
    ///
    /// # Errors
    /// `Lost` when it is not held any more, or what keeps the server from answering; the claim then stays detached.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the claim detached; its lease may have been renewed once.
    pub async fn resume(&self, detached: &DetachedClaim) -> Result<LockGuard<Any>> {
        crate::detach::resume(self, detached).await
    }

    /// Ends the client: waiting acquires fail with `Closed`, everything held is lost from now on and is released on the
    /// server, and so is what dropped futures left behind. Takes a few request timeouts at most.
    ///
    /// # Errors
    /// Whatever kept the server from being told; what is not released runs out with its lease.
    ///
    /// # Cancel safety
    /// Once polled, the client stays closed; releases that were not sent yet are left to the reaper and the leases.
    pub async fn close(&self) -> Result<()> {
        let inner = &self.0;
        inner.closed.store(true, Ordering::Release);
        let mut held = Vec::new();
        inner.registry.scan(|_, entry| held.push(entry.claim.clone()));
        for claim in &held {
            lose_quietly(claim);
        }
        let release = |claim: Arc<Claim>| {
            let answered = claim.is_answered();
            Release { claim, answered, only_waiting: false }
        };
        let limit = inner.settings.request_timeout;
        let answers = inner.backend.clone().release(held.into_iter().map(release).collect());
        let all = Box::pin(async { answers.await.into_iter().try_for_each(|answer| answer.map(|_| ())) });
        let let_go: Result<()> = bounded(all, limit).await;
        let reaper = inner.reaper.clone();
        let drained =
            answer(&mut (Box::pin(async move { reaper.drain().await }) as Request<()>), limit).await;
        let closed = bounded(inner.backend.clone().close(), limit).await;
        let_go.and(closed).map_err(|error| inner.at(error, "close", None))?;
        drained.ok_or_else(|| {
            let error = Error::new(
                ErrorKind::Indeterminate,
                "some claims could not be released; their leases run out",
            );
            inner.at(error, "close", None)
        })
    }
}

/// A loss that the program asked for is no news to log.
fn lose_quietly(claim: &Claim) {
    claim.tenure.lose(Loss::Closed);
    claim.bell().wake();
}

impl fmt::Debug for LockClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockClient")
            .field("backend", &self.0.backend)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// The error with where it happened.
    pub(crate) fn at(&self, error: Error, operation: &'static str, key: Option<&Key>) -> Error {
        error.at(operation, self.capabilities.backend, key)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Makes sure that the client is open and that its tasks run.
    pub(crate) fn ready(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::new(ErrorKind::Closed, "this client was closed"));
        }
        if self.tasks.load(Ordering::Acquire) { Ok(()) } else { self.start_tasks() }
    }

    #[cold]
    fn start_tasks(&self) -> Result<()> {
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Closed, "locks need a tokio runtime to run on").with_source(error)
        })?;
        if self.tasks.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let renewer = Renewer {
            backend: self.backend.clone(),
            clock: self.clock.clone(),
            allowance: self.allowance,
            registry: self.registry.clone(),
            request_timeout: self.settings.request_timeout,
            ended: self.ended.clone(),
        };
        let alive = Alive(self.tasks.clone());
        runtime.spawn(async move {
            let _alive = alive;
            renewer.run().await;
        });
        runtime.spawn(self.reaper.clone().run());
        // What the tasks of an ended runtime left due is looked at again.
        self.registry.revive(self.clock.now());
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.registry.nudge();
        self.reaper.nudge();
    }
}

/// Clears the flag when the task that owns it ends, or is dropped with its runtime.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
