//! Who proposes the end of a lease, and what its holder says to that.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lockcore::{Claim, ClaimId, Key, LockBackend, LockClient, Mode, Queue};
use tokio::time::{Instant, advance, sleep};

use super::client::SimClient;
use super::faulty::Faulty;
use super::in_paused_time;
use super::store::SimLog;
use super::stories::{DAY, appends, backend, client, holds, said, settings};
use crate::backend::KafkaBackend;
use crate::record::{Id, Record};
use crate::settings::Settings;
use crate::what::{Join, Named, Renew, What};

fn claim_on(key: &str, ttl: Duration) -> Claim {
    Claim::new(Key::new(key).unwrap(), Mode::Exclusive, ttl).with_waiter_ttl(ttl)
}

/// Somebody has joined these claims, and has died.
fn died(log: &SimLog, claims: impl IntoIterator<Item = Claim>) {
    died_under(log, Id::random(), claims);
}

fn died_under(log: &SimLog, session: Id, claims: impl IntoIterator<Item = Claim>) {
    let joins = claims.into_iter().map(|claim| What::Acquire(Join::of(&claim, Queue::Join)));
    appends(log, session, joins);
}

/// How many leases each proposal in the log names.
fn proposals(log: &SimLog) -> Vec<usize> {
    let named = |what| {
        let What::Expire { leases, unanswered } = what else { return None };
        Some(leases.len() + unanswered.len())
    };
    said(log, 0).into_iter().filter_map(named).collect()
}

fn signs_of_life(log: &SimLog) -> usize {
    said(log, 0).iter().filter(|what| matches!(what, What::Alive { .. })).count()
}

fn is_there(log: &SimLog, id: ClaimId) -> bool {
    log.with_replica(|replica| replica.lease(id).is_some())
}

// S5: the next of them would hold it until somebody saw that it is dead as well.
#[test]
fn none_of_the_dead_is_handed_the_lock() {
    in_paused_time(async {
        let log = SimLog::new();
        let switch = Switch::default();
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
        let dead = KafkaBackend::over(vec![Arc::new(connection)], &settings()).await.unwrap();
        let other = client(&log).await;
        for _ in 0..2 {
            let claim = Arc::new(claim_on("k", Duration::from_secs(10)));
            dead.clone().acquire(claim, Queue::Join).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        switch.turn(false);
        holds(&other, lockcore::Renew::Automatic).await.release().await.unwrap();
        assert_eq!(proposals(&log), [2]);
    });
}

#[test]
fn whoever_waits_for_the_key_proposes_first_and_the_others_later() {
    in_paused_time(async {
        let log = SimLog::new();
        let (backend, ttl) = (backend(&log).await, Duration::from_secs(10));
        let locks = LockClient::new(backend.clone());
        for waits in [true, false] {
            let claim = claim_on("k", ttl);
            let renew = vec![Renew { claim: claim.id(), ttl_us: 10_000_000, order: 1 }];
            let session = Id::random();
            died_under(&log, session, [claim]);
            let asked = waits.then(|| {
                let locks = locks.clone();
                tokio::spawn(async move { holds(&locks, lockcore::Renew::Automatic).await })
            });
            sleep(Duration::from_secs(2)).await;
            // The last that it did.
            log.append(&Record::new(session, 2, What::Heartbeat { renew }).encode());
            let renewed = Instant::now();
            let mut after = renewed.elapsed();
            while proposals(&log).len() < if waits { 1 } else { 2 } {
                sleep(Duration::from_millis(10)).await;
                after = renewed.elapsed();
            }
            let others_turn = Duration::from_millis(10_400);
            assert_eq!(after < others_turn, waits, "after {after:?}");
            if let Some(asked) = asked {
                asked.await.unwrap().release().await.unwrap();
            }
        }
    });
}

#[test]
fn what_falls_due_is_done_though_there_is_always_more_to_read() {
    in_paused_time(async {
        let log = SimLog::new();
        let faulty = Faulty::new(&log);
        let _reads = faulty.backend(&Settings::default()).await;
        let claim = claim_on("k", Duration::from_secs(1));
        let id = claim.id();
        died(&log, [claim]);
        sleep(Duration::from_millis(100)).await;
        faulty.floods.store(true, SeqCst);
        appends(&log, Id::random(), []);
        for _ in 0..60 {
            advance(Duration::from_millis(50)).await;
        }
        assert!(!is_there(&log, id), "its lease of 1 s has been over for more than 1.5 s");
        faulty.floods.store(false, SeqCst);
    });
}

#[test]
fn all_that_is_over_at_once_fits_into_records() {
    in_paused_time(async {
        let log = SimLog::new();
        let connection = Arc::new(SimClient::steady(&log));
        let _reads = KafkaBackend::over(vec![connection], &Settings::default()).await.unwrap();
        died(&log, (0..2_100).map(|key| claim_on(&format!("k{key}"), Duration::from_secs(2))));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(log.with_replica(|replica| replica.claims().count()), 2_100);
        advance(Duration::from_secs(5)).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(log.with_replica(|replica| replica.claims().count()), 0);
        assert_eq!(proposals(&log), [2_000, 100]);
    });
}

// What it has not read may have set the lease anew.
#[test]
fn whoever_is_behind_proposes_nothing() {
    in_paused_time(async {
        let log = SimLog::new();
        let reads = backend(&log).await;
        let claim = claim_on("k", Duration::from_secs(2));
        let id = claim.id();
        died(&log, [claim]);
        sleep(Duration::from_millis(100)).await;
        reads.partitions[0].inner().end += 1;
        sleep(Duration::from_secs(10)).await;
        assert!(proposals(&log).is_empty());
        // It reads that the log does not go further.
        appends(&log, Id::random(), []);
        sleep(Duration::from_secs(1)).await;
        assert!(!is_there(&log, id));
    });
}

// S10
#[test]
fn a_sign_of_life_is_given_at_once_and_again_until_it_is_read() {
    in_paused_time(async {
        let log = SimLog::new();
        let faulty = Faulty::new(&log);
        let guard = holds(&LockClient::new(faulty.backend(&settings()).await), lockcore::Renew::Manual).await;
        log.set_skew(DAY);
        let id = guard.claim_id();
        let lease = || log.with_replica(|replica| *replica.lease(id).unwrap());
        let suspect = || What::Suspect { leases: vec![Named { claim: id, lease: lease().offset }] };
        appends(&log, Id::random(), [suspect()]);
        assert!(lease().suspected.is_some());
        sleep(Duration::from_millis(20)).await;
        assert_eq!((lease().suspected, signs_of_life(&log)), (None, 1));
        faulty.loses.store(3, SeqCst);
        appends(&log, Id::random(), [suspect()]);
        sleep(Duration::from_millis(20)).await;
        assert!(lease().suspected.is_some(), "the first one was lost");
        sleep(Duration::from_millis(980)).await;
        assert_eq!((lease().suspected, signs_of_life(&log)), (None, 2));
    });
}

#[test]
fn whoever_does_not_count_on_its_lease_any_more_gives_no_sign_of_life() {
    in_paused_time(async {
        let log = SimLog::new();
        let alone = backend(&log).await;
        let claim = Arc::new(claim_on("k", Duration::from_secs(30)));
        alone.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        let said = said(&log, 0);
        let asked = said.iter().position(|what| matches!(what, What::Suspect { .. })).expect("it is asked");
        let proposed = said[..asked].iter().filter(|what| matches!(what, What::Expire { .. }));
        assert_eq!(proposed.count(), 4, "with the question too: the log may know by then that it is over");
        assert!(!is_there(&log, claim.id()));
        assert_eq!(signs_of_life(&log), 0);
    });
}
