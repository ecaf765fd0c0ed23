//! The connection of one client to a [`SimLog`]: what becomes of what it appends, and when it reads.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::simulation::Switch;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::store::{Found, SimLog};
use crate::errors::Halt;
use crate::log::{Append, Appending, Batch, Bounds, Log, Reader};

/// The connection of one client.
#[derive(Clone)]
pub(super) struct SimClient {
    pub(super) log: Arc<SimLog>,
    random: Arc<Mutex<fastrand::Rng>>,
    /// Whether the process goes on.
    goes_on: Switch,
    /// When the last record that was sent in order is in the log.
    last: Arc<Mutex<Option<Instant>>>,
}

/// What happens to a record.
#[derive(Default)]
struct Fate {
    there: Duration,
    /// It reaches the log after this time as well.
    again: Option<Duration>,
    lost: bool,
    told: Told,
}

/// What its sender is told.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Appended,
    Doubtful,
    Nothing,
}

impl SimClient {
    pub(super) fn new(log: &Arc<SimLog>, random: fastrand::Rng, goes_on: Switch) -> SimClient {
        let (log, random) = (log.clone(), Arc::new(Mutex::new(random)));
        SimClient { log, random, goes_on, last: Arc::default() }
    }

    /// A connection of a process that never stands still.
    pub(super) fn steady(log: &Arc<SimLog>) -> SimClient {
        SimClient::new(log, fastrand::Rng::with_seed(0), Switch::default())
    }

    fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> Option<Fate> {
        let mut random = self.random();
        let millis = |random: &mut fastrand::Rng, most: u64| Duration::from_millis(random.u64(0..=most));
        if !self.log.is_chaos() {
            return Some(Fate { there: self.in_order(Duration::from_millis(1)), ..Fate::default() });
        }
        if self.log.is_gentle() {
            let there = self.in_order(millis(&mut random, 200));
            return Some(Fate { there, lost: random.u8(..30) == 0, ..Fate::default() });
        }
        let mut fate = Fate { there: self.in_order(millis(&mut random, 5)), ..Fate::default() };
        match random.u8(..100) {
            0..10 => fate.there = millis(&mut random, 1000),
            10..14 => fate.there = millis(&mut random, 15_000),
            14..17 => fate.lost = true,
            17..19 => return None,
            _ => {}
        }
        if random.u8(..100) < 8 {
            fate.again = Some(millis(&mut random, 25_000));
        }
        fate.told = match random.u8(..100) {
            0..6 => Told::Doubtful,
            6..12 => Told::Nothing,
            _ if fate.lost => Told::Doubtful,
            _ => Told::Appended,
        };
        Some(fate)
    }

    /// How long it takes if it does not overtake what was sent before.
    fn in_order(&self, there: Duration) -> Duration {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let at = last.map_or(now + there, |last| (now + there).max(last + Duration::from_millis(1)));
        *last = Some(at);
        at.duration_since(now)
    }
}

#[async_trait]
impl Log for SimClient {
    fn append(&self, _key: Option<&str>, bytes: Vec<u8>) -> Appending {
        let Some(fate) = self.fate() else {
            return Box::pin(std::future::ready(Err(Append::NotSent("the queue is full".into()))));
        };
        let (tell, told) = oneshot::channel();
        let (log, goes_on) = (self.log.clone(), self.goes_on.clone());
        tokio::spawn(async move {
            // A process that stands still sends nothing; what it has sent is under way.
            goes_on.on().await;
            if let Some(again) = fate.again {
                let (log, bytes) = (log.clone(), bytes.clone());
                tokio::spawn(async move {
                    sleep(fate.there + again).await;
                    log.append(&bytes);
                });
            }
            sleep(fate.there).await;
            if !fate.lost {
                log.append(&bytes);
            }
            let outcome = match fate.told {
                Told::Nothing => return,
                Told::Doubtful => Err(Append::Doubtful("the request timed out".into())),
                Told::Appended => Ok(()),
            };
            // Whoever appended may not care.
            drop(tell.send(outcome));
        });
        Box::pin(async move {
            match told.await {
                Ok(outcome) => outcome,
                Err(_) => std::future::pending().await,
            }
        })
    }

    async fn bounds(&self) -> Result<Bounds, String> {
        sleep(Duration::from_millis(1)).await;
        let fails = self.log.is_chaos() && self.random().u8(..4) == 0;
        if fails { Err("no leader".into()) } else { Ok(self.log.bounds()) }
    }

    fn reader(&self, offset: u64) -> Box<dyn Reader> {
        let (end, random) = (self.log.end.subscribe(), self.random().fork());
        Box::new(SimReader { client: self.clone(), end, random, offset, leader: None, at: None })
    }

    fn forget(&self, offset: u64) {
        self.log.delete(offset);
    }
}

impl fmt::Debug for SimClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimClient")
    }
}

/// A place in the log.
struct SimReader {
    client: SimClient,
    end: watch::Receiver<u64>,
    random: fastrand::Rng,
    offset: u64,
    /// Under which leader the last record was appended that was read.
    leader: Option<u64>,
    /// When the next records are here. Held, so that dropping the future loses nothing.
    at: Option<Instant>,
}

#[async_trait]
impl Reader for SimReader {
    async fn next(&mut self) -> Result<Batch, Halt> {
        loop {
            if self.at.is_none() {
                let offset = self.offset;
                // More, or less: both are news. The log outlives its readers.
                drop(self.end.wait_for(|&end| end != offset).await);
                let late = match self.random.u8(..12) {
                    _ if !self.client.log.is_chaos() => 1,
                    0 if self.client.log.is_gentle() => self.random.u64(..200),
                    0 => self.random.u64(..3000),
                    _ => self.random.u64(..5),
                };
                self.at = Some(Instant::now() + Duration::from_millis(late));
            }
            if let Some(at) = self.at {
                sleep_until(at).await;
            }
            self.client.goes_on.on().await;
            self.at = None;
            let most = self.random.usize(1..40);
            match self.client.log.read(self.offset, self.leader, most) {
                Found::Missing => return Err(Halt::Missing),
                Found::Truncated => return Err(Halt::Truncated),
                Found::Records { next, .. } if next == self.offset => {}
                Found::Records { entries, next, leader } => {
                    (self.offset, self.leader) = (next, Some(leader));
                    return Ok(Batch { entries, next, end: self.client.log.bounds().end });
                }
            }
        }
    }
}

impl fmt::Debug for SimReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReader").field("offset", &self.offset).finish_non_exhaustive()
    }
}
