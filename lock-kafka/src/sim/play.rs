//! Random work of several clients over a [`SimLog`], and what must be true of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_conformance::history::{self, Act, Event, Options, Recorder, Summary};
use lockcore::{ClaimId, FenceGate, LockClient};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::SimClient;
use super::store::SimLog;
use super::worker::{KEYS, OWNERS, Worker};
use crate::backend::KafkaBackend;
use crate::core::Core;
use crate::fold::Replica;
use crate::settings::Settings;

const CLIENTS: usize = 3;
const WORKERS: usize = 3;

/// How long the log lies.
pub(super) const CHAOS: Duration = Duration::from_secs(40);

/// When the log has come to its senses, everybody who waits is served within this time: each of those ahead may have to be
/// waited for until its lease is over.
const DRAINED: Duration = Duration::from_secs(120);

/// Longer than any lease of a claim that is asked for by a request which is late itself.
const OVER: Duration = Duration::from_secs(60);

/// Who took part in which attempt.
pub(super) type Attempts = Arc<Mutex<HashMap<u64, ClaimId>>>;

/// Settings that make much happen in a short time.
pub(super) fn settings(random: &mut fastrand::Rng) -> Settings {
    Settings {
        margin: Duration::from_secs(2),
        grace: Duration::from_secs(2),
        step: Duration::from_secs(random.u64(2..10)),
        checkpoint_every: random.u64(20..200).try_into().unwrap(),
        window: random.u64(100..2000),
        replicated: true,
    }
}

/// Plays one seed; what was wrong, if anything was.
pub(super) fn play(seed: u64) -> Result<Summary, String> {
    fastrand::seed(seed);
    super::in_paused_time(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let (log, history) = (SimLog::new(), Recorder::new());
        let attempts = Attempts::default();
        let gates: Arc<[FenceGate; KEYS.len()]> = Arc::default();
        let (mut backends, mut clients, mut switches) = (Vec::new(), Vec::new(), Vec::new());
        let mut workers = JoinSet::new();
        let settings = settings(&mut random);
        // Brokers' clocks are set forward in some plays: whoever answers in time holds on nevertheless.
        let steps = random.u8(..4) == 0;
        for client in 0..CLIENTS {
            let (switch, goes_on) = watch::channel(true);
            let patience = Duration::from_secs(if random.u8(..4) == 0 { 30 } else { 2 });
            let connection = Arc::new(SimClient::new(&log, random.fork(), goes_on.clone()));
            let backend = KafkaBackend::over(vec![connection], &settings).await;
            let backend = backend.map_err(|error| error.to_string())?;
            let locks = LockClient::builder(backend.clone())
                .request_timeout(patience)
                .waiter_ttl(Duration::from_secs(random.u64(2..6)))
                .build();
            for worker in 0..WORKERS {
                let worker = Worker {
                    log: log.clone(),
                    owner: OWNERS[(client + worker) % OWNERS.len()],
                    client: locks.clone(),
                    gates: gates.clone(),
                    history: history.clone(),
                    attempts: attempts.clone(),
                    goes_on: goes_on.clone(),
                    random: random.fork(),
                };
                workers.spawn(worker.work());
            }
            backends.push(backend);
            clients.push(locks);
            switches.push(switch);
        }
        log.set_chaos(true, steps);
        world(&log, &switches, steps, &mut random).await;
        log.set_chaos(false, false);
        let drained = timeout(DRAINED, async {
            while let Some(worked) = workers.join_next().await {
                worked.map_err(|error| error.to_string())??;
            }
            Ok::<(), String>(())
        });
        drained.await.map_err(|_| format!("somebody waits for ever\n{}", log.shown()))??;
        let summary = judge(&history.events(), &attempts, &log);
        let summary = summary.map_err(|wrong| format!("{wrong}\n{}", log.shown()))?;
        sleep(OVER).await;
        if let Some(wrong) = log.wrong() {
            return Err(format!("{wrong}\n{}", log.shown()));
        }
        let left: Vec<ClaimId> = log.with_replica(|replica| replica.claims().collect());
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}\n{}", log.shown()));
        }
        for backend in &backends {
            is_in_step(&log, &backend.partitions[0]).map_err(|wrong| format!("{wrong}\n{}", log.shown()))?;
        }
        for client in clients {
            client.close().await.map_err(|error| error.to_string())?;
        }
        Ok(summary)
    })
}

/// Whether a client has read all there is, and knows what it leads to.
fn is_in_step(log: &SimLog, core: &Core) -> Result<(), String> {
    let inner = core.inner();
    let (next, end) = (inner.read, log.bounds().end);
    if next != end || inner.over.is_some() {
        return Err(format!("a client stands at {next} of {end}: {:?}", inner.over));
    }
    let known = inner.registry.ids();
    if !known.is_empty() {
        return Err(format!("{known:?} are still known to a client"));
    }
    let (image, theirs) = (log.with_replica(Replica::image), inner.replica.image());
    if image != theirs {
        return Err(format!("a client sees {theirs:?}, and the log leads to {image:?}"));
    }
    Ok(())
}

/// What happens to brokers and processes.
async fn world(log: &SimLog, switches: &[watch::Sender<bool>], steps: bool, random: &mut fastrand::Rng) {
    while log.elapsed() < CHAOS {
        sleep(Duration::from_millis(random.u64(50..3000))).await;
        match random.u8(..8) {
            0 => log.set_skew(Duration::from_millis(random.u64(..2000))),
            1 if steps => log.set_skew(Duration::from_secs(3600)),
            2..5 => {
                let longest = if steps { 300 } else { 15_000 };
                let (switch, pause) = (&switches[random.usize(..switches.len())], random.u64(100..longest));
                switch.send_replace(false);
                let switch = switch.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(pause)).await;
                    switch.send_replace(true);
                });
            }
            5 => log.mark(),
            _ => {}
        }
    }
}

/// Whether the history can be explained. Whoever was ended by others on purpose does not hold from then on, whatever it
/// believes: S15 promises no more.
fn judge(events: &[Event], attempts: &Attempts, log: &SimLog) -> Result<Summary, String> {
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let forced = log.forced();
    let mut events = events.to_vec();
    let granted: Vec<Event> =
        events.iter().filter(|event| matches!(event.act, Act::Granted { .. })).cloned().collect();
    for grant in granted {
        let Some(at) = attempts.get(&grant.attempt).and_then(|id| forced.get(id)) else { continue };
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        if at > grant.at {
            // Ahead of what else happened at that moment: others may have been let in.
            events.insert(0, Event { at, act: Act::Lost, ..grant });
        } else {
            // It was told so after its end.
            let is_later =
                |event: &Event| event.attempt == grant.attempt && !matches!(event.act, Act::Asked { .. });
            events.retain(|event| !is_later(event));
            events.push(Event { act: Act::GaveUp, ..grant });
        }
    }
    events.sort_by_key(|event| event.at);
    let options = Options { complete: true, ..Options::default() };
    history::check(&events, options).map_err(|violation| {
        let named = |event: &Event| format!("{} {:?}", event.to_json(), attempts.get(&event.attempt));
        let all: Vec<String> = events.iter().map(named).collect();
        format!("{violation}\n{}", all.join("\n"))
    })
}
