//! Whole clients in a world that is simulated: wait loops, renewals and reapers do random work under tokio's paused clock while their
//! requests meet faults, and what they believed must be explained.
//!
//! A backend says what its world is like ([`World`]) and what happens in it; the work, and what must be true of it, is the
//! same for all.
//!
//! | variable | effect |
//! |---|---|
//! | `SEED=…` | plays this seed only, as a failure prints it |
//! | `SEEDS=start..end` | plays these |

mod judge;
mod switch;
mod worker;

use std::collections::HashMap;
use std::env;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::{ClaimId, FenceGate, LockClient};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use self::switch::Switch;
use self::worker::Worker;
use crate::history::{Recorder, Summary};

const KEYS: [&str; 2] = ["a", "b"];
const OWNERS: [&str; 2] = ["ann", "bob"];

/// How many tasks of a client lock at once.
const WORKERS: usize = 3;

/// Where clients are played.
pub trait World: Send + Sync + 'static {
    /// Whether requests meet faults at this moment. The clients work as long as they do.
    fn is_rough(&self) -> bool;

    /// When a break or a take-over ended this claim, from the beginning of the play on. No renewal that is asked for later may
    /// succeed.
    fn ended(&self, id: ClaimId) -> Option<Duration>;

    /// From when on it does not count that the holder of this claim believes in it, because it was ended on purpose: S15 does not
    /// promise that it knows.
    fn forgiven(&self, id: ClaimId) -> Option<Duration> {
        self.ended(id)
    }
}

/// The clients of one play, and what they take down.
pub struct Play<W> {
    stage: Arc<Stage<W>>,
    workers: JoinSet<Result<(), String>>,
    clients: usize,
}

/// What all workers share.
struct Stage<W> {
    world: Arc<W>,
    start: Instant,
    lasts: Duration,
    gates: [FenceGate; KEYS.len()],
    history: Recorder,
    /// Who took part in which attempt.
    claims: Mutex<HashMap<u64, ClaimId>>,
}

impl<W: World> Play<W> {
    /// A play that begins now, and whose clients work until it has lasted so long and nothing is rough any more.
    #[must_use]
    pub fn new(world: Arc<W>, lasts: Duration) -> Play<W> {
        let (gates, history, claims) =
            (<[FenceGate; KEYS.len()]>::default(), Recorder::new(), Mutex::default());
        let stage = Stage { world, start: Instant::now(), lasts, gates, history, claims };
        Play { stage: Arc::new(stage), workers: JoinSet::new(), clients: 0 }
    }

    /// Lets some tasks lock through this client. They do nothing while it is switched off, like a process that is stopped.
    pub fn joined_by(&mut self, client: &LockClient, goes_on: &Switch, random: &mut fastrand::Rng) {
        for worker in 0..WORKERS {
            let worker = Worker {
                stage: self.stage.clone(),
                owner: OWNERS[(self.clients + worker) % OWNERS.len()],
                client: client.clone(),
                goes_on: goes_on.clone(),
                random: random.fork(),
            };
            self.workers.spawn(worker.work());
        }
        self.clients += 1;
    }

    /// Waits until everybody who works has been served and has let go.
    ///
    /// # Errors
    /// What went wrong: an error that no fault explains, or that somebody waits for longer than `within`.
    pub async fn served(&mut self, within: Duration) -> Result<(), String> {
        let all = timeout(within, async {
            while let Some(worked) = self.workers.join_next().await {
                worked.map_err(|error| error.to_string())??;
            }
            Ok(())
        });
        all.await.unwrap_or_else(|_| Err("somebody waits for ever".into()))
    }

    /// Whether what was believed can be explained.
    ///
    /// # Errors
    /// What cannot, with all that happened.
    pub fn judged(&self) -> Result<Summary, String> {
        self.stage.judged()
    }

    /// All that happened.
    #[must_use]
    pub fn history(&self) -> &Recorder {
        &self.stage.history
    }
}

/// Lets all that is random on this thread follow from a seed: what the clients do, and the ids of their claims.
pub fn seed(seed: u64) {
    fastrand::seed(seed);
    ClaimId::seed(seed);
}

/// Which seeds are played: these, unless the environment says otherwise.
///
/// # Panics
/// When `SEED` is no number, or `SEEDS` is no range of numbers.
#[must_use]
pub fn seeds(usual: Range<u64>) -> Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().expect("SEED and SEEDS are numbers");
    if let Ok(seed) = env::var("SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    let Ok(seeds) = env::var("SEEDS") else { return usual };
    let (start, end) = seeds.split_once("..").expect("SEEDS is start..end");
    number(start)..number(end)
}
