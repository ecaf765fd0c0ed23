//! What clients do in every order, and what goes wrong when a guard is missing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Attempt, BreakTarget, Claim, ClaimId, Conversion, Key, LockBackend, Mode, Queue, Release, Released,
    Renewal,
};
use tokio::time::timeout;

use super::orders::{From, LOOK, Played, Stage, Story, play_all};
use super::without::Without;

const TTL: Duration = Duration::from_secs(5);
const OWNER: &str = "ann";

fn key() -> Key {
    Key::new("k").unwrap()
}

fn claim(stage: &Stage, mode: Mode) -> Claim {
    // Names in the order of the clients, so that two runs differ by nothing else.
    let id = ClaimId::from_bits(0x1111 << (16 * stage.client));
    Claim::new(key(), mode, TTL).with_id(id).with_waiter_ttl(TTL).keeping(true)
}

impl Stage {
    /// Joins, and waits for its turn; whether it came.
    async fn join(&self, claim: &Arc<Claim>, again: bool) -> bool {
        self.begins(false).await;
        let mut attempt = self.backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        self.begins(true).await;
        if again && matches!(attempt, Attempt::Queued(_)) {
            attempt = self.backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        }
        let served = match attempt {
            Attempt::Granted(_) => true,
            Attempt::Queued(_) => self.until_holder(claim.id(), claim.mode()).await,
            Attempt::Busy | Attempt::Gone => false,
        };
        if served {
            self.enter(claim.id(), claim.mode());
        }
        served
    }

    async fn release(&self, claim: &Arc<Claim>, answered: bool, only_waiting: bool) -> Released {
        self.leave(claim.id());
        let release = Release { claim: claim.clone(), answered, only_waiting };
        self.backend.clone().release(vec![release]).await.pop().unwrap().unwrap()
    }

    async fn hold(self, claim: Claim, again: bool) {
        let claim = Arc::new(claim);
        self.join(&claim, again).await;
        self.release(&claim, true, false).await;
    }

    async fn upgrade(&self, claim: &Arc<Claim>) {
        let conversion = Conversion { claim: claim.clone(), to: Mode::Exclusive, order: 1 };
        let alone = match self.backend.clone().convert(conversion).await {
            Ok(Attempt::Granted(_)) => true,
            Ok(_) => self.until_holder(claim.id(), Mode::Exclusive).await,
            // Another one waits already.
            Err(_) => false,
        };
        self.leave(claim.id());
        if alone {
            self.enter(claim.id(), Mode::Exclusive);
        }
    }
}

fn exclusive(stage: Stage) -> Told {
    let claim = claim(&stage, Mode::Exclusive);
    Box::pin(stage.hold(claim, false))
}

fn shared(stage: Stage) -> Told {
    let claim = claim(&stage, Mode::Shared);
    Box::pin(stage.hold(claim, false))
}

fn shared_with_heartbeat(stage: Stage) -> Told {
    let claim = claim(&stage, Mode::Shared);
    Box::pin(stage.hold(claim, true))
}

fn permit(stage: Stage) -> Told {
    let claim = claim(&stage, Mode::Permit { at_most: NonZeroU32::MIN });
    Box::pin(stage.hold(claim, false))
}

fn owned(stage: Stage) -> Told {
    let claim = claim(&stage, Mode::Exclusive).with_owner(Some(OWNER.into()));
    Box::pin(stage.hold(claim, false))
}

fn takes_over(stage: Stage) -> Told {
    Box::pin(async move {
        stage.opens().await;
        let claim = claim(&stage, Mode::Exclusive).with_owner(Some(OWNER.into())).taking_over(true);
        stage.hold(claim, false).await;
    })
}

fn upgrades(stage: Stage) -> Told {
    Box::pin(async move {
        let claim = Arc::new(claim(&stage, Mode::Shared));
        if stage.join(&claim, false).await {
            stage.upgrade(&claim).await;
        }
        stage.release(&claim, true, false).await;
    })
}

/// Its claim is moved to another lease while it is upgraded.
fn upgrades_and_renews(stage: Stage) -> Told {
    Box::pin(async move {
        let claim = Arc::new(claim(&stage, Mode::Shared));
        if stage.join(&claim, false).await {
            let renewal = Renewal { claim: claim.clone(), ttl: 2 * TTL, order: 1 };
            let renewed = stage.backend.clone().renew(vec![renewal]);
            tokio::join!(renewed, stage.upgrade(&claim));
        }
        stage.release(&claim, true, false).await;
    })
}

fn downgrades(stage: Stage) -> Told {
    Box::pin(async move {
        let claim = Arc::new(claim(&stage, Mode::Exclusive));
        if stage.join(&claim, false).await {
            stage.leave(claim.id());
            let conversion = Conversion { claim: claim.clone(), to: Mode::Shared, order: 1 };
            if stage.backend.clone().convert(conversion).await.is_ok() {
                stage.enter(claim.id(), Mode::Shared);
            }
        }
        stage.release(&claim, true, false).await;
    })
}

/// Waits no longer than until it is queued.
fn withdraws(stage: Stage) -> Told {
    Box::pin(async move {
        let claim = Arc::new(claim(&stage, Mode::Exclusive));
        stage.begins(false).await;
        stage.backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        stage.begins(true).await;
        if let Released::Granted(_) = stage.release(&claim, true, true).await {
            stage.enter(claim.id(), Mode::Exclusive);
            stage.release(&claim, true, false).await;
        }
    })
}

/// Gives up before its request is done: that may still be, at any time.
fn gives_up(stage: Stage) -> Told {
    Box::pin(async move {
        // So that its lease is there: what is given up is the join itself.
        let other = Claim::new(Key::new("other").unwrap(), Mode::Exclusive, TTL).keeping(true);
        let other = Arc::new(other);
        stage.backend.clone().acquire(other.clone(), Queue::Join).await.unwrap();
        stage.release(&other, true, false).await;
        stage.opens().await;
        let claim = Arc::new(claim(&stage, Mode::Exclusive));
        let asked = timeout(3 * LOOK, stage.backend.clone().acquire(claim.clone(), Queue::Join)).await;
        assert!(asked.is_err(), "it was to be given up");
        stage.release(&claim, false, false).await;
    })
}

/// Does not wait for the answer to its release, which may be done at any time, and comes again.
fn leaves_and_comes_again(stage: Stage) -> Told {
    Box::pin(async move {
        let first = Arc::new(claim(&stage, Mode::Exclusive));
        stage.join(&first, false).await;
        stage.leave(first.id());
        let release = Release { claim: first.clone(), answered: true, only_waiting: false };
        // It may be served before it is given up.
        drop(timeout(3 * LOOK, stage.backend.clone().release(vec![release])).await);
        stage.release(&first, true, false).await;
        let id = ClaimId::from_bits(0x2222 << (16 * stage.client));
        let second = Arc::new(claim(&stage, Mode::Exclusive).with_id(id));
        stage.join(&second, false).await;
        // While it holds, what is late may be done.
        stage.backend.clone().inspect(key()).await.unwrap();
        assert_eq!(stage.release(&second, true, false).await, Released::Released);
    })
}

fn breaks(stage: Stage) -> Told {
    Box::pin(async move {
        stage.opens().await;
        stage.backend.clone().break_claims(key(), BreakTarget::Holders).await.unwrap();
    })
}

type Told = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn fine(from: From, stories: &[Story]) {
    let Played { states, ends } = play_all(from, stories, None).unwrap();
    println!("{states} states, {ends} ends");
    assert!(states > 20 && ends > 3, "{states} states, {ends} ends");
}

fn wrong(from: From, stories: &[Story], without: Without) -> String {
    let wrong = play_all(from, stories, Some(without)).expect_err("the guard is needed");
    println!("{wrong}");
    wrong
}

#[test]
fn three_join_and_are_served() {
    fine(From::Nothing, &[exclusive, exclusive, exclusive]);
    fine(From::Nothing, &[exclusive, shared, shared]);
    fine(From::Queue, &[exclusive, shared_with_heartbeat, shared_with_heartbeat]);
}

#[test]
fn permits_are_counted() {
    fine(From::Nothing, &[permit, permit]);
    fine(From::Nothing, &[permit, shared]);
    fine(From::Queue, &[permit, shared_with_heartbeat, withdraws]);
}

#[test]
fn upgrades_are_alone() {
    fine(From::Nothing, &[upgrades, exclusive]);
    fine(From::Nothing, &[upgrades, upgrades]);
    fine(From::Nothing, &[upgrades_and_renews, shared]);
    fine(From::Queue, &[upgrades, upgrades, exclusive]);
    fine(From::Queue, &[upgrades, withdraws, shared]);
}

#[test]
fn downgrades_let_in_whom_they_can() {
    fine(From::Nothing, &[downgrades, shared]);
    fine(From::Queue, &[downgrades, shared_with_heartbeat, exclusive]);
}

#[test]
fn take_overs_and_breaks_end_what_they_name() {
    fine(From::Nothing, &[owned, takes_over]);
    fine(From::Queue, &[owned, exclusive, takes_over]);
    fine(From::Queue, &[exclusive, shared, takes_over]);
    fine(From::Nothing, &[exclusive, breaks, shared]);
    fine(From::Queue, &[upgrades, exclusive, breaks]);
}

#[test]
fn whoever_gives_up_leaves_nothing() {
    fine(From::Nothing, &[gives_up, exclusive, shared]);
    fine(From::Nothing, &[exclusive, withdraws, shared]);
    fine(From::Nothing, &[leaves_and_comes_again, exclusive]);
    fine(From::Queue, &[leaves_and_comes_again, exclusive]);
}

#[test]
fn without_the_mod_revision_two_are_inside() {
    let wrong = wrong(From::Nothing, &[upgrades_and_renews, shared], Without::ModRevision);
    assert!(wrong.contains("inside") || wrong.contains("together"), "{wrong}");
}

#[test]
fn without_the_markers_one_is_let_in_past_an_upgrade() {
    let wrong = wrong(From::Queue, &[shared, upgrades, withdraws, shared], Without::Markers);
    assert!(wrong.contains("past the upgrade") || wrong.contains("together"), "{wrong}");
}

#[test]
fn without_a_memory_of_what_has_ended_a_late_request_comes_back() {
    let wrong = wrong(From::Nothing, &[gives_up, exclusive, shared], Without::Ended);
    assert!(wrong.contains("stuck"), "{wrong}");
}
