//! Clients that acquire and release all the time, and what they believed, checked afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lock_conformance::history::{Act, Options, Recorder, Track, check};
use lockcore::{Any, LockClient, LockGuard, Mode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// The lease of what the load holds.
pub(crate) const TTL: Duration = Duration::from_secs(4);

const KEYS: [&str; 3] = ["a", "b", "c"];
const WAIT: Duration = Duration::from_secs(10);

/// Whoever was granted so many is served: only the first of them may have been asked for long before.
const MANY: u64 = 10;

/// How often a holder looks whether it is one.
const LOOK: Duration = Duration::from_millis(50);

/// Some clients at work.
pub(crate) struct Load {
    history: Recorder,
    over: Arc<AtomicBool>,
    players: Vec<(Arc<AtomicU64>, LockClient, JoinHandle<()>)>,
}

impl Load {
    pub(crate) fn start(clients: Vec<LockClient>) -> Load {
        let mut load = Load { history: Recorder::new(), over: Arc::default(), players: Vec::new() };
        for client in clients {
            load.join(client);
        }
        load
    }

    /// One more of them.
    pub(crate) fn join(&mut self, client: LockClient) {
        let grants: Arc<AtomicU64> = Arc::default();
        let player = Player {
            locks: client.clone(),
            history: self.history.clone(),
            over: self.over.clone(),
            grants: grants.clone(),
        };
        self.players.push((grants, client, tokio::spawn(player.play())));
    }

    /// An exclusive attempt of somebody else, in the same history.
    pub(crate) fn asks(&self, key: &'static str) -> Track {
        self.history.asks(key, Mode::Exclusive)
    }

    /// Waits until each of them was granted what it asked for after this, and more.
    pub(crate) async fn all_are_served(&self, within: Duration) {
        let start = Instant::now();
        let now = |grants: &AtomicU64| grants.load(Ordering::Relaxed);
        let before: Vec<u64> = self.players.iter().map(|(grants, ..)| now(grants)).collect();
        for (who, ((grants, _, task), before)) in self.players.iter().zip(before).enumerate() {
            while now(grants) < before + MANY {
                assert!(!task.is_finished(), "client {who} gave up");
                assert!(start.elapsed() <= within, "client {who} was not served within {within:?}");
                sleep(LOOK).await;
            }
        }
        println!("all served after {:?}", start.elapsed());
    }

    /// Ends it: the history must be explained, and nothing may be left.
    pub(crate) async fn end(self, at_least: usize) {
        self.over.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for (_, client, task) in self.players {
            task.await.unwrap();
            clients.push(client);
        }
        let options = Options { complete: true, ..Options::default() };
        let summary = check(&self.history.events(), options).unwrap();
        println!("{summary:?}");
        assert!(summary.grants >= at_least, "only {} grants", summary.grants);
        // A release that was not answered is finished in the background, or the lease ends it.
        for (client, key) in clients.iter().flat_map(|client| KEYS.map(|key| (client, key))) {
            let lock = client.lock(key).unwrap();
            let free = async {
                while !lock.inspect().await.unwrap().is_free() {
                    sleep(LOOK).await;
                }
            };
            timeout(3 * TTL, free).await.unwrap_or_else(|_| panic!("{key} is not left"));
        }
    }
}

struct Player {
    locks: LockClient,
    history: Recorder,
    over: Arc<AtomicBool>,
    grants: Arc<AtomicU64>,
}

impl Player {
    async fn play(self) {
        while !self.over.load(Ordering::Relaxed) {
            let lock = self.locks.lock(KEYS[fastrand::usize(..KEYS.len())]).unwrap();
            let is_exclusive = fastrand::u8(..3) > 0;
            let mode = if is_exclusive { Mode::Exclusive } else { Mode::Shared };
            let track = self.history.asks(lock.key().as_str(), mode);
            let guard = if is_exclusive {
                lock.exclusive().ttl(TTL).wait(WAIT).acquire().await.map(LockGuard::into_any)
            } else {
                lock.shared().ttl(TTL).wait(WAIT).acquire().await.map(LockGuard::into_any)
            };
            match guard {
                Ok(guard) => {
                    self.grants.fetch_add(1, Ordering::Relaxed);
                    stay_inside(guard, &track).await;
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    track.note(Act::GaveUp);
                }
            }
        }
    }
}

/// Mostly a short time; now and then so long that a fault meets it and its lease is renewed.
async fn stay_inside(guard: LockGuard<Any>, track: &Track) {
    track.granted(&guard);
    let is_long = fastrand::u8(..100) == 0;
    let until = Instant::now() + if is_long { TTL / 2 } else { Duration::from_millis(fastrand::u64(..10)) };
    while track.believes(&guard) && Instant::now() < until {
        sleep(LOOK.min(until - Instant::now())).await;
    }
    // Whoever does not hear what became of it has done what it can.
    let _unanswered = track.release(guard).await;
}
