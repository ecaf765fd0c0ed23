//! Many clients that do all sorts of things at once, and a history that must be explained.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Any, ErrorKind, FenceGate, Lock, LockGuard, Mode};
use tokio::time::{sleep, timeout};

use crate::history::{Act, Options, Recorder};
use crate::outcome::{Outcome, Stop, ensure};
use crate::scene::Scene;

const CLIENTS: usize = 6;
const KEYS: usize = 3;
const ROUNDS: usize = 25;

pub(crate) async fn random_mix(scene: &Scene) -> Outcome {
    let gates: Arc<[FenceGate; KEYS]> = Arc::default();
    let mut random = scene.random();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = scene.client().await?;
        let mut locks = Vec::new();
        for key in 0..KEYS {
            locks.push(client.lock(scene.key(&key.to_string()))?);
        }
        let player = Player {
            locks,
            gates: gates.clone(),
            history: scene.history.clone(),
            random: random.fork(),
            moment: scene.timing.unit / 20,
            permits: scene.capabilities.permits,
        };
        clients.spawn(player.play());
    }
    while let Some(played) = clients.join_next().await {
        played??;
    }
    let options = Options { complete: true, ..Options::default() };
    let summary = scene.history.check(options).map_err(Stop::failed)?;
    ensure!(summary.grants > CLIENTS * ROUNDS / 4, "only {} grants in all", summary.grants);
    for key in 0..KEYS {
        scene.until_free(&scene.lock(&key.to_string()).await?).await?;
    }
    Ok(())
}

struct Player {
    locks: Vec<Lock>,
    gates: Arc<[FenceGate; KEYS]>,
    history: Recorder,
    random: fastrand::Rng,
    moment: Duration,
    permits: bool,
}

impl Player {
    async fn play(mut self) -> Outcome {
        for _ in 0..ROUNDS {
            let key = self.random.usize(..KEYS);
            let mode = self.mode();
            let track = self.history.asks(self.locks[key].key().as_str(), mode);
            let patience = self.a_while(6.0);
            // Some waits are bounded, some futures are dropped, some have all the time that they need.
            let outcome = match self.random.u8(..3) {
                0 => acquire(&self.locks[key], mode, Some(patience)).await,
                1 => match timeout(patience, acquire(&self.locks[key], mode, None)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Ok(None),
                },
                _ => acquire(&self.locks[key], mode, None).await,
            };
            let Some(guard) = outcome? else {
                track.note(Act::GaveUp);
                continue;
            };
            track.granted(&guard);
            let gate = &self.gates[key];
            gate.enter(guard.fence()).map_err(Stop::failed)?;
            sleep(self.a_while(1.0)).await;
            track.note(Act::Wrote { accepted: self.gates[key].check(guard.fence()).is_ok() });
            if self.random.bool() {
                track.release(guard).await?;
            } else {
                track.note(Act::Releasing);
                drop(guard);
            }
        }
        Ok(())
    }

    fn mode(&mut self) -> Mode {
        match self.random.u8(..5) {
            0 | 1 => Mode::Exclusive,
            2 if self.permits => Mode::Permit { at_most: NonZeroU32::MIN.saturating_add(2) },
            _ => Mode::Shared,
        }
    }

    fn a_while(&mut self, at_most: f64) -> Duration {
        self.moment.mul_f64(self.random.f64() * at_most)
    }
}

/// `None` when the wait was over.
async fn acquire(lock: &Lock, mode: Mode, wait: Option<Duration>) -> Outcome<Option<LockGuard<Any>>> {
    let wait = wait.unwrap_or(Duration::MAX);
    let guard = match mode {
        Mode::Exclusive => lock.exclusive().wait(wait).acquire().await.map(LockGuard::into_any),
        Mode::Shared => lock.shared().wait(wait).acquire().await.map(LockGuard::into_any),
        Mode::Permit { at_most } => lock.permit(at_most).wait(wait).acquire().await.map(LockGuard::into_any),
    };
    match guard {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(None),
        Err(error) => Err(error.into()),
    }
}
