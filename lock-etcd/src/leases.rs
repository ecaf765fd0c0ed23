//! Leases: shared ones for what the client renews anyway, and own ones for everything else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Claim, ErrorKind, FORGET_AFTER};

use crate::clock::Moment;
use crate::errors::Trouble;
use crate::link::Link;
use crate::txn::{Txn, put};

/// A lease on the server, and what this client knows of it.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    pub(crate) ttl: Duration,
    pub(crate) shared: bool,
    /// When the last request that set it, and was answered, was sent.
    sent: AtomicU64,
    gone: AtomicBool,
    keeping: tokio::sync::Mutex<()>,
}

impl Lease {
    fn new(id: i64, ttl: Duration, shared: bool, sent: Moment) -> Lease {
        Lease {
            id,
            ttl,
            shared,
            sent: AtomicU64::new(sent.as_nanos()),
            gone: AtomicBool::new(false),
            keeping: tokio::sync::Mutex::new(()),
        }
    }

    fn sent(&self) -> Moment {
        Moment::from_nanos(self.sent.load(Ordering::Acquire))
    }

    /// What is surely left of it at `now`: two clocks may differ in speed by one per cent.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        let elapsed = now.since(self.sent());
        self.ttl.saturating_sub(elapsed + elapsed / 100)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Sets the lease anew, unless that was done at most `recently` ago; `false` when it is not there any more. Many who
    /// ask at once send one request.
    pub(crate) async fn keep(&self, link: &Link, recently: Duration) -> Result<bool, Trouble> {
        let _one_at_a_time = self.keeping.lock().await;
        let sent = Moment::now();
        if self.is_gone() {
            return Ok(false);
        }
        if sent.since(self.sent()) <= recently {
            return Ok(true);
        }
        if link.keep_alive(self.id).await? {
            self.sent.fetch_max(sent.as_nanos(), Ordering::AcqRel);
            Ok(true)
        } else {
            self.gone.store(true, Ordering::Release);
            Ok(false)
        }
    }
}

/// All leases of one client.
///
/// A claim that the client renews to its whole ttl until it lets go (see [`Claim::kept`]) lies on one lease with all others
/// of that length, so that ten thousand of them cost one keepalive. Such a lease is never revoked, and a claim on it that is
/// renewed no more is taken out by the keeper. Every other claim has a lease of its own.
pub(crate) struct Leases {
    link: Arc<Link>,
    min_ttl: Duration,
    /// The beginning of the names that end with the shared leases.
    news: String,
    shared: Mutex<HashMap<i64, Arc<Lease>>>,
    /// One grant of a shared lease at a time.
    granting: tokio::sync::Mutex<()>,
    /// What outlives its claims lies on this one.
    memory: tokio::sync::Mutex<Option<Arc<Lease>>>,
}

impl Leases {
    pub(crate) fn new(link: Arc<Link>, min_ttl: Duration, news: String) -> Leases {
        Leases {
            link,
            min_ttl,
            news,
            shared: Mutex::default(),
            granting: tokio::sync::Mutex::new(()),
            memory: tokio::sync::Mutex::new(None),
        }
    }

    /// A lease in whole seconds, rounded up, not below the shortest that the server gives.
    pub(crate) fn seconds(&self, ttl: Duration) -> i64 {
        let ttl = ttl.max(self.min_ttl);
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        i64::try_from(seconds).unwrap_or(i64::MAX)
    }

    /// A lease for the claim, of this length.
    pub(crate) async fn for_claim(&self, claim: &Claim, ttl: Duration) -> Result<Arc<Lease>, Trouble> {
        if claim.kept() { self.shared(self.seconds(ttl)).await } else { self.own(ttl).await }
    }

    /// A lease that nobody else uses.
    pub(crate) async fn own(&self, ttl: Duration) -> Result<Arc<Lease>, Trouble> {
        Ok(self.grant(self.seconds(ttl), false).await?.0)
    }

    /// The lease that all claims of this length share, with at least two thirds of it left.
    pub(crate) async fn shared(&self, seconds: i64) -> Result<Arc<Lease>, Trouble> {
        loop {
            let known = self.map().get(&seconds).cloned();
            if let Some(lease) = known.filter(|lease| !lease.is_gone()) {
                if lease.left(Moment::now()) * 3 >= lease.ttl * 2
                    || lease.keep(&self.link, lease.ttl / 4).await?
                {
                    return Ok(lease);
                }
                continue;
            }
            let _one_at_a_time = self.granting.lock().await;
            if self.map().get(&seconds).is_some_and(|lease| !lease.is_gone()) {
                continue;
            }
            let (lease, answered) = self.grant(seconds, true).await?;
            if answered {
                self.announce(&lease).await;
            }
            self.map().insert(seconds, lease.clone());
            return Ok(lease);
        }
    }

    /// Puts a name on the lease whose deletion is news: if the lease is ended from outside, its claims hear of it at once, and not
    /// with their next renewal.
    async fn announce(&self, lease: &Lease) {
        let name = format!("{}/{}", self.news, lease.id);
        if let Err(trouble) = self.link.txn(Txn::new().and_then([put(name, "", lease.id)])).await {
            tracing::debug!(?trouble, "the end of a lease will be noticed by renewals only");
        }
    }

    /// The shared lease whose name was deleted, if it is not there any more: somebody may have deleted the name alone.
    pub(crate) async fn ended(&self, name: &[u8]) -> Option<Arc<Lease>> {
        let id: i64 =
            std::str::from_utf8(name).ok()?.strip_prefix(&self.news)?.strip_prefix('/')?.parse().ok()?;
        let lease = self.all_shared().into_iter().find(|lease| lease.id == id)?;
        let is_gone = matches!(lease.keep(&self.link, Duration::ZERO).await, Ok(false));
        is_gone.then_some(lease)
    }

    /// The lease of what is remembered for [`FORGET_AFTER`]: used for a quarter of that, then there is a new one.
    pub(crate) async fn memory(&self) -> Result<i64, Trouble> {
        let mut memory = self.memory.lock().await;
        if let Some(lease) = &*memory
            && !lease.is_gone()
            && lease.left(Moment::now()) >= FORGET_AFTER
        {
            return Ok(lease.id);
        }
        let (lease, _) = self.grant(self.seconds(FORGET_AFTER + FORGET_AFTER / 4), true).await?;
        let id = lease.id;
        *memory = Some(lease);
        Ok(id)
    }

    /// A lease that was named in a request is not there: whoever asks next gets another one.
    pub(crate) async fn forget_missing(&self) {
        *self.memory.lock().await = None;
        // Which one it was is not said; each is asked for before it is used again.
        for lease in self.map().values() {
            lease.sent.store(0, Ordering::Release);
        }
    }

    /// Ends an own lease on which surely nothing lies any more. A request that fails costs a lease that runs out by itself.
    pub(crate) async fn give_back(&self, lease: &Lease) {
        if !lease.shared && self.link.revoke(lease.id).await.is_err() {
            tracing::debug!(lease = lease.id, "a lease without keys is left to run out");
        }
    }

    /// The shared leases.
    pub(crate) fn all_shared(&self) -> Vec<Arc<Lease>> {
        self.map().values().cloned().collect()
    }

    /// A new lease, and whether that was answered.
    async fn grant(&self, seconds: i64, shared: bool) -> Result<(Arc<Lease>, bool), Trouble> {
        let (id, sent) = (new_id(), Moment::now());
        let (ttl, answered) = match self.link.grant(id, seconds).await {
            // Whether it is there shows when something is put on it; and if it is, it began after this was sent.
            Err(trouble) if trouble.kind == ErrorKind::Indeterminate => {
                (Duration::from_secs(seconds.unsigned_abs()), false)
            }
            granted => (granted?, true),
        };
        Ok((Arc::new(Lease::new(id, ttl, shared, sent)), answered))
    }

    fn map(&self) -> MutexGuard<'_, HashMap<i64, Arc<Lease>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a new lease, which nobody else has: 63 random bits.
pub(crate) fn new_id() -> i64 {
    fastrand::i64(1..i64::MAX)
}
