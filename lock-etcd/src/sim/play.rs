//! Random work of several clients over a [`SimKv`], and what must be true of it.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::history::Summary;
use lock_conformance::simulation::{self, Play, Switch, World};
use lockcore::{ClaimId, LockClient, Result};
use tokio::time::{interval, sleep};

use super::client::SimClient;
use super::kv::SimKv;
use super::store::Store;
use super::without::Without;
use crate::backend::EtcdBackend;
use crate::keys::Keys;
use crate::link::Link;
use crate::{checks, connect};

const CLIENTS: usize = 3;

/// How long the server lies.
pub(super) const CHAOS: Duration = Duration::from_secs(40);

/// When the server has come to its senses, everybody who waits is served within this time: each of those ahead may have to
/// be waited for until its lease is over.
const DRAINED: Duration = Duration::from_secs(120);

/// Longer than any lease of a claim that is asked for by a request which is late itself.
const OVER: Duration = Duration::from_secs(60);

impl World for SimKv {
    fn is_rough(&self) -> bool {
        self.is_chaos()
    }

    fn ended(&self, id: ClaimId) -> Option<Duration> {
        SimKv::ended(self, id)
    }

    fn forgiven(&self, id: ClaimId) -> Option<Duration> {
        SimKv::forgiven(self, id)
    }
}

/// Plays one seed; what was wrong, if anything was.
pub(super) fn play(seed: u64, without: Option<Without>) -> std::result::Result<Summary, String> {
    simulation::seed(seed);
    super::in_paused_time(async {
        let mut random = fastrand::Rng::with_seed(seed);
        let kv = SimKv::new(without);
        let mut play = Play::new(kv.clone(), CHAOS);
        let (mut backends, mut clients, mut switches) = (Vec::new(), Vec::new(), Vec::new());
        for client in 0..CLIENTS {
            let switch = Switch::default();
            // Some are so patient that they see answers to what was asked before they stood still.
            let patience = Duration::from_secs(if random.u8(..4) == 0 { 30 } else { 2 });
            let link = Link::new(SimClient::new(&kv, random.fork(), switch.clone()), patience);
            let backend = backend(link, client).await.map_err(|error| error.to_string())?;
            let locks = LockClient::builder(backend.clone())
                .request_timeout(patience)
                .waiter_ttl(Duration::from_secs(random.u64(2..6)))
                .build();
            play.joined_by(&locks, &switch, &mut random);
            backends.push(backend);
            clients.push(locks);
            switches.push(switch);
        }
        kv.set_chaos(true);
        tokio::spawn(sweep(kv.clone()));
        world(&kv, &switches, &mut random).await;
        kv.set_chaos(false);
        play.served(DRAINED).await.map_err(|wrong| format!("{wrong}, beside {}", kv.shown()))?;
        if let Some(wrong) = kv.wrong() {
            return Err(wrong);
        }
        let summary = play.judged()?;
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
async fn world(kv: &Arc<SimKv>, switches: &[Switch], random: &mut fastrand::Rng) {
    let vandals = random.bool();
    while kv.elapsed() < CHAOS {
        sleep(Duration::from_millis(random.u64(50..3000))).await;
        match random.u8(..8) {
            0 => kv.with_store(Store::new_leader),
            1 => kv.break_watches(),
            2 if vandals => kv.vandalize(random),
            3 | 4 => {
                let (switch, pause) = (&switches[random.usize(..switches.len())], random.u64(100..15_000));
                switch.turn(false);
                let switch = switch.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(pause)).await;
                    switch.turn(true);
                });
            }
            _ => {}
        }
    }
}
