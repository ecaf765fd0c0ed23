//! Cancellation exhaustion: every public future of the client is polled so many times and dropped, for every number, and
//! nothing is left behind.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lockcore::{BreakTarget, ErrorKind, FORGET_AFTER, Lock, LockClient, Mode, PageToken, Renew};
use tokio::task::JoinHandle;

use crate::harness::{Harness, Seclusion};
use crate::outcome::{Outcome, Stop, ensure};
use crate::pausing::{Pausing, poll_once};
use crate::play::alone;
use crate::scene::{PROMPTLY, Scene};

/// One public future.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    begin: for<'s> fn(&'s Stage<'s>) -> Begun<'s>,
    /// What it leaves may stay until its lease runs out: it is documented to do that.
    lease: bool,
}

/// The future under test; what it gives is dropped with it.
type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A case that is being set up.
type Begun<'s> = Pin<Box<dyn Future<Output = Outcome<Work>> + 's>>;

/// What a case has at hand.
struct Stage<'s> {
    scene: &'s Scene,
    /// The client under test: each of its requests is pending twice.
    client: LockClient,
    lock: Lock,
    /// Another client of the same key.
    other: Lock,
}

impl Case {
    pub(crate) fn label(&self) -> String {
        format!("c_{}", self.name)
    }
}

/// The most polls that any of the futures needs.
const MOST_POLLS: usize = 200;

/// The numbers of polls that are tried where time is real.
const SOME_POLLS: [usize; 9] = [0, 1, 2, 3, 4, 6, 9, 15, 45];

/// How many of them are tried side by side.
const AT_ONCE: usize = 3;

/// In units: the lease of everything here.
const TTL: u32 = 40;

pub(crate) fn play(harness: &Arc<dyn Harness>, case: &Case) -> Outcome {
    let paused = harness.timing().paused;
    if case.lease && !paused {
        return Err(Stop::Skipped(
            "what it leaves runs out with its lease: played under a paused clock only".into(),
        ));
    }
    // Quickly, and with time passing between the polls.
    for slow in [false, true] {
        if !paused {
            for polls in SOME_POLLS.chunks(AT_ONCE) {
                dropped_at_once(harness, case, polls, slow)?;
            }
            continue;
        }
        for polls in 0..MOST_POLLS {
            if dropped(harness, case, polls, slow)? {
                break;
            }
            // Without time passing, what waits for somebody else never ends.
            ensure!(!slow || polls + 1 < MOST_POLLS, "not done after {polls} polls");
        }
    }
    Ok(())
}

/// Drops the future after each of these numbers of polls, side by side: most of it is waiting.
fn dropped_at_once(harness: &Arc<dyn Harness>, case: &Case, polls: &[usize], slow: bool) -> Outcome {
    thread::scope(|scope| {
        let start = |&polls| scope.spawn(move || dropped(harness, case, polls, slow));
        let all: Vec<_> = polls.iter().map(start).collect();
        // A panic of a trial is a failure by itself.
        all.into_iter().try_for_each(|each| each.join().map_or(Ok(()), |ended| ended.map(drop)))
    })
}

/// Drops the future after so many polls; whether it was done before.
fn dropped(harness: &Arc<dyn Harness>, case: &Case, polls: usize, slow: bool) -> Outcome<bool> {
    alone(harness.timing(), once(harness, case, polls, slow)).map_err(|stop| match stop {
        Stop::Failed(text) => Stop::Failed(format!("dropped after {polls} polls (slow: {slow}): {text}")),
        skipped @ Stop::Skipped(_) => skipped,
    })
}

async fn once(harness: &Arc<dyn Harness>, case: &Case, polls: usize, slow: bool) -> Outcome<bool> {
    let server = harness.open(Seclusion::Shared).await?;
    let backend = server.connect().await?;
    let scene = Scene::new(harness.timing(), server, backend.capabilities(), "cancel", 1);
    let ttl = scene.units(TTL);
    let client = LockClient::builder(Pausing::new(backend)).ttl(ttl).waiter_ttl(ttl).build();
    let lock = client.lock(scene.key("k"))?;
    let other = scene.lock("k").await?;
    let stage = Stage { scene: &scene, client, lock, other };
    let mut work = (case.begin)(&stage).await?;
    let mut finished = false;
    for polled in 0..polls {
        // Not after the last one: what it has sent is still on its way when the future is dropped.
        if polled > 0 {
            if slow {
                scene.pause().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        if poll_once(work.as_mut()).await.is_ready() {
            finished = true;
            break;
        }
    }
    drop(work);
    // What was on its way arrives, so that nothing is taken for free that is not reached yet.
    scene.sleep(1).await;
    let bound = if case.lease { TTL + PROMPTLY } else { PROMPTLY };
    let let_go = async {
        // The request that was under way may arrive yet, and be let go of then: whoever asks gets its turn after it.
        loop {
            let turn = match stage.other.exclusive().acquire().await {
                Ok(guard) => guard.release().await,
                Err(error) => Err(error),
            };
            match turn {
                Ok(()) => break,
                // It was a break that arrived.
                Err(error) if error.kind() == ErrorKind::Lost => {}
                Err(error) => return Err(error.into()),
            }
        }
        scene.until_free(&stage.other).await
    };
    scene.within(scene.units(bound), "letting go", let_go).await??;
    let Stage { client, lock, other, .. } = stage;
    drop((client, lock));
    if !harness.timing().paused {
        return Ok(finished);
    }
    // Ids of ended claims are remembered for a while, and forgotten when the key is looked at next.
    tokio::time::sleep(FORGET_AFTER + Duration::from_secs(1)).await;
    ensure!(other.inspect().await?.is_free(), "something came back");
    match scene.server.keys_kept().await {
        Ok(kept) => ensure!(kept == 0, "{kept} keys are kept after everything is forgotten"),
        Err(error) => drop(error),
    }
    Ok(finished)
}

impl Stage<'_> {
    /// Somebody else holds, and lets go after so many units.
    async fn blocked(&self, mode: Mode, units: u32) -> Outcome<JoinHandle<()>> {
        let hold = self.scene.units(units);
        let guard = match mode {
            Mode::Exclusive => self.other.exclusive().acquire().await?.into_any(),
            Mode::Shared | Mode::Permit { .. } => self.other.shared().acquire().await?.into_any(),
        };
        Ok(tokio::spawn(async move {
            tokio::time::sleep(hold).await;
            drop(guard);
        }))
    }
}

fn done<T>(outcome: lockcore::Result<T>) {
    drop(outcome);
}

/// Runs `future`, and drops what it gives at once.
fn work<T: 'static>(future: impl Future<Output = T> + 'static) -> Work {
    Box::pin(async move { drop(future.await) })
}

macro_rules! cases {
    ($($name:ident $lease:literal |$stage:ident| $begin:block)*) => {
        /// All futures that are tried.
        pub(crate) static CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            lease: $lease,
            begin: |$stage| Box::pin(async move { Ok($begin) }),
        }),*];
    };
}

cases! {
    acquire_exclusive false |stage| { work(stage.lock.exclusive().acquire()) }
    acquire_shared false |stage| { work(stage.lock.shared().acquire()) }
    acquire_permit false |stage| { work(stage.lock.permit(NonZeroU32::MIN).acquire()) }
    acquire_manual false |stage| { work(stage.lock.exclusive().renew(Renew::Manual).acquire()) }
    acquire_waiting false |stage| {
        stage.blocked(Mode::Exclusive, 2).await?;
        work(stage.lock.exclusive().acquire())
    }
    acquire_manual_waiting false |stage| {
        stage.blocked(Mode::Exclusive, 2).await?;
        work(stage.lock.exclusive().renew(Renew::Manual).ttl(stage.scene.units(3 * TTL)).acquire())
    }
    acquire_timing_out false |stage| {
        stage.blocked(Mode::Exclusive, 3).await?;
        work(stage.lock.exclusive().wait(stage.scene.units(1)).acquire())
    }
    acquire_taking_over false |stage| {
        let old = stage.lock.shared().owner("me").acquire().await?;
        stage.blocked(Mode::Shared, 2).await?;
        let acquire = stage.lock.exclusive().owner("me").take_over().acquire();
        work(async move { drop((acquire.await, old)) })
    }
    try_acquire false |stage| { work(stage.lock.exclusive().try_acquire()) }
    try_acquire_busy false |stage| {
        stage.blocked(Mode::Exclusive, 1).await?;
        work(stage.lock.exclusive().try_acquire())
    }
    release false |stage| { work(stage.lock.exclusive().acquire().await?.release()) }
    renew false |stage| {
        let mut guard = stage.lock.exclusive().acquire().await?;
        work(async move { done(guard.renew().await) })
    }
    renew_for false |stage| {
        let (mut guard, ttl) = (stage.lock.exclusive().acquire().await?, stage.scene.units(2 * TTL));
        work(async move { done(guard.renew_for(ttl).await) })
    }
    renew_if_below false |stage| {
        let (mut guard, threshold) = (stage.lock.exclusive().acquire().await?, stage.scene.units(2 * TTL));
        work(async move { done(guard.renew_if_below(threshold).await) })
    }
    lost false |stage| {
        let guard = stage.lock.exclusive().acquire().await?;
        let (other, soon) = (stage.other.clone(), stage.scene.units(1));
        tokio::spawn(async move {
            tokio::time::sleep(soon).await;
            other.break_claims(BreakTarget::All).await
        });
        work(async move { guard.lost().await })
    }
    upgrade false |stage| { work(stage.lock.shared().acquire().await?.upgrade()) }
    upgrade_waiting false |stage| {
        let guard = stage.lock.shared().acquire().await?;
        stage.blocked(Mode::Shared, 2).await?;
        work(guard.upgrade())
    }
    upgrade_timing_out false |stage| {
        let guard = stage.lock.shared().acquire().await?;
        stage.blocked(Mode::Shared, 3).await?;
        work(guard.upgrade_within(stage.scene.units(1)))
    }
    downgrade false |stage| { work(stage.lock.exclusive().acquire().await?.downgrade()) }
    downgrade_to_permit false |stage| {
        work(stage.lock.exclusive().acquire().await?.downgrade_to_permit(NonZeroU32::MIN))
    }
    run false |stage| {
        let (lock, soon) = (stage.lock.clone(), stage.scene.units(1));
        work(async move { done(lock.exclusive().run(async |_| tokio::time::sleep(soon).await).await) })
    }
    run_boxed false |stage| {
        let (lock, soon) = (stage.lock.clone(), stage.scene.units(1));
        work(async move {
            done(lock.shared().run_boxed(|_| Box::pin(async move { tokio::time::sleep(soon).await })).await);
        })
    }
    wait_free false |stage| {
        stage.blocked(Mode::Exclusive, 2).await?;
        let (lock, wait) = (stage.lock.clone(), stage.scene.units(9));
        work(async move { done(lock.wait_free(Mode::Exclusive, wait).await) })
    }
    inspect false |stage| {
        let lock = stage.lock.clone();
        work(async move { done(lock.inspect().await) })
    }
    break_claims false |stage| {
        stage.blocked(Mode::Exclusive, 1).await?;
        let lock = stage.lock.clone();
        work(async move { done(lock.break_claims(BreakTarget::All).await) })
    }
    list false |stage| {
        let client = stage.client.clone();
        work(async move { done(client.list("", PageToken::default()).await) })
    }
    resume true |stage| {
        let detached = stage.lock.exclusive().acquire().await?.detach()?;
        let client = stage.client.clone();
        work(async move {
            match client.resume(&detached).await {
                Ok(guard) => drop(guard),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "resuming what is held"),
            }
        })
    }
    close true |stage| {
        let guard = stage.lock.exclusive().acquire().await?;
        let waiting = tokio::spawn(stage.lock.exclusive().acquire());
        let client = stage.client.clone();
        work(async move {
            done(client.close().await);
            drop((guard, waiting.await));
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_public_future_of_the_client_is_tried() {
        let (_, cases) = include_str!("cancel.rs").split_once("cases! {").unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("lockcore").join("src");
        let mut found = 0;
        for file in fs::read_dir(folder).unwrap() {
            let Ok(text) = fs::read_to_string(file.unwrap().path()) else { continue };
            for name in text.split("pub async fn ").skip(1) {
                let name = name.split(['(', '<']).next().unwrap_or_default();
                assert!(cases.contains(&format!(".{name}(")), "{name} is not tried");
                found += 1;
            }
        }
        assert!(found >= 19, "only {found} were found");
    }
}
