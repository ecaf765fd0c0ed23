//! Faults on demand, for tests of code that locks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{ClaimId, Error, ErrorKind, Result};
use tokio::sync::watch;

use crate::server::Inner;

/// Makes the requests of one client fail, get lost or hang.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> lockcore::Result<()> {
/// use lock_memory::MemoryServer;
/// use lockcore::LockClient;
///
/// let (backend, faults) = MemoryServer::new().client_with_faults();
/// let locks = LockClient::new(backend);
/// let guard = locks.lock("k")?.exclusive().acquire().await?;
/// faults.partition(true);
/// guard.lost().await;
/// assert!(!guard.is_held(), "no renewal was answered before the deadline");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    server: Arc<Inner>,
    plan: Mutex<Plan>,
    partitioned: watch::Sender<bool>,
}

#[derive(Default)]
struct Plan {
    fail: usize,
    lose_replies: usize,
    delay: Duration,
    news_lost: bool,
    /// This client's claims that may be told news.
    claims: HashSet<ClaimId>,
}

impl Faults {
    pub(crate) fn new(server: Arc<Inner>) -> Faults {
        let plan = Mutex::default();
        Faults(Arc::new(Shared { server, plan, partitioned: watch::Sender::new(false) }))
    }

    /// The next `requests` requests fail with `Unavailable`; the server does not see them.
    pub fn fail_next(&self, requests: usize) {
        self.plan().fail = requests;
    }

    /// The next `requests` requests are carried out, but their answers are lost: `Indeterminate`.
    pub fn lose_replies(&self, requests: usize) {
        self.plan().lose_replies = requests;
    }

    /// Every request reaches the server this much later.
    pub fn delay(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    /// Cuts the client off: its requests hang, and no news reach it, until it is told otherwise.
    pub fn partition(&self, partitioned: bool) {
        self.0.partitioned.send_replace(partitioned);
        self.mute();
    }

    /// Lets no news reach the client until it is told otherwise, and none of what it missed then; its requests are answered.
    pub fn lose_news(&self, lost: bool) {
        self.plan().news_lost = lost;
        self.mute();
    }

    fn mute(&self) {
        let plan = self.plan();
        let claims: Vec<ClaimId> = plan.claims.iter().copied().collect();
        self.0.server.mute(&claims, self.is_deaf(&plan));
    }

    fn is_deaf(&self, plan: &Plan) -> bool {
        plan.news_lost || *self.0.partitioned.borrow()
    }

    /// What happens to a request before it reaches the server.
    pub(crate) async fn before(&self) -> Result<()> {
        let delay = self.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut partitioned = self.0.partitioned.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = partitioned.wait_for(|partitioned| !partitioned).await;
        let mut plan = self.plan();
        if plan.fail > 0 {
            plan.fail -= 1;
            return Err(Error::new(ErrorKind::Unavailable, "a fault that the test asked for"));
        }
        Ok(())
    }

    /// What happens to its answer.
    pub(crate) fn after(&self) -> Result<()> {
        let mut plan = self.plan();
        if plan.lose_replies > 0 {
            plan.lose_replies -= 1;
            return Err(Error::new(ErrorKind::Indeterminate, "the answer was lost, as the test asked"));
        }
        Ok(())
    }

    pub(crate) fn claimed(&self, id: ClaimId) {
        let mut plan = self.plan();
        plan.claims.insert(id);
        if self.is_deaf(&plan) {
            self.0.server.mute(&[id], true);
        }
    }

    pub(crate) fn released(&self, id: ClaimId) {
        self.plan().claims.remove(&id);
        self.0.server.mute(&[id], false);
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("partitioned", &*self.0.partitioned.borrow()).finish_non_exhaustive()
    }
}

/// Claims that no news reach.
#[derive(Default)]
pub(crate) struct Muted(Mutex<HashSet<ClaimId>>);

impl Muted {
    /// Mutes or unmutes these claims, and answers whether any claim is muted now.
    pub(crate) fn set(&self, ids: &[ClaimId], muted: bool) -> bool {
        let mut all = self.lock();
        for id in ids {
            if muted {
                all.insert(*id);
            } else {
                all.remove(id);
            }
        }
        !all.is_empty()
    }

    pub(crate) fn contains(&self, id: ClaimId) -> bool {
        self.lock().contains(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ClaimId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
