//! What happens to logs and clients that random work does not come to, or would not show.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lockcore::{
    Attempt, Claim, ErrorKind, Exclusive, Key, LockBackend, LockClient, LockGuard, Mode, Queue, Renew,
};
use tokio::time::{Instant, sleep};

use super::client::SimClient;
use super::in_paused_time;
use super::store::{Found, SimLog};
use crate::backend::KafkaBackend;
use crate::errors::Halt;
use crate::log::Entry;
use crate::record::{Id, Read, Record};
use crate::settings::Settings;
use crate::what::{Genesis, What};

pub(super) const TTL: Duration = Duration::from_secs(30);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Checkpoints soon, everything else as usual.
pub(super) fn settings() -> Settings {
    Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() }
}

pub(super) async fn backend(log: &Arc<SimLog>) -> Arc<KafkaBackend> {
    KafkaBackend::over(vec![Arc::new(SimClient::steady(log))], &settings()).await.unwrap()
}

pub(super) async fn client(log: &Arc<SimLog>) -> LockClient {
    LockClient::new(backend(log).await)
}

pub(super) async fn holds(client: &LockClient, renew: Renew) -> LockGuard<Exclusive> {
    client.lock("k").unwrap().exclusive().ttl(TTL).renew(renew).acquire().await.unwrap()
}

async fn is_free(client: &LockClient) -> bool {
    client.lock("k").unwrap().exclusive().try_acquire().await.unwrap().is_some()
}

/// Why nothing more is read, as every request says.
pub(super) async fn halted(backend: &Arc<KafkaBackend>) -> Option<Halt> {
    let error = backend.clone().inspect(Key::new("k").unwrap()).await.err()?;
    std::error::Error::source(&error)?.downcast_ref::<Halt>().cloned()
}

/// Appends records of somebody else.
pub(super) fn appends(log: &SimLog, session: Id, whats: impl IntoIterator<Item = What>) {
    let end = log.bounds().end;
    let open = log.with_replica(|replica| replica.genesis().unwrap().open(end));
    for (seq, what) in std::iter::once(open).chain(whats).enumerate() {
        log.append(&Record::new(session, seq.try_into().unwrap(), what).encode());
    }
}

/// What is said in a log from this offset on.
pub(super) fn said(log: &SimLog, from: u64) -> Vec<What> {
    let Found::Records { entries, .. } = log.read(from, None, usize::MAX) else { return Vec::new() };
    let what = |entry: Entry| match Record::decode(&entry.bytes) {
        Ok(Read::Record(record)) => Some(record.what),
        Ok(Read::Skipped) | Err(_) => None,
    };
    entries.into_iter().filter_map(what).collect()
}

// S6: nobody was there to see that its lease is over.
#[test]
fn a_holder_that_died_long_ago_is_let_go_after_the_grace() {
    in_paused_time(async {
        let log = SimLog::new();
        let (_dead, _guard) = {
            let switch = Switch::default();
            let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
            let backend = KafkaBackend::over(vec![Arc::new(connection)], &settings()).await.unwrap();
            let guard = holds(&LockClient::new(backend), Renew::Automatic).await;
            switch.turn(false);
            (switch, guard)
        };
        sleep(DAY).await;
        let (fresh, begun) = (client(&log).await, Instant::now());
        assert!(!is_free(&fresh).await, "a try does not wait for the grace");
        drop(holds(&fresh, Renew::Automatic).await);
        let took = begun.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
        // Nobody has waited for it: a sign of life would have counted.
        let ends =
            said(&log, 0).into_iter().filter(|what| matches!(what, What::Expire { .. })).collect::<Vec<_>>();
        let by_silence = |what: &What| matches!(what, What::Expire { leases, unanswered } if leases.is_empty() && unanswered.len() == 1);
        assert!(!ends.is_empty() && ends.iter().all(by_silence));
    });
}

// S6: its client has gone, and the others see that its lease is over.
#[test]
fn what_was_left_behind_ends_with_its_lease() {
    in_paused_time(async {
        for quiet in [false, true] {
            let log = SimLog::new();
            let (gone, other) = (client(&log).await, client(&log).await);
            let begun = Instant::now();
            drop(holds(&gone, Renew::Automatic).await.detach());
            gone.close().await.unwrap();
            if quiet {
                // Nobody asks, and nothing is written meanwhile: the log's clock is behind, and the stamps have to tell. That takes
                // the margin of 5 s, the grace of 2 s, one per cent of the lease, and what whoever does not wait takes its time.
                sleep(TTL + Duration::from_secs(9)).await;
                assert!(is_free(&other).await, "somebody saw to it");
            } else {
                drop(holds(&other, Renew::Automatic).await);
                let took = begun.elapsed();
                assert!((TTL..TTL + Duration::from_secs(1)).contains(&took), "{took:?}");
            }
        }
    });
}

// S10: the broker's clock is set forward by a day, and the lease was not to be renewed.
#[test]
fn a_holder_that_answers_outlives_a_clock_that_is_set_forward() {
    in_paused_time(async {
        let log = SimLog::new();
        let (one, other) = (client(&log).await, client(&log).await);
        let guard = holds(&one, Renew::Manual).await;
        log.set_skew(DAY);
        for _ in 0..20 {
            assert!(!is_free(&other).await);
            sleep(Duration::from_secs(1)).await;
        }
        assert!(guard.is_held());
        sleep(Duration::from_secs(15)).await;
        assert!(!guard.is_held() && is_free(&other).await, "its own clock says that it is over");
    });
}

// The acknowledgement is not the answer, in either direction.
#[test]
fn what_is_in_the_log_counts() {
    in_paused_time(async {
        let log = SimLog::new();
        let switch = Switch::default();
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
        let backend = KafkaBackend::over(vec![Arc::new(connection)], &settings()).await.unwrap();
        let observer = client(&log).await;
        let claim = Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Exclusive, TTL));
        // It is sent when its process goes on: by then another has the lock.
        switch.turn(false);
        let late = tokio::spawn(backend.clone().acquire(claim.clone(), Queue::Join));
        sleep(Duration::from_millis(10)).await;
        let guard = holds(&observer, Renew::Automatic).await;
        switch.turn(true);
        assert!(matches!(late.await.unwrap(), Ok(Attempt::Queued(_))));
        guard.release().await.unwrap();
        assert!(matches!(backend.clone().acquire(claim, Queue::Join).await, Ok(Attempt::Granted(_))));
    });
}

// S2, S12
#[test]
fn a_truncated_log_halts_its_readers_and_tokens_go_on() {
    in_paused_time(async {
        let log = SimLog::new();
        let old = backend(&log).await;
        let locks = LockClient::new(old.clone());
        let guard = holds(&locks, Renew::Automatic).await;
        let before = guard.fence().token;
        log.truncate(1);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(halted(&old).await, Some(Halt::Truncated));
        assert!(!guard.is_held(), "its grant is not in the log any more");
        let guard = holds(&client(&log).await, Renew::Automatic).await;
        assert!(guard.fence().token > before, "{} after {before}", guard.fence().token);
    });
}

#[test]
fn a_version_that_is_not_known_halts_and_what_is_not_ours_does_not() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        log.append(b"{\"identifier\":\"example_identifier\"}");
        assert_eq!(halted(&one).await, None);
        log.append(b"{\"v\":2,\"type\":\"barrier\"}");
        sleep(Duration::from_millis(100)).await;
        assert_eq!(halted(&one).await, Some(Halt::Version(2)));
        let error =
            KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}

// Whoever took another one would hold beside the others.
#[test]
fn a_key_is_in_the_same_partition_for_every_program() {
    in_paused_time(async {
        let logs: Vec<_> = (0..3).map(|_| SimLog::new()).collect();
        let connections =
            logs.iter().map(|log| Arc::new(SimClient::steady(log)) as Arc<dyn crate::Log>).collect();
        let backend = KafkaBackend::over(connections, &settings()).await.unwrap();
        for (text, which) in [("a", 1), ("k", 2), ("ключ", 0), ("invoices/2026-11", 2)] {
            let key = Key::new(text).unwrap();
            let claim = Arc::new(Claim::new(key.clone(), Mode::Exclusive, TTL));
            backend.clone().acquire(claim, Queue::Join).await.unwrap();
            let there =
                logs.iter().position(|log| log.with_replica(|replica| !replica.claims_on(&key).is_empty()));
            assert_eq!(there, Some(which), "{text}");
        }
    });
}

#[test]
fn partitions_that_do_not_belong_together_are_refused() {
    in_paused_time(async {
        let logs = [SimLog::new(), SimLog::new()];
        let genesis = |partitions| -> Genesis { settings().genesis(Id::random(), partitions) };
        let begin = |log: &SimLog, genesis| {
            log.append(&Record::new(Id::random(), 0, What::Genesis(genesis)).encode());
        };
        let connect = |count: usize| {
            let connections =
                logs[..count].iter().map(|log| Arc::new(SimClient::steady(log)) as Arc<dyn crate::Log>);
            let connections = connections.collect();
            async move { KafkaBackend::over(connections, &settings()).await.err().map(|error| error.kind()) }
        };
        begin(&logs[0], genesis(2));
        assert_eq!(connect(1).await, Some(ErrorKind::Conflict), "it has two partitions");
        begin(&logs[1], Genesis { partition: 1, ..genesis(2) });
        assert_eq!(connect(2).await, Some(ErrorKind::Conflict), "of another incarnation");
    });
}

#[test]
fn partitions_that_are_mixed_up_are_refused() {
    in_paused_time(async {
        let logs = [SimLog::new(), SimLog::new()];
        let connect = |order: [usize; 2]| {
            let connections = order.map(|at| Arc::new(SimClient::steady(&logs[at])) as Arc<dyn crate::Log>);
            async move {
                let connected = KafkaBackend::over(connections.into(), &settings()).await;
                connected.err().map(|error| error.kind())
            }
        };
        assert_eq!(connect([0, 1]).await, None);
        assert_eq!(
            connect([1, 0]).await,
            Some(ErrorKind::Conflict),
            "each would look where the other does not"
        );
        assert_eq!(connect([1, 1]).await, Some(ErrorKind::Conflict));
        assert_eq!(connect([0, 1]).await, None);
    });
}

#[test]
fn settings_with_which_no_lock_works_are_refused() {
    in_paused_time(async {
        let zero = Duration::ZERO;
        for wrong in [
            Settings { grace: zero, ..settings() },
            Settings { step: zero, ..settings() },
            Settings { margin: Duration::MAX, ..settings() },
            Settings { window: 0, ..settings() },
            Settings { checkpoint_every: std::num::NonZeroU64::MIN, ..settings() },
        ] {
            let log: Arc<dyn crate::Log> = Arc::new(SimClient::steady(&SimLog::new()));
            let refused = KafkaBackend::over(vec![log], &wrong).await.map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{wrong:?}");
        }
    });
}

#[test]
fn a_client_that_reads_is_heard_however_long_it_is_silent() {
    in_paused_time(async {
        let log = SimLog::new();
        let settings = Settings { window: 20, ..settings() };
        let quiet = KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let session = || quiet.partitions[0].inner().session.id;
        let first = session();
        for _ in 0..100 {
            appends(&log, Id::random(), [What::Barrier]);
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(session(), first);
        assert!(quiet.partitions[0].inner().replica.knows(first));
    });
}

#[test]
fn a_client_that_was_silent_for_a_window_introduces_itself_anew() {
    in_paused_time(async {
        let log = SimLog::new();
        let (quiet, busy) = (backend(&log).await, backend(&log).await);
        let session = || quiet.partitions[0].inner().session.id;
        let first = session();
        let window = usize::try_from(Settings::default().window).unwrap();
        let records = (0..window + 40).map(|_| What::Barrier);
        appends(&log, Id::random(), records);
        sleep(Duration::from_secs(120)).await;
        assert_eq!(halted(&quiet).await, None);
        assert_ne!(session(), first);
        assert_eq!(halted(&busy).await, None);
    });
}

#[test]
fn a_mark_at_the_end_of_the_log_keeps_nobody_waiting() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = client(&log).await;
        let left = holds(&one, Renew::Manual).await.detach();
        log.mark();
        let begun = Instant::now();
        let newcomer = client(&log).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(!is_free(&newcomer).await);
        // Whoever has read up to the mark has read all, and proposes; how late that is, see above.
        log.mark();
        sleep(TTL + Duration::from_secs(9)).await;
        assert!(is_free(&newcomer).await, "somebody saw to it");
        drop(left);
    });
}
