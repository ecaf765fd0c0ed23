//! Random work of several clients over a [`SimKv`], and what must be true of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_conformance::history::{self, Act, Event, Options, Recorder, Summary};
use lockcore::{ClaimId, FenceGate, LockClient, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::client::SimClient;
use super::kv::SimKv;
use super::store::Store;
use super::without::Without;
use super::worker::{KEYS, OWNERS, Worker};
use crate::backend::EtcdBackend;
use crate::keys::Keys;
use crate::link::Link;
use crate::{checks, connect};

const CLIENTS: usize = 3;
const WORKERS: usize = 3;

/// How long the server lies.
pub(super) const CHAOS: Duration = Duration::from_secs(40);

/// When the server has come to its senses, everybody who waits is served within this time: each of those ahead may have to
/// be waited for until its lease is over.
const DRAINED: Duration = Duration::from_secs(120);

/// Longer than any lease of a claim that is asked for by a request which is late itself.
const OVER: Duration = Duration::from_secs(60);

/// Who took part in which attempt.
pub(super) type Attempts = Arc<Mutex<HashMap<u64, ClaimId>>>;

/// Plays one seed; what was wrong, if anything was.
pub(super) fn play(seed: u64, without: Option<Without>) -> std::result::Result<Summary, String> {
    fastrand::seed(seed);
    super::in_paused_time(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let kv = SimKv::new(without);
        let history = Recorder::new();
        let attempts = Attempts::default();
        let gates: Arc<[FenceGate; KEYS.len()]> = Arc::default();
        let (mut backends, mut clients, mut switches) = (Vec::new(), Vec::new(), Vec::new());
        let mut workers = JoinSet::new();
        for client in 0..CLIENTS {
            let (switch, goes_on) = watch::channel(true);
            // Some are so patient that they see answers to what was asked before they stood still.
            let patience = Duration::from_secs(if random.u8(..4) == 0 { 30 } else { 2 });
            let link = Link::new(SimClient::new(&kv, random.fork(), goes_on.clone()), patience);
            let backend = backend(link, client).await.map_err(|error| error.to_string())?;
            let locks = LockClient::builder(backend.clone())
                .request_timeout(patience)
                .waiter_ttl(Duration::from_secs(random.u64(2..6)))
                .build();
            for worker in 0..WORKERS {
                let worker = Worker {
                    kv: kv.clone(),
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
        kv.set_chaos(true);
        tokio::spawn(sweep(kv.clone()));
        world(&kv, &switches, &mut random).await;
        kv.set_chaos(false);
        let drained = timeout(DRAINED, async {
            while let Some(worked) = workers.join_next().await {
                worked.map_err(|error| error.to_string())??;
            }
            Ok::<(), String>(())
        });
        drained.await.map_err(|_| format!("somebody waits for ever, beside {}", kv.shown()))??;
        if let Some(wrong) = kv.wrong() {
            return Err(wrong);
        }
        let summary = judge(&history.events(), &attempts, &kv)?;
        sleep(OVER).await;
        let leases: Vec<i64> = kv.leases().into_iter().filter(|&seconds| seconds < 3600).collect();
        if !kv.left().is_empty() || !leases.is_empty() {
            return Err(format!("left behind: {:?}, and leases of {leases:?} s", kv.left()));
        }
        for (client, backend) in clients.iter().zip(&backends) {
            if backend.listening() > 0 {
                return Err(format!("{} claims are still known to a client", backend.listening()));
            }
            client.close().await.map_err(|error| error.to_string())?;
        }
        Ok(summary)
    })
}

/// A backend whose session has this number.
pub(super) async fn backend(link: Link, session: usize) -> Result<Arc<EtcdBackend>> {
    let keys = Keys::new("lock/".into())?;
    let capabilities = checks::capabilities(Duration::from_secs(2), true);
    let session = format!("client{session}");
    connect::begin(link, keys, session, capabilities, Duration::from_secs(5), "simulated".into()).await
}

async fn sweep(kv: Arc<SimKv>) {
    let mut twice_a_second = interval(Duration::from_millis(500));
    loop {
        twice_a_second.tick().await;
        kv.with_store(Store::sweep);
    }
}

/// What happens to servers and processes.
async fn world(kv: &Arc<SimKv>, switches: &[watch::Sender<bool>], random: &mut fastrand::Rng) {
    let vandals = random.bool();
    while kv.elapsed() < CHAOS {
        sleep(Duration::from_millis(random.u64(50..3000))).await;
        match random.u8(..8) {
            0 => kv.with_store(Store::new_leader),
            1 => kv.break_watches(),
            2 if vandals => kv.vandalize(random),
            3 | 4 => {
                let (switch, pause) = (&switches[random.usize(..switches.len())], random.u64(100..15_000));
                switch.send_replace(false);
                let switch = switch.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(pause)).await;
                    switch.send_replace(true);
                });
            }
            _ => {}
        }
    }
}

/// Whether the history can be explained. Whoever was ended by others on purpose does not hold from then on, whatever it
/// believes: S15 promises no more.
fn judge(events: &[Event], attempts: &Attempts, kv: &SimKv) -> std::result::Result<Summary, String> {
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let forced = kv.forced();
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
