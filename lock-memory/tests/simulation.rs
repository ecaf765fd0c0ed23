//! Whole clients of a server in memory, whose requests meet faults, who miss news and stand still, under the paused clock.
//!
//! A seed fixes all that happens: `SEED=… cargo test -p lock-memory --test simulation` plays it again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::Faulty;
use lock_conformance::history::{Act, Event, Summary};
use lock_conformance::simulation::{self, Play, Switch, World, seeds};
use lock_memory::{Faults, MemoryBackend, MemoryServer};
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimId, ClaimInfo, Conversion, Key, KeyPrefix, Lease,
    LockBackend, LockClient, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
};
use tokio::time::{Instant, sleep};

const CLIENTS: usize = 3;

/// How long requests meet faults.
const ROUGH: Duration = Duration::from_secs(20);

/// When they have stopped, everybody who waits is served within this time: each of those ahead may have to be waited for until its
/// lease is over.
const DRAINED: Duration = Duration::from_secs(120);

/// Longer than any lease of a claim that is asked for by a request which is late itself.
const OVER: Duration = Duration::from_secs(40);

/// What is late is later than that by no more.
const LATEST: Duration = Duration::from_secs(12);

/// One server, and who was ended there by others.
struct Memory {
    server: MemoryServer,
    start: Instant,
    ended: Mutex<HashMap<ClaimId, Duration>>,
    rough: AtomicBool,
}

impl World for Memory {
    fn is_rough(&self) -> bool {
        self.rough.load(Ordering::Relaxed)
    }

    fn ended(&self, id: ClaimId) -> Option<Duration> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }
}

/// A client of it, with a way to the server that can be cut, and an eye on whom its requests end.
struct Seen {
    inner: Arc<MemoryBackend>,
    world: Arc<Memory>,
    connected: Switch,
}

impl Seen {
    /// Waits until requests and answers get through. The server acts with the first poll after that.
    async fn through(&self) {
        self.connected.on().await;
    }

    fn note(&self, ended: impl IntoIterator<Item = ClaimId>) {
        let now = self.world.start.elapsed();
        let mut all = self.world.ended.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ended {
            all.entry(id).or_insert(now);
        }
    }

    /// Everybody on this key.
    async fn on(&self, key: &Key) -> Result<Vec<ClaimId>> {
        let Snapshot { holders, waiters, .. } = self.world.server.client().inspect(key.clone()).await?;
        Ok(holders.iter().chain(&waiters).map(|info| info.id).collect())
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

#[async_trait]
impl LockBackend for Seen {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.through().await;
        let before = if claim.take_over() { self.on(claim.key()).await? } else { Vec::new() };
        let attempt = self.inner.clone().acquire(claim.clone(), queue).await?;
        if claim.take_over() {
            let after = self.on(claim.key()).await?;
            self.note(before.into_iter().filter(|id| !after.contains(id)));
        }
        self.through().await;
        Ok(attempt)
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        self.through().await;
        let answers = self.inner.clone().renew(renewals).await;
        self.through().await;
        answers
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.through().await;
        let attempt = self.inner.clone().convert(conversion).await;
        self.through().await;
        attempt
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        self.through().await;
        let answers = self.inner.clone().release(releases).await;
        self.through().await;
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.through().await;
        let broken = self.inner.clone().break_claims(key, target).await?;
        self.note(broken.iter().map(|info| info.id));
        self.through().await;
        Ok(broken)
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.inner.clone().inspect(key).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.inner.clone().list(prefix, page).await
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.inner.clone().close().await
    }
}

/// One client of the play, and what can be done to it.
struct Player {
    client: LockClient,
    backend: Arc<Faulty>,
    news: Faults,
    connected: Switch,
    goes_on: Switch,
}

impl Player {
    fn new(world: &Arc<Memory>, random: &mut fastrand::Rng) -> Player {
        let (inner, news) = world.server.client_with_faults();
        let connected = Switch::default();
        let backend =
            Faulty::new(Arc::new(Seen { inner, world: world.clone(), connected: connected.clone() }));
        backend.by_chance(random.u64(..), 6, LATEST);
        // Some are so patient that they see answers to what was asked before they stood still.
        let patience = Duration::from_secs(if random.u8(..4) == 0 { 30 } else { 2 });
        let client = LockClient::builder(backend.clone())
            .request_timeout(patience)
            .waiter_ttl(Duration::from_secs(random.u64(2..6)))
            .build();
        Player { client, backend, news, connected, goes_on: Switch::default() }
    }

    /// Something happens to it, for a while.
    fn suffer(&self, random: &mut fastrand::Rng) {
        let while_so = Duration::from_millis(random.u64(100..10_000));
        let (fate, news) = (random.u8(..6), self.news.clone());
        let (connected, goes_on) = (self.connected.clone(), self.goes_on.clone());
        let turn = move |on: bool| match fate {
            0 => news.lose_news(on),
            1 => connected.turn(!on),
            2 => goes_on.turn(!on),
            3 => {
                goes_on.turn(!on);
                connected.turn(!on);
            }
            _ => {}
        };
        turn(true);
        tokio::spawn(async move {
            sleep(while_so).await;
            turn(false);
        });
    }
}

/// Plays one seed, and gives what happened; or what was wrong.
fn play(seed: u64) -> std::result::Result<(Summary, Vec<Event>), String> {
    simulation::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = Arc::new(Memory {
            server: MemoryServer::new(),
            start: Instant::now(),
            ended: Mutex::default(),
            rough: AtomicBool::new(true),
        });
        let mut play = Play::new(world.clone(), ROUGH);
        let players: Vec<Player> = (0..CLIENTS).map(|_| Player::new(&world, &mut random)).collect();
        for player in &players {
            play.joined_by(&player.client, &player.goes_on, &mut random);
        }
        while world.start.elapsed() < ROUGH {
            sleep(Duration::from_millis(random.u64(50..3000))).await;
            players[random.usize(..CLIENTS)].suffer(&mut random);
        }
        for player in &players {
            player.backend.by_chance(0, 0, LATEST);
        }
        world.rough.store(false, Ordering::Relaxed);
        play.served(DRAINED).await.map_err(|wrong| format!("{wrong}\n{}", play.history().to_json_lines()))?;
        let summary = play.judged()?;
        sleep(OVER).await;
        let left = world.server.client().list(KeyPrefix::default(), PageToken::default()).await;
        let left = left.map_err(|error| error.to_string())?.keys;
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}\n{}", play.history().to_json_lines()));
        }
        Ok((summary, play.history().events()))
    })
}

#[test]
fn nobody_is_inside_with_another_whatever_happens_on_the_way() {
    let mut seeds = seeds(0..10_000);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let seeds = Mutex::new(&mut seeds);
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
    let play_some = || {
        let mut grants = 0;
        while let Some(seed) = next() {
            match play(seed) {
                Ok((summary, _)) => grants += summary.grants,
                Err(wrong) => {
                    panic!("{wrong}\n  again: SEED={seed} cargo test -p lock-memory --test simulation")
                }
            }
        }
        grants
    };
    let grants: usize = thread::scope(|scope| {
        let all: Vec<_> = (0..workers).map(|_| scope.spawn(play_some)).collect();
        all.into_iter().map(|some| some.join().expect("see above")).sum()
    });
    println!("{grants} grants");
    assert!(grants > 0);
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..100 {
        let (first, again) =
            (without_the_date(play(seed).unwrap().1), without_the_date(play(seed).unwrap().1));
        let differs = first.iter().zip(&again).find(|(first, again)| first != again);
        assert!(first == again, "seed {seed}: {differs:?}");
    }
}

/// Tokens are as large as the wall clock was at the beginning.
fn without_the_date(mut events: Vec<Event>) -> Vec<Event> {
    let mut least = None;
    for event in &mut events {
        if let Act::Granted { token, floor, .. } = &mut event.act {
            let least = *least.get_or_insert(*floor);
            (*token, *floor) = (*token - least, *floor - least);
        }
    }
    events
}
