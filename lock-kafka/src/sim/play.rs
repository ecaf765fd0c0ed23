//! Random work of several clients over a [`SimLog`], and what must be true of it.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::history::Summary;
use lock_conformance::simulation::{self, Play, Switch, World};
use lockcore::{ClaimId, LockClient};
use tokio::time::sleep;

use super::client::SimClient;
use super::store::SimLog;
use crate::backend::KafkaBackend;
use crate::core::Core;
use crate::fold::Replica;
use crate::settings::Settings;

const CLIENTS: usize = 3;

/// How long the log lies.
pub(super) const CHAOS: Duration = Duration::from_secs(40);

/// When the log has come to its senses, everybody who waits is served within this time: each of those ahead may have to be
/// waited for until its lease is over.
const DRAINED: Duration = Duration::from_secs(120);

/// Longer than any lease of a claim that is asked for by a request which is late itself.
const OVER: Duration = Duration::from_secs(60);

impl World for SimLog {
    fn is_rough(&self) -> bool {
        self.is_chaos()
    }

    fn ended(&self, id: ClaimId) -> Option<Duration> {
        SimLog::ended(self, id)
    }
}

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
    simulation::seed(seed);
    super::in_paused_time(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let log = SimLog::new();
        let mut play = Play::new(log.clone(), CHAOS);
        let (mut backends, mut clients, mut switches) = (Vec::new(), Vec::new(), Vec::new());
        let settings = settings(&mut random);
        // Brokers' clocks are set forward in some plays: whoever answers in time holds on nevertheless.
        let steps = random.u8(..4) == 0;
        for _ in 0..CLIENTS {
            let switch = Switch::default();
            let patience = Duration::from_secs(if random.u8(..4) == 0 { 30 } else { 2 });
            let connection = Arc::new(SimClient::new(&log, random.fork(), switch.clone()));
            let backend = KafkaBackend::over(vec![connection], &settings).await;
            let backend = backend.map_err(|error| error.to_string())?;
            let locks = LockClient::builder(backend.clone())
                .request_timeout(patience)
                .waiter_ttl(Duration::from_secs(random.u64(2..6)))
                .build();
            play.joined_by(&locks, &switch, &mut random);
            backends.push(backend);
            clients.push(locks);
            switches.push(switch);
        }
        log.set_chaos(true, steps);
        world(&log, &switches, steps, &mut random).await;
        log.set_chaos(false, false);
        let shown = |wrong| format!("{wrong}\n{}", log.shown());
        play.served(DRAINED).await.map_err(shown)?;
        let summary = play.judged().map_err(shown)?;
        sleep(OVER).await;
        if let Some(wrong) = log.wrong() {
            return Err(format!("{wrong}\n{}", log.shown()));
        }
        let left: Vec<ClaimId> = log.with_replica(|replica| replica.claims().collect());
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}\n{}", log.shown()));
        }
        for backend in &backends {
            is_in_step(&log, &backend.partitions[0]).map_err(shown)?;
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
async fn world(log: &SimLog, switches: &[Switch], steps: bool, random: &mut fastrand::Rng) {
    while log.elapsed() < CHAOS {
        sleep(Duration::from_millis(random.u64(50..3000))).await;
        match random.u8(..8) {
            0 => log.set_skew(Duration::from_millis(random.u64(..2000))),
            1 if steps => log.set_skew(Duration::from_secs(3600)),
            2..5 => {
                let longest = if steps { 300 } else { 15_000 };
                let (switch, pause) = (&switches[random.usize(..switches.len())], random.u64(100..longest));
                switch.turn(false);
                let switch = switch.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(pause)).await;
                    switch.turn(true);
                });
            }
            5 => log.mark(),
            _ => {}
        }
    }
}
