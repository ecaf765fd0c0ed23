//! The protocol on a server that is simulated: random work over lies, and every order of a few requests.
//!
//! | variable | effect |
//! |---|---|
//! | `SEED=…` | plays this seed only, as a failure prints it |
//! | `SEEDS=start..end` | plays these |
//!
//! A seed fixes the work, the faults, their times and the ids of claims. What it does not fix is the order in which some tasks run
//! that wake at one moment: what fails once may have to be played some times, and so a failure prints all that happened.

mod check;
mod client;
mod kv;
mod orders;
mod play;
mod same;
mod store;
mod stories;
mod without;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lock_conformance::simulation::seeds;
use lockcore::{Claim, Key, LockBackend, Mode, Queue, Renewal};
use tokio::time::{Instant, sleep};

use self::client::SimClient;
use self::kv::SimKv;
use self::play::play;
use self::store::Store;
use self::without::Without;
use crate::clock::Moment;
use crate::link::Link;

thread_local!(static START: Cell<Option<Instant>> = const { Cell::new(None) });

/// The time of a simulated machine, which has been up for a day when the play begins.
pub(crate) fn now() -> Option<Moment> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    START.get().map(|start| Moment::default().plus(DAY + start.elapsed()))
}

/// Runs a play by itself, in time that passes only when nobody has anything to do.
fn in_paused_time<T>(play: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let played = runtime.unwrap().block_on(async {
        START.set(Some(Instant::now()));
        play.await
    });
    START.set(None);
    played
}

#[test]
fn nobody_is_inside_with_another_whatever_the_server_does() {
    let (mut grants, mut attempts) = (0, 0);
    for seed in seeds(0..200) {
        match play(seed, None) {
            Ok(summary) => {
                grants += summary.grants;
                attempts += summary.attempts;
            }
            Err(wrong) => panic!(
                "{wrong}\n  again: SEED={seed} cargo test -p lock-etcd --lib -- nobody_is_inside_with_another"
            ),
        }
    }
    println!("{grants} grants of {attempts} attempts");
    assert!(grants > 0);
}

/// What is not fixed by a seed decides as well, so each is played some times.
#[test]
fn seeds_that_were_wrong_once_are_right() {
    for seed in [970, 1183, 1221, 2033, 2200] {
        for _ in 0..5 {
            play(seed, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        }
    }
}

/// Rarer mistakes need the orders that `stories` plays.
#[test]
fn random_work_notices_that_the_mod_revision_is_not_compared() {
    let without = Some(Without::ModRevision);
    let wrong = (0..1000).find_map(|seed| Some((seed, play(seed, without).err()?)));
    let (seed, wrong) = wrong.expect("the guard is needed");
    println!("seed {seed}: {}", wrong.lines().next().unwrap_or_default());
}

#[test]
fn a_waiter_whose_turn_has_come_unseen_is_renewed() {
    in_paused_time(async {
        let kv = SimKv::new(None);
        let link =
            Link::new(SimClient::new(&kv, fastrand::Rng::new(), Switch::default()), Duration::from_secs(2));
        let backend = play::backend(link, 0).await.unwrap();
        let claim = |seconds| {
            let ttl = Duration::from_secs(seconds);
            Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Exclusive, ttl).with_waiter_ttl(ttl))
        };
        let (holder, waiter) = (claim(2), claim(9));
        for claim in [&holder, &waiter] {
            backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        }
        sleep(Duration::from_secs(3)).await;
        kv.with_store(Store::sweep);
        let renewal = Renewal { claim: waiter.clone(), ttl: waiter.ttl(), order: 1 };
        let renewed = backend.clone().renew(vec![renewal]).await.pop().unwrap();
        assert!(renewed.is_ok(), "{renewed:?}");
    });
}
