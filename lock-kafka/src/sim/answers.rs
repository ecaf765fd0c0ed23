//! What a client is told, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lockcore::{
    Attempt, BreakTarget, Claim, Conversion, ErrorKind, Key, KeyPrefix, LockBackend, LockClient, MAX_TTL,
    Mode, PageToken, Queue, Release, Released, Renew, Renewal,
};
use tokio::time::{Instant, sleep, timeout};

use super::checkpoints::{UNTIL_DELETED, fill};
use super::client::SimClient;
use super::faulty::Faulty;
use super::in_paused_time;
use super::store::{Found, SimLog};
use super::stories::{appends, backend, client, halted, holds};
use crate::backend::{KafkaBackend, MIN_TTL};
use crate::errors::Halt;
use crate::record::{Id, MAX_RECORD_BYTES};
use crate::settings::Settings;
use crate::what::{Join, What};

const TTL: Duration = Duration::from_secs(30);

fn claim() -> Arc<Claim> {
    Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Exclusive, TTL))
}

// S19: a record that was lost is known to be lost as soon as a later one was read.
#[test]
fn whose_record_was_lost_is_told_that_nothing_happened() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        let backend = log.backend(&Settings::default()).await;
        assert_eq!(halted(&backend).await, None);
        log.loses.store(1, SeqCst);
        let asked = timeout(Duration::from_secs(1), backend.clone().acquire(claim(), Queue::Join)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(backend.partitions[0].inner().registry.ids().is_empty());
    });
}

// S18
#[test]
fn who_does_not_wait_any_more_is_forgotten_however_long_brokers_are_away() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        let backend = log.backend(&Settings::default()).await;
        log.loses.store(usize::MAX, SeqCst);
        for _ in 0..5_000 {
            let asked = timeout(Duration::from_millis(1), backend.clone().acquire(claim(), Queue::Join));
            assert!(asked.await.is_err());
        }
        let under_way = backend.partitions[0].inner().pending.len();
        assert!(under_way <= 1_024, "{under_way}");
    });
}

// S10: the log's clock is behind when little is written. What it says is left is more than what may be counted on.
#[test]
fn what_is_left_of_a_lease_counts_from_when_it_was_set() {
    in_paused_time(async {
        let backend = backend(&SimLog::new()).await;
        let claim = claim();
        backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        let renew = |order| {
            let renewal = Renewal { claim: claim.clone(), ttl: TTL, order };
            let backend = backend.clone();
            async move { backend.renew(vec![renewal]).await.remove(0).unwrap().left }
        };
        assert_eq!(renew(5).await, TTL);
        sleep(Duration::from_secs(25)).await;
        let little = Duration::from_secs(4)..=Duration::from_secs(5);
        let late = renew(3).await;
        assert!(little.contains(&late), "a late renewal: {late:?}");
        let conversion = Conversion { claim: claim.clone(), to: Mode::Shared, order: 6 };
        let converted = backend.clone().convert(conversion).await;
        assert!(
            matches!(&converted, Ok(Attempt::Granted(lease)) if little.contains(&lease.left)),
            "{converted:?}"
        );
        let withdrawal = Release { claim: claim.clone(), answered: true, only_waiting: true };
        let found = backend.clone().release(vec![withdrawal]).await.remove(0);
        assert!(matches!(&found, Ok(Released::Granted(lease)) if little.contains(&lease.left)), "{found:?}");
    });
}

// S10: what counts is when it was sent, however late it was read.
#[test]
fn a_lease_counts_from_before_its_record_was_sent() {
    in_paused_time(async {
        let log = SimLog::new();
        let other = backend(&log).await;
        let switch = Switch::default();
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
        let backend = KafkaBackend::over(vec![Arc::new(connection)], &Settings::default()).await.unwrap();
        let shared =
            |ttl| Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Shared, ttl).with_waiter_ttl(ttl));
        other.acquire(shared(TTL * 2), Queue::Join).await.unwrap();
        switch.turn(false);
        let claim = shared(TTL);
        let asked = tokio::spawn(backend.clone().acquire(claim.clone(), Queue::Join));
        sleep(Duration::from_secs(3)).await;
        switch.turn(true);
        assert!(matches!(asked.await.unwrap(), Ok(Attempt::Granted(_))));
        sleep(Duration::from_secs(20)).await;
        let conversion = Conversion { claim, to: Mode::Exclusive, order: 1 };
        let upgrading = backend.clone().convert(conversion).await;
        let Ok(Attempt::Queued(queued)) = upgrading else { panic!("{upgrading:?}") };
        let left = Duration::from_millis(6_900)..=Duration::from_secs(7);
        assert!(left.contains(&queued.left), "{queued:?}");
        assert_eq!(queued.recheck, None, "whoever watches the leases tells it");
    });
}

// S19
#[test]
fn whose_record_was_not_sent_is_told_at_once() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        let backend = log.backend(&Settings::default()).await;
        assert_eq!(halted(&backend).await, None);
        log.refuses.store(1, SeqCst);
        let asked = timeout(Duration::from_secs(1), backend.clone().acquire(claim(), Queue::Join)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::Unavailable);
        let held = claim();
        backend.clone().acquire(held.clone(), Queue::Join).await.unwrap();
        assert_eq!(backend.partitions[0].inner().registry.ids(), [held.id()]);
        log.refuses.store(1, SeqCst);
        let release = Release { claim: held, answered: true, only_waiting: false };
        let released = backend.clone().release(vec![release]).await.remove(0);
        assert_eq!(released.unwrap_err().kind(), ErrorKind::Unavailable);
        let ids = backend.partitions[0].inner().registry.ids();
        assert!(ids.is_empty(), "whatever became of it, nobody here counts on it");
        let owner = BreakTarget::Owner("o".repeat(MAX_RECORD_BYTES).into());
        let asked =
            timeout(Duration::from_secs(1), backend.break_claims(Key::new("k").unwrap(), owner)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::InvalidArgument);
    });
}

// S5
#[test]
fn a_waiter_that_asks_to_be_renewed_still_hears_of_its_grant() {
    in_paused_time(async {
        let backend = backend(&SimLog::new()).await;
        backend.clone().acquire(claim(), Queue::Join).await.unwrap();
        let waits = claim();
        let queued = backend.clone().acquire(waits.clone(), Queue::Join).await;
        assert!(matches!(queued, Ok(Attempt::Queued(queued)) if queued.recheck.is_none()));
        let renewal = Renewal { claim: waits.clone(), ttl: TTL, order: 1 };
        let renewed = backend.clone().renew(vec![renewal]).await.remove(0);
        assert_eq!(renewed.unwrap_err().kind(), ErrorKind::Lost);
        assert!(backend.partitions[0].inner().registry.claim(waits.id()).is_some());
    });
}

#[test]
fn nothing_is_known_of_claims_that_are_over() {
    in_paused_time(async {
        let backend = backend(&SimLog::new()).await;
        let known = || backend.partitions[0].inner().registry.ids();
        let [held, tried] = [claim(), claim()];
        backend.clone().acquire(held.clone(), Queue::Join).await.unwrap();
        backend.clone().acquire(tried.clone(), Queue::Never).await.unwrap();
        assert_eq!(known(), [held.id()]);
        let renewal = Renewal { claim: tried, ttl: TTL, order: 1 };
        assert!(backend.clone().renew(vec![renewal]).await.remove(0).is_err());
        assert_eq!(known(), [held.id()]);
        let withdrawal = Release { claim: held.clone(), answered: true, only_waiting: true };
        backend.clone().release(vec![withdrawal]).await.remove(0).unwrap();
        assert_eq!(known(), [held.id()], "it was granted");
        backend.clone().break_claims(held.key().clone(), BreakTarget::All).await.unwrap();
        assert!(known().is_empty());
        let never = Release { claim: held.clone(), answered: true, only_waiting: true };
        backend.partitions[0].inner().registry.add(&held);
        backend.clone().release(vec![never]).await.remove(0).unwrap();
        assert!(known().is_empty());
    });
}

// A record with another lease would be skipped by all, and never answered.
#[test]
fn leases_that_are_too_short_or_too_long_are_made_to_fit() {
    in_paused_time(async {
        let backend = backend(&SimLog::new()).await;
        let short = Duration::from_millis(10);
        let claims: Vec<_> =
            (0..2).map(|_| Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Exclusive, short))).collect();
        let asked = backend.clone().acquire(claims[0].clone(), Queue::Join).await;
        assert!(matches!(asked, Ok(Attempt::Granted(lease)) if lease.left == MIN_TTL));
        let asked = backend.clone().acquire(claims[1].clone(), Queue::Join).await;
        assert!(matches!(asked, Ok(Attempt::Queued(queued)) if queued.left == MIN_TTL));
        for (order, ttl, left) in [(1, short, MIN_TTL), (2, Duration::MAX, MAX_TTL)] {
            let renewal = Renewal { claim: claims[0].clone(), ttl, order };
            let renewed = timeout(Duration::from_secs(1), backend.clone().renew(vec![renewal])).await;
            assert_eq!(renewed.expect("it is answered").remove(0).unwrap().left, left);
        }
    });
}

// S21: it is the state as at some moment of the call.
#[test]
fn a_listing_has_all_that_was_in_the_log() {
    in_paused_time(async {
        let log = SimLog::new();
        let backend = backend(&log).await;
        assert_eq!(halted(&backend).await, None);
        appends(&log, Id::random(), [What::Acquire(Join::of(&claim(), Queue::Join))]);
        let page = backend.list(KeyPrefix::new("").unwrap(), PageToken::default()).await.unwrap();
        assert_eq!(page.keys, [Key::new("k").unwrap()]);
    });
}

// S5, S15
#[test]
fn grants_and_ends_are_told_as_they_are_read() {
    in_paused_time(async {
        let log = SimLog::new();
        let (one, other) = (client(&log).await, client(&log).await);
        let guard = holds(&one, Renew::Manual).await;
        let next = tokio::spawn(async move { (holds(&other, Renew::Manual).await, Instant::now()) });
        sleep(Duration::from_secs(1)).await;
        let released = Instant::now();
        guard.release().await.unwrap();
        let (guard, granted) = next.await.unwrap();
        assert!(granted - released < Duration::from_millis(20), "{:?}", granted - released);
        one.lock("k").unwrap().break_claims(BreakTarget::Holders).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(!guard.is_held());
    });
}

// A session that was silent for too long is begun anew; the first record of that may be lost.
#[test]
fn a_session_that_does_not_open_is_begun_anew() {
    in_paused_time(async {
        let store = SimLog::new();
        let log = Faulty::new(&store);
        let backend = log.backend(&Settings { window: 20, ..Settings::default() }).await;
        sleep(Duration::from_secs(1)).await;
        log.loses.store(1, SeqCst);
        appends(&store, Id::random(), (0..40).map(|_| What::Barrier));
        sleep(Duration::from_millis(100)).await;
        let looked = timeout(Duration::from_secs(3), backend.inspect(Key::new("k").unwrap())).await;
        looked.expect("it is begun anew after 2 s").unwrap();
    });
}

#[test]
fn whoever_stood_still_for_longer_than_a_window_is_heard_at_once() {
    in_paused_time(async {
        let log = SimLog::new();
        let settings =
            Settings { window: 100, checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
        let one = KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings).await.unwrap();
        let switch = Switch::default();
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
        let still = KafkaBackend::over(vec![Arc::new(connection)], &settings).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        switch.turn(false);
        for _ in 0..3 {
            fill(&one, 100).await;
            sleep(UNTIL_DELETED).await;
        }
        let (end, start) = (log.bounds().end, log.bounds().start);
        assert!(start > 100, "what it was to read next is gone: {start}");
        switch.turn(true);
        sleep(Duration::from_millis(100)).await;
        still.inspect(Key::new("k").unwrap()).await.unwrap();
        let Found::Records { entries: since, .. } = log.read(end, None, usize::MAX) else {
            panic!("nothing is missing")
        };
        let opens = since.iter().filter(|entry| String::from_utf8_lossy(&entry.bytes).contains("\"open\""));
        assert_eq!(opens.count(), 1);
    });
}

#[test]
fn a_newcomer_goes_on_searching_a_log_that_is_shortened_meanwhile() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        for _ in 0..3 {
            fill(&one, 40).await;
        }
        sleep(UNTIL_DELETED).await;
        assert!(log.bounds().start > 0);
        let newcomer = Faulty::new(&log);
        newcomer.shortened.store(8, SeqCst);
        let begun = newcomer.backend(&Settings::default()).await;
        assert_eq!(halted(&begun).await, None);
        assert_eq!(newcomer.shortened.load(SeqCst), 0);
    });
}

// S11, S19
#[test]
fn a_reader_that_panics_is_told_to_all() {
    in_paused_time(async {
        let store = SimLog::new();
        let log = Faulty::new(&store);
        let backend = log.backend(&Settings::default()).await;
        let guard = holds(&LockClient::new(backend.clone()), Renew::Automatic).await;
        log.panics.store(true, SeqCst);
        let asked = timeout(Duration::from_secs(1), backend.clone().acquire(claim(), Queue::Join)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::Indeterminate);
        assert!(!guard.is_held());
        assert_eq!(halted(&backend).await, Some(Halt::Panicked));
    });
}
