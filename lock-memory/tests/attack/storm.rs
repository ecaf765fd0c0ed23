//! A network that delays, loses and repeats requests, answers and news, and users who do everything at random. Whatever
//! happens, nobody is inside with somebody who conflicts.

use std::fmt;
use std::future::{Future, pending};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{
    Any, Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LockBackend, LockClient, LockGuard, News, Page, PageToken, Queue, Release, Released, Renew,
    Renewal, Result, Snapshot,
};
use tokio::time::{sleep, timeout};

use crate::{millis, secs};

/// Numbers that look random, from a seed that a failure names.
#[derive(Debug)]
struct Dice {
    state: AtomicU64,
    /// Whether locks are broken and taken over, or else detached and resumed. Not both: news of the former do not reach who
    /// did the latter, and until its next renewal two are inside by force.
    force: bool,
}

impl Dice {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % n
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Stormy {
    memory: Arc<MemoryBackend>,
    dice: Arc<Dice>,
}

impl fmt::Debug for Stormy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stormy")
    }
}

impl Stormy {
    /// One request on its way there and back, perhaps with a copy of it that comes later. What was answered has no copy if
    /// it is asked `once`.
    async fn travel<T, F>(&self, once: bool, request: impl Fn() -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let dice = &self.dice;
        if dice.one_in(20) {
            return Err(Error::new(ErrorKind::Unavailable, "a storm"));
        }
        if dice.one_in(10) {
            let (copy, late) = (request(), millis(dice.below(60_000)));
            tokio::spawn(async move {
                sleep(late).await;
                copy.await;
            });
            if once {
                return Err(Error::new(ErrorKind::Indeterminate, "a storm"));
            }
        }
        self.hop().await?;
        let answer = request().await;
        self.hop().await?;
        Ok(answer)
    }

    async fn hop(&self) -> Result<()> {
        match self.dice.below(40) {
            0 => Err(Error::new(ErrorKind::Indeterminate, "a storm")),
            1 => pending().await,
            2..6 => {
                sleep(millis(self.dice.below(2500))).await;
                Ok(())
            }
            _ => {
                sleep(Duration::from_micros(self.dice.below(3000))).await;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl LockBackend for Stormy {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        let attempt = self.travel(true, || self.memory.clone().acquire(claim.clone(), queue)).await??;
        if let Attempt::Granted(lease) = attempt
            && self.dice.one_in(4)
        {
            let late = millis(self.dice.below(20_000));
            tokio::spawn(async move {
                sleep(late).await;
                claim.ring(News::Granted(lease.fence));
            });
        }
        Ok(attempt)
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let mut answers = Vec::new();
        for renewal in renewals {
            let one = || self.memory.clone().renew(vec![renewal.clone()]);
            answers.push(self.travel(false, one).await.and_then(|mut answers| answers.remove(0)));
        }
        answers
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.travel(false, || self.memory.clone().convert(conversion.clone())).await?
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let mut answers = Vec::new();
        for release in releases {
            let one = || self.memory.clone().release(vec![release.clone()]);
            answers.push(self.travel(false, one).await.and_then(|mut answers| answers.remove(0)));
        }
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.travel(false, || self.memory.clone().break_claims(key.clone(), target.clone())).await?
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.travel(false, || self.memory.clone().inspect(key.clone())).await?
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.memory.clone().list(prefix, page).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        Ok(())
    }
}

/// The guard of each user, where all can see it.
type Inside = Arc<Vec<Mutex<Option<LockGuard<Any>>>>>;

fn check(inside: &Inside) {
    let held: Vec<_> = inside
        .iter()
        .filter_map(|place| {
            let place = place.lock().unwrap();
            place.as_ref().filter(|guard| guard.is_held()).map(|guard| (guard.mode(), guard.token()))
        })
        .collect();
    let conflict = held.len() > 1 && held.iter().any(|(mode, _)| mode.is_exclusive());
    assert!(!conflict, "two are inside: {held:?}");
}

async fn acquired(locks: &LockClient, dice: &Dice) -> Option<LockGuard<Any>> {
    let lock = locks.lock("k").unwrap();
    let renew = if dice.one_in(3) { Renew::Manual } else { Renew::Automatic };
    let (ttl, wait) = (millis(500 + dice.below(8_000)), millis(dice.below(30_000)));
    let patience = millis(1 + dice.below(60_000));
    let exclusive = lock.exclusive().ttl(ttl).wait(wait).renew(renew);
    let shared = lock.shared().ttl(ttl).wait(wait).renew(renew);
    let exclusive =
        if dice.force && dice.one_in(5) { exclusive.owner("same").take_over() } else { exclusive };
    let outcome = if dice.one_in(2) {
        timeout(patience, exclusive.acquire()).await.ok()?.map(LockGuard::into_any)
    } else {
        timeout(patience, shared.acquire()).await.ok()?.map(LockGuard::into_any)
    };
    outcome.ok()
}

/// What a holder does next: the guard that it has then.
async fn used(locks: &LockClient, dice: &Dice, mut guard: LockGuard<Any>) -> Option<LockGuard<Any>> {
    match dice.below(9) {
        0 => drop(guard.release().await),
        1 => drop(guard),
        2 => {
            let _ = guard.renew_for(millis(300 + dice.below(9_000))).await;
            return Some(guard);
        }
        3 | 4 => {
            let converted = guard.upgrade_within(millis(dice.below(8_000))).await;
            return Some(converted.map_or_else(lockcore::ConvertError::into_guard, LockGuard::into_any));
        }
        5 | 6 => {
            let converted = guard.downgrade().await;
            return Some(converted.map_or_else(lockcore::ConvertError::into_guard, LockGuard::into_any));
        }
        7 if !dice.force => {
            let detached = guard.detach().ok()?;
            sleep(millis(dice.below(1000))).await;
            return locks.resume(&detached).await.ok();
        }
        _ => return Some(guard),
    }
    None
}

async fn user(locks: LockClient, dice: Arc<Dice>, inside: Inside, own: usize) {
    for _ in 0..60 {
        let mut guard = acquired(&locks, &dice).await;
        while let Some(held) = guard {
            *inside[own].lock().unwrap() = Some(held);
            for _ in 0..dice.below(20) {
                check(&inside);
                sleep(millis(dice.below(400))).await;
            }
            check(&inside);
            let held = inside[own].lock().unwrap().take();
            guard = match held {
                Some(held) => used(&locks, &dice, held).await,
                None => None,
            };
        }
        if dice.force && dice.one_in(20) {
            let _ = locks.lock("k").unwrap().break_claims(BreakTarget::All).await;
        }
    }
}

async fn storm(seed: u64) {
    let dice = Arc::new(Dice { state: AtomicU64::new(seed), force: seed.is_multiple_of(2) });
    let server = MemoryServer::new();
    let inside: Inside = Arc::new((0..5).map(|_| Mutex::new(None)).collect());
    let mut users = tokio::task::JoinSet::new();
    for own in 0..inside.len() {
        let backend = Stormy { memory: server.client(), dice: dice.clone() };
        let locks = LockClient::builder(Arc::new(backend)).waiter_ttl(secs(3)).build();
        users.spawn(user(locks, dice.clone(), inside.clone(), own));
    }
    users.join_all().await;
    // Whatever was dropped is let go of, or has run out.
    sleep(secs(60)).await;
    let left = LockClient::new(server.client()).lock("k").unwrap().inspect().await.unwrap();
    assert!(left.is_free(), "{left:?}");
}

#[test]
fn nobody_is_inside_with_somebody_who_conflicts() {
    let storms = std::env::var("STORMS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    for seed in 0..storms {
        println!("seed {seed}");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(storm(seed));
    }
}
