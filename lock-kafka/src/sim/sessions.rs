//! What becomes of a client whose session ends, or that begins again.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lockcore::{BreakTarget, Claim, ErrorKind, Key, LockBackend, LockClient, Mode, Queue, Renew};
use tokio::time::{Instant, sleep, timeout};

use super::checkpoints::{UNTIL_DELETED, fill};
use super::client::SimClient;
use super::faulty::Faulty;
use super::in_paused_time;
use super::store::SimLog;
use super::stories::{DAY, TTL, appends, backend, halted, holds, settings};
use crate::backend::KafkaBackend;
use crate::errors::Halt;
use crate::record::{Id, Record};
use crate::settings::Settings;
use crate::what::What;

const SOON: Duration = Duration::from_millis(100);

/// A client whose process stands still when the switch says so.
async fn stopping(log: &Arc<SimLog>) -> (Switch, Arc<Faulty>, Arc<KafkaBackend>) {
    let switch = Switch::default();
    let faulty = Faulty::over(SimClient::new(log, fastrand::Rng::with_seed(7), switch.clone()));
    let backend = faulty.backend(&settings()).await;
    (switch, faulty, backend)
}

fn claim(key: &str) -> Arc<Claim> {
    Arc::new(Claim::new(Key::new(key).unwrap(), Mode::Exclusive, TTL))
}

#[test]
fn a_session_that_does_not_open_is_given_more_time_each_time() {
    in_paused_time(async {
        let store = SimLog::new();
        let log = Faulty::new(&store);
        let backend = log.backend(&Settings { window: 20, ..Settings::default() }).await;
        for _ in 0..2 {
            sleep(Duration::from_secs(1)).await;
            log.loses.store(usize::MAX, SeqCst);
            appends(&store, Id::random(), (0..40).map(|_| What::Barrier));
            let mut tried = Vec::new();
            let (mut known, mut begun) = (backend.partitions[0].inner().session.id, Instant::now());
            while tried.len() < 7 {
                sleep(Duration::from_millis(10)).await;
                let session = backend.partitions[0].inner().session.id;
                if session != known {
                    tried.push((begun.elapsed().as_secs_f64() * 2.0).round() / 2.0);
                    (known, begun) = (session, Instant::now());
                }
            }
            assert_eq!(tried, [0.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0], "in seconds");
            // The next one opens, and there is patience anew.
            log.loses.store(0, SeqCst);
            assert_eq!(halted(&backend).await, None);
        }
    });
}

#[test]
fn a_late_copy_of_its_records_does_not_end_a_session() {
    in_paused_time(async {
        let log = SimLog::new();
        let backend = backend(&log).await;
        assert_eq!(halted(&backend).await, None);
        let session = || backend.partitions[0].inner().session.id;
        let before = session();
        let open = log.with_replica(|replica| replica.genesis().unwrap().open(1));
        log.append(&Record::new(before, 0, open).encode());
        sleep(SOON).await;
        assert_eq!(session(), before);
    });
}

// S11, S19
#[test]
fn whoever_begins_again_knows_what_became_of_its_claims() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        let (switch, faulty, still) = stopping(&log).await;
        let locks = LockClient::builder(still.clone()).waiter_ttl(DAY).request_timeout(DAY).build();
        let others = LockClient::new(one.clone());
        let asked = |locks: &LockClient, key: &str| {
            locks.lock(key).unwrap().exclusive().ttl(DAY).renew(Renew::Manual).acquire()
        };
        let kept = asked(&locks, "kept").await.unwrap();
        let broken = asked(&locks, "broken").await.unwrap();
        let ahead = asked(&others, "handed over").await.unwrap();
        let waits = tokio::spawn(asked(&locks, "handed over"));
        let _ahead = asked(&others, "both broken").await.unwrap();
        let gone = tokio::spawn(asked(&locks, "both broken"));
        sleep(SOON).await;
        switch.turn(false);
        // The first record does not arrive, the second one does later.
        faulty.loses.store(1, SeqCst);
        let lost = tokio::spawn(asked(&locks, "lost"));
        let late = tokio::spawn(still.clone().acquire(claim("late"), Queue::Join));
        sleep(SOON).await;
        for key in ["broken", "both broken"] {
            others.lock(key).unwrap().break_claims(BreakTarget::All).await.unwrap();
        }
        ahead.release().await.unwrap();
        let read = still.partitions[0].inner().replica.next();
        for _ in 0..3 {
            fill(&one, 40).await;
            sleep(UNTIL_DELETED).await;
        }
        assert!(log.bounds().start > read, "what it was to read next is gone");
        // Somebody who dies, and only this client is there to see it.
        let dead = holds(&others, Renew::Manual).await.detach().unwrap();
        one.clone().close().await.unwrap();
        switch.turn(true);
        sleep(SOON).await;
        assert!(kept.is_held() && !broken.is_held());
        let joined_anew = timeout(SOON, gone).await.expect("it is told").unwrap().unwrap();
        assert!(joined_anew.is_held());
        let handed_over = timeout(SOON, waits).await.expect("it is told").unwrap().unwrap();
        let asked_again = timeout(TTL, lost).await.expect("it is asked again").unwrap().unwrap();
        assert!(handed_over.is_held() && asked_again.is_held());
        let late = timeout(SOON, late).await.expect("it is told").unwrap();
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Indeterminate);
        sleep(TTL * 2).await;
        let seen = still.clone().inspect(Key::new(dead.key()).unwrap()).await.unwrap();
        assert!(seen.holders.is_empty(), "{seen:?}");
    });
}

// The log of before is away, and another one has its place.
#[test]
fn whoever_begins_again_with_another_topic_halts() {
    in_paused_time(async {
        let (log, other) = (SimLog::new(), SimLog::new());
        let (switch, faulty, still) = stopping(&log).await;
        backend(&other).await;
        assert_eq!(halted(&still).await, None);
        switch.turn(false);
        appends(&log, Id::random(), [What::Barrier]);
        log.delete(log.bounds().end);
        faulty.is_made_anew(&other);
        switch.turn(true);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(halted(&still).await, Some(Halt::Replaced));
    });
}

// S11, S19
#[test]
fn whoever_closes_holds_on_and_does_not_wait() {
    in_paused_time(async {
        let log = SimLog::new();
        let (switch, _, backend) = stopping(&log).await;
        let guard = holds(&LockClient::new(backend.clone()), Renew::Manual).await;
        switch.turn(false);
        let under_way = claim("other");
        let asked = tokio::spawn(backend.clone().acquire(under_way.clone(), Queue::Join));
        sleep(SOON).await;
        backend.clone().close().await.unwrap();
        let asked = timeout(SOON, asked).await.expect("it is told").unwrap();
        assert_eq!(asked.unwrap_err().kind(), ErrorKind::Indeterminate);
        let is_known = backend.partitions[0].inner().registry.claim(under_way.id()).is_some();
        assert!(is_known, "it may be granted yet");
        let later = backend.clone().acquire(claim("other"), Queue::Join).await;
        assert_eq!(later.unwrap_err().kind(), ErrorKind::Closed);
        assert!(guard.is_held(), "as long as its lease lasts");
    });
}
