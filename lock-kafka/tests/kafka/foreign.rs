//! What others write to the topic: it takes its place in the log, and nothing else comes of it.

use std::time::Duration;

use lock_kafka::Halt;
use lock_kafka::rdkafka::message::{Header, OwnedHeaders};
use lock_kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use lockcore::{Acquire, Error, ErrorKind, Exclusive, LockClient, Mode};
use testbed::KafkaServer;
use tokio::time::{Instant, sleep, timeout};

use crate::lost::halt;
use crate::{SOON, client, raw, refused};

/// Writes these records as somebody who knows nothing of locks.
fn write(server: &KafkaServer, settings: &[(&str, &str)], records: &[(Option<&str>, Option<&[u8]>)]) {
    let mut config = raw(server);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
    let transactional = settings.iter().find(|(name, _)| *name == "transactional.id");
    if transactional.is_some() {
        producer.init_transactions(10 * SOON).unwrap();
        producer.begin_transaction().unwrap();
    }
    for (key, value) in records {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to("locks").partition(0);
        (record.key, record.payload) = (*key, *value);
        let headers = OwnedHeaders::new().insert(Header { key: "somebody", value: Some("else") });
        producer.send(record.headers(headers)).map_err(|(error, _)| error).unwrap();
    }
    match transactional {
        Some((_, "aborted")) => producer.abort_transaction(10 * SOON).unwrap(),
        Some(_) => producer.commit_transaction(10 * SOON).unwrap(),
        None => {}
    }
    producer.flush(10 * SOON).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

/// A client that connects finds the lock held, and those who are connected go on.
async fn nothing_has_happened(server: &KafkaServer, held: &lockcore::LockGuard<Exclusive>, after: &str) {
    let start = Instant::now();
    let newcomer = timeout(SOON, client(server)).await.unwrap_or_else(|_| panic!("{after}: it connects"));
    assert!(start.elapsed() < SOON, "{after}: {:?}", start.elapsed());
    let lock = newcomer.lock("k").unwrap();
    assert_eq!(lock.inspect().await.unwrap().holders[0].id, held.claim_id(), "{after}");
    assert!(lock.exclusive().try_acquire().await.unwrap().is_none(), "{after}");
    assert!(held.is_held(), "{after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_a_transaction_at_the_end_keeps_nobody_waiting() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().ttl(20 * SOON).acquire().await.unwrap();
    for id in ["committed", "aborted"] {
        write(&server, &[("transactional.id", id)], &[(Some("k"), Some(b"{}")), (None, Some(b"text"))]);
        nothing_has_happened(&server, &held, id).await;
    }
    // Whoever has read up to a mark knows that it has read all.
    let (dead, ttl) = (client(&server).await, Duration::from_secs(2));
    let left = dead.lock("left").unwrap().exclusive().ttl(ttl).acquire().await.unwrap();
    drop(left.detach());
    drop(dead);
    write(&server, &[("transactional.id", "last")], &[(None, Some(b"text"))]);
    let lock = locks.lock("left").unwrap();
    timeout(3 * SOON, async {
        // It looks without a record, which would be the last one.
        sleep(2 * ttl).await;
        assert!(
            lock.exclusive().try_acquire().await.unwrap().is_some(),
            "its lease is over, and somebody saw to it"
        );
    })
    .await
    .unwrap();
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_record_of_ours_is_skipped_however_it_is_packed() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().ttl(20 * SOON).acquire().await.unwrap();
    let long = vec![b' '; 1_005_000];
    let zero = br#"{"v":0,"session":"0000000000000000000000000000000a","seq":1,"type":"barrier"}"#;
    let unknown = br#"{"v":1,"session":"0000000000000000000000000000000a","seq":1,"type":"steal"}"#;
    let not_text = [0xff, 0xfe, 0x00];
    let records: [(Option<&str>, Option<&[u8]>); 7] = [
        (Some("k"), None),
        (None, None),
        (None, Some(b"")),
        (Some("k"), Some(zero)),
        (Some("k"), Some(unknown)),
        (None, Some(&not_text)),
        (None, Some(br#"{"identifier":"k","v":"1"}"#)),
    ];
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let settings = [("compression.type", compression), ("linger.ms", "100")];
        write(&server, &settings, &records);
        nothing_has_happened(&server, &held, compression).await;
    }
    write(&server, &[("message.max.bytes", "2000000")], &[(Some("k"), Some(&long))]);
    nothing_has_happened(&server, &held, "a long record").await;
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_known_halts_everybody() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    write(&server, &[], &[(None, Some(br#"{"v":2,"type":"barrier"}"#))]);
    timeout(SOON, held.lost()).await.expect("its holder hears of it");
    let here: Error = locks.lock("k").unwrap().exclusive().try_acquire().await.unwrap_err();
    for error in [here, refused(&server.url("locks")).await] {
        assert_eq!(
            (error.kind(), halt(&error)),
            (ErrorKind::Unsupported, Some(&Halt::Version(2))),
            "{error}"
        );
    }
}

/// As much of a lock as there can be.
fn largest(locks: &LockClient, key: &str) -> Acquire<Exclusive> {
    // Each of them takes six bytes in JSON.
    let label = "\u{1}".repeat(lockcore::MAX_LABEL_BYTES);
    locks.lock(key).unwrap().exclusive().owner(&*label).note(&*label)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_names_fit() {
    let server = KafkaServer::start().unwrap();
    let (one, other) = (client(&server).await, client(&server).await);
    for key in ["\u{1}".repeat(512), "ключ".repeat(64)] {
        let held = largest(&one, &key).acquire().await.unwrap();
        assert!(largest(&other, &key).try_acquire().await.unwrap().is_none());
        let seen = other.lock(&*key).unwrap().inspect().await.unwrap();
        assert_eq!(seen.holders[0].owner.as_ref().map(|owner| owner.len()), Some(lockcore::MAX_LABEL_BYTES));
        assert_eq!((seen.holders[0].id, seen.holders[0].mode), (held.claim_id(), Mode::Exclusive));
        held.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_takes_long_records_whatever_is_usual_on_its_broker() {
    let server = KafkaServer::options().property("message.max.bytes", "500000").start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    write(&server, &[("message.max.bytes", "2000000")], &[(None, Some(&vec![b' '; 1_005_000]))]);
    nothing_has_happened(&server, &held, "a long record").await;
    held.release().await.unwrap();
}
