//! Checkpoints: who writes them, what they may say, and who begins with them.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::simulation::Switch;
use lockcore::{Key, LockBackend, LockClient, Renew};
use tokio::time::sleep;

use super::client::SimClient;
use super::in_paused_time;
use super::store::{Found, SimLog};
use super::stories::{TTL, appends, backend, halted, holds, settings};
use crate::backend::KafkaBackend;
use crate::checkpoint::{Checkpoint, Part};
use crate::errors::Halt;
use crate::fold::Replica;
use crate::record::{Id, Read, Record};
use crate::settings::Settings;
use crate::what::What;

#[test]
fn a_checkpoint_that_is_not_what_the_log_led_to_halts_everybody() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        fill(&one, 40).await;
        assert_eq!(halted(&one).await, None);
        let image = log.with_replica(Replica::image).unwrap();
        let at_offset = (log.bounds().end / 16 + 1) * 16;
        let wrong = Checkpoint::new(at_offset, &image);
        // Before anybody writes the right one.
        while log.bounds().end <= at_offset {
            one.clone().inspect(Key::new("k").unwrap()).await.unwrap();
        }
        writes(&log, &wrong);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(halted(&one).await, Some(Halt::Diverged { at_offset }));
    });
}

#[test]
fn a_newcomer_checks_the_newest_checkpoint_by_the_one_before() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        fill(&one, 40).await;
        one.clone().close().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let every = 16;
        let at_offset = (log.bounds().end / every + 1) * every;
        let fillers = (0..every).map(|_| What::Barrier);
        appends(&log, Id::random(), fillers);
        let mut image = log.with_replica(Replica::image).unwrap();
        image.last_token += 1;
        writes(&log, &Checkpoint::new(at_offset, &image));
        let begun = KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings()).await;
        let halt = begun.unwrap_err();
        let halt = std::error::Error::source(&halt).and_then(|source| source.downcast_ref::<Halt>());
        assert_eq!(halt, Some(&Halt::Diverged { at_offset }));
    });
}

/// When what is not needed any more is gone.
pub(super) const UNTIL_DELETED: Duration = Duration::from_secs(40);

/// Writes this checkpoint, in two records.
fn writes(log: &Arc<SimLog>, checkpoint: &Checkpoint) {
    let parts = checkpoint.parts(checkpoint.state.len().div_ceil(2));
    appends(log, Id::random(), parts.into_iter().map(What::Checkpoint));
}

/// Writes some records, and waits until the checkpoint is written that is due.
pub(super) async fn fill(backend: &Arc<KafkaBackend>, records: usize) {
    for _ in 0..records {
        backend.clone().inspect(Key::new("k").unwrap()).await.unwrap();
    }
    sleep(Duration::from_secs(3)).await;
}

#[test]
fn newcomers_and_those_who_stood_still_begin_with_a_checkpoint() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        let locks = LockClient::new(one.clone());
        let guard = holds(&locks, Renew::Automatic).await;
        let switch = Switch::default();
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), switch.clone());
        let still = KafkaBackend::over(vec![Arc::new(connection)], &settings()).await.unwrap();
        let lost = LockClient::new(still.clone())
            .lock("other")
            .unwrap()
            .exclusive()
            .ttl(TTL)
            .acquire()
            .await
            .unwrap();
        switch.turn(false);
        for _ in 0..5 {
            fill(&one, 100).await;
        }
        assert_eq!(log.bounds().start, 0, "whoever is behind may still read it");
        sleep(UNTIL_DELETED).await;
        fill(&one, 40).await;
        sleep(UNTIL_DELETED).await;
        assert!(log.bounds().start > 400, "what nobody needs is deleted: {:?}", log.bounds());
        switch.turn(true);
        sleep(Duration::from_secs(1)).await;
        assert!(guard.is_held() && !lost.is_held());
        let fresh = backend(&log).await;
        for backend in [&fresh, &still] {
            let seen = backend.clone().inspect(Key::new("k").unwrap()).await.unwrap();
            assert_eq!(seen.holders.iter().map(|holder| holder.id).collect::<Vec<_>>(), [guard.claim_id()]);
        }
        fill(&fresh, 40).await;
        for backend in [&one, &fresh, &still] {
            assert_eq!(backend.partitions[0].inner().replica.image(), log.with_replica(Replica::image));
        }
    });
}

/// The checkpoints in a log, and the parts of each.
fn written(log: &SimLog) -> Vec<(u64, u32, u32)> {
    let Found::Records { entries, .. } = log.read(log.bounds().start, None, usize::MAX) else {
        return Vec::new();
    };
    let part = |bytes: &[u8]| {
        let Ok(Read::Record(record)) = Record::decode(bytes) else { return None };
        let What::Checkpoint(part) = record.what else { return None };
        Some((part.at_offset, part.number, part.of))
    };
    entries.iter().filter_map(|entry| part(&entry.bytes)).collect()
}

#[test]
fn a_state_that_is_longer_than_a_record_is_written_in_parts() {
    const LOCKS: usize = 3_000;
    in_paused_time(async {
        let log = SimLog::new();
        let settings = Settings { checkpoint_every: 1_000.try_into().unwrap(), ..Settings::default() };
        let begin = || async {
            KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings).await.unwrap()
        };
        let one = begin().await;
        let locks = LockClient::new(one.clone());
        let mut guards = Vec::new();
        for key in 0..LOCKS {
            let lock = locks.lock(format!("k{key}")).unwrap();
            guards.push(
                lock.exclusive()
                    .ttl(Duration::from_secs(24 * 3600))
                    .note("a \"note\"".repeat(10))
                    .acquire()
                    .await
                    .unwrap(),
            );
        }
        for _ in 0..3 {
            fill(&one, 1_000).await;
        }
        // The first time it is only what was not needed then.
        sleep(UNTIL_DELETED).await;
        fill(&one, 1_000).await;
        sleep(UNTIL_DELETED).await;
        let newest = written(&log).last().copied().unwrap();
        assert!(newest.2 >= 3 && newest.1 == newest.2 - 1, "{newest:?}");
        assert!(log.with_replica(|replica| replica.has_counted(newest.0)));
        assert!(log.bounds().start > 3_000, "what nobody needs is deleted: {:?}", log.bounds());
        let fresh = begin().await;
        assert_eq!(halted(&fresh).await, None);
        sleep(Duration::from_secs(1)).await;
        let image = log.with_replica(Replica::image);
        assert!(fresh.partitions[0].inner().replica.image() == image, "it knows all of them");
        assert_eq!(image.unwrap().locks.len(), LOCKS);
    });
}

/// A log with a client that is about to write a checkpoint: its offset, and what it is to say in two parts.
async fn about_to_write(log: &Arc<SimLog>) -> (Arc<KafkaBackend>, u64, Vec<Part>) {
    fastrand::seed(7);
    let one = backend(log).await;
    fill(&one, 20).await;
    let every = settings().checkpoint_every.get();
    let at_offset = (log.bounds().end / every + 1) * every;
    while log.bounds().end <= at_offset {
        one.clone().inspect(Key::new("k").unwrap()).await.unwrap();
    }
    let Found::Records { entries, .. } = log.read(0, None, usize::MAX) else { panic!("nothing is missing") };
    let mut replica = Replica::default();
    let taken = entries.iter().filter_map(|entry| replica.apply(entry).unwrap().checkpoint).last().unwrap();
    assert_eq!(taken.at_offset, at_offset);
    (one, at_offset, taken.parts(taken.state.len().div_ceil(2)))
}

#[test]
fn a_checkpoint_that_somebody_writes_is_not_written_by_another_meanwhile() {
    in_paused_time(async {
        let log = SimLog::new();
        let (one, at_offset, parts) = about_to_write(&log).await;
        let session = Id::random();
        appends(&log, session, [What::Checkpoint(parts[0].clone())]);
        let due = || one.partitions[0].inner().scribe.due();
        let first = due();
        while due() == first {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(written(&log).last(), Some(&(at_offset, 0, 2)), "it waits");
        log.append(&Record::new(session, 2, What::Checkpoint(parts[1].clone())).encode());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(written(&log).last(), Some(&(at_offset, 1, 2)));
        assert!(log.with_replica(|replica| replica.has_counted(at_offset)));
        assert_eq!(halted(&one).await, None);
    });
}

#[test]
fn a_checkpoint_that_somebody_does_not_finish_is_written_by_another() {
    in_paused_time(async {
        let log = SimLog::new();
        let (_one, at_offset, parts) = about_to_write(&log).await;
        appends(&log, Id::random(), [What::Checkpoint(parts[0].clone())]);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(written(&log).last(), Some(&(at_offset, 0, 1)));
        assert!(log.with_replica(|replica| replica.has_counted(at_offset)));
    });
}

/// Whose own checkpoint came first may be who is wrong.
#[test]
fn a_checkpoint_that_does_not_count_any_more_is_compared_as_well() {
    in_paused_time(async {
        let log = SimLog::new();
        let (one, at_offset, _) = about_to_write(&log).await;
        sleep(Duration::from_secs(5)).await;
        assert!(log.with_replica(|replica| replica.has_counted(at_offset)));
        let image = log.with_replica(Replica::image).unwrap();
        writes(&log, &Checkpoint::new(at_offset, &image));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(halted(&one).await, Some(Halt::Diverged { at_offset }));
    });
}
