//! Lets workers contend for a while, and sums up what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use hdrhistogram::Histogram;
use lockcore::Mode;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::clock::{cpu_nanos, float, nanos, seconds};
use crate::history::{Event, violations};
use crate::worker::{Contender, Detail, Spot, Tally, Worker, histogram};
use crate::{Failure, Result};

/// After the end of a window everybody who waits is served within this time, or is stuck.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// What the workers of a window do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) window: Duration,
    pub(crate) hold: Duration,
    /// How many of 100 turns are shared.
    pub(crate) shared: u8,
    pub(crate) detail: Detail,
}

/// What one window gave.
pub(crate) struct Round {
    pub(crate) workers: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) grants: u64,
    pub(crate) to_itself: u64,
    pub(crate) fewest: u64,
    pub(crate) most: u64,
    pub(crate) starved: u64,
    pub(crate) violations: u64,
    pub(crate) failures: u64,
    pub(crate) stuck: u64,
    pub(crate) longest_wait: u64,
    /// From the end of the window until the last worker had had its turn.
    pub(crate) drained_ms: f64,
    pub(crate) acquire: Histogram<u64>,
    pub(crate) cycle: Histogram<u64>,
    pub(crate) hand_over: Histogram<u64>,
    /// What a server says of it.
    pub(crate) server: Option<crate::server::Counted>,
}

impl Round {
    pub(crate) fn per_second(&self) -> f64 {
        float(self.grants) / self.seconds
    }

    pub(crate) fn hand_overs_per_second(&self) -> f64 {
        float(self.grants - self.to_itself) / self.seconds
    }

    pub(crate) fn self_share(&self) -> f64 {
        float(self.to_itself) / float(self.grants.max(1))
    }

    /// The longest wait as a multiple of what each waits when all take turns.
    pub(crate) fn longest_of_fair(&self) -> f64 {
        let fair = self.seconds * float(self.workers) / float(self.grants.max(1));
        float(self.longest_wait) / 1e9 / fair
    }
}

/// Runs one window: a worker for each contender and its key.
///
/// # Errors
/// When a contender fails; what breaks a rule of locks is counted instead.
pub(crate) fn run<C: Contender>(
    runtime: &Runtime,
    contenders: Vec<(C, Arc<Spot>)>,
    plan: &Plan,
) -> Result<Round> {
    let count = contenders.len();
    let stop = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(count + 1));
    let (plan, flag) = (*plan, stop.clone());
    let (go, going) = mpsc::channel();
    // A thread, and told to begin by whoever is last at the barrier: a runtime of one thread may have no turn for
    // anybody else while a worker does not yield.
    let timer = std::thread::spawn(move || {
        let _begun = going.recv();
        let (began, cpu) = (nanos(), cpu_nanos());
        std::thread::sleep(plan.window);
        flag.store(true, Ordering::Relaxed);
        let ended = nanos();
        (ended, seconds(began, ended), seconds(cpu, cpu_nanos()))
    });
    runtime.block_on(async {
        let mut workers = Vec::with_capacity(count);
        for (index, (contender, spot)) in (0..).zip(contenders) {
            let key = Arc::as_ptr(&spot) as usize;
            let worker = Worker::new(index, spot, stop.clone(), plan.detail, plan.hold);
            let gate = Gate { start: start.clone(), go: go.clone() };
            workers.push((key, tokio::spawn(work(contender, worker, plan.shared, gate))));
        }
        Gate { start, go }.pass().await;
        let mut sum = Sum::default();
        for (key, mut task) in workers {
            if let Ok(finished) = timeout(plan.window + DRAINED_WITHIN, &mut task).await {
                let (tally, failure) = finished?;
                sum.add(key, tally, failure);
            } else {
                task.abort();
                sum.stuck += 1;
            }
        }
        let ended = nanos();
        let (stopped, window, cpu_seconds) = timer.join().map_err(|_| "the timer's thread panicked")?;
        Ok(sum.round(window, cpu_seconds, seconds(stopped, ended) * 1e3))
    })
}

/// Where the workers of a window wait for each other.
struct Gate {
    start: Arc<Barrier>,
    go: mpsc::Sender<()>,
}

impl Gate {
    async fn pass(self) {
        if self.start.wait().await.is_leader() {
            // The timer's thread waits for this.
            let _told = self.go.send(());
        }
    }
}

async fn work<C: Contender>(
    mut contender: C,
    mut worker: Worker,
    shared: u8,
    gate: Gate,
) -> (Tally, Option<Failure>) {
    let mut random = fastrand::Rng::new();
    gate.pass().await;
    while !worker.is_over() {
        let mode = match shared {
            0 => Mode::Exclusive,
            100.. => Mode::Shared,
            some if random.u8(0..100) < some => Mode::Shared,
            _ => Mode::Exclusive,
        };
        if let Err(failure) = contender.turn(mode, &mut worker).await {
            return (worker.tally, Some(failure));
        }
    }
    (worker.tally, None)
}

struct Sum {
    workers: u64,
    grants: Vec<u64>,
    to_itself: u64,
    violations: u64,
    failures: u64,
    stuck: u64,
    longest_wait: u64,
    acquire: Histogram<u64>,
    cycle: Histogram<u64>,
    hand_over: Histogram<u64>,
    events: std::collections::HashMap<usize, Vec<Event>>,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum {
            workers: 0,
            grants: Vec::new(),
            to_itself: 0,
            violations: 0,
            failures: 0,
            stuck: 0,
            longest_wait: 0,
            acquire: histogram(),
            cycle: histogram(),
            hand_over: histogram(),
            events: std::collections::HashMap::new(),
        }
    }
}

impl Sum {
    fn add(&mut self, key: usize, tally: Tally, failure: Option<Failure>) {
        if let Some(failure) = failure {
            eprintln!("a worker failed: {failure}");
            self.failures += 1;
        }
        self.workers += 1;
        self.grants.push(tally.grants);
        self.to_itself += tally.to_itself;
        self.violations += tally.violations;
        self.longest_wait = self.longest_wait.max(tally.longest_wait);
        for (all, one) in [
            (&mut self.acquire, &tally.acquire),
            (&mut self.cycle, &tally.cycle),
            (&mut self.hand_over, &tally.hand_over),
        ] {
            // They grow by themselves, so adding does not fail.
            let _grown = all.add(one);
        }
        self.events.entry(key).or_default().extend(tally.events);
    }

    fn round(mut self, seconds: f64, cpu_seconds: f64, drained_ms: f64) -> Round {
        let broken: u64 = self.events.values_mut().map(|events| violations(events)).sum();
        Round {
            workers: self.workers + self.stuck,
            seconds,
            cpu_seconds,
            grants: self.grants.iter().sum(),
            to_itself: self.to_itself,
            fewest: self.grants.iter().copied().min().unwrap_or(0),
            most: self.grants.iter().copied().max().unwrap_or(0),
            starved: self.stuck + self.grants.iter().map(|&grants| u64::from(grants == 0)).sum::<u64>(),
            violations: self.violations + broken,
            failures: self.failures,
            stuck: self.stuck,
            longest_wait: self.longest_wait,
            drained_ms,
            acquire: self.acquire,
            cycle: self.cycle,
            hand_over: self.hand_over,
            server: None,
        }
    }
}
