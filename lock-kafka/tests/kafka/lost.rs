//! A log that loses what was in it: whoever counted on that hears of it, and nobody goes on by guessing.

use std::error::Error as _;
use std::time::Duration;

use lock_kafka::rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use lock_kafka::rdkafka::client::DefaultClientContext;
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lock_kafka::{Halt, KafkaBackend};
use lockcore::{Error, ErrorKind, LockClient};
use testbed::KafkaServer;
use tokio::time::{sleep, timeout};

use crate::wrong::RIGHT;
use crate::{SOON, client, raw, refused, texts};

/// Why the client reads no further, if that is the reason.
pub(crate) fn halt(error: &Error) -> Option<&Halt> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(halt) = cause.downcast_ref() {
            return Some(halt);
        }
        source = cause.source();
    }
    None
}

/// Deletes the topic, and waits until it is gone.
async fn delete(server: &KafkaServer) {
    let admin: AdminClient<DefaultClientContext> = raw(server).create().unwrap();
    let deleted = admin.delete_topics(&["locks"], &AdminOptions::new()).await.unwrap();
    assert_eq!(deleted, [Ok("locks".to_owned())]);
    let gone = || admin.inner().fetch_metadata(Some("locks"), SOON).unwrap().topics()[0].error().is_some();
    while !gone() {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_ends_what_was_held_in_the_old_one() {
    let server = KafkaServer::start().unwrap();
    let old = client(&server).await;
    let held = old.lock("k").unwrap().exclusive().ttl(20 * SOON).acquire().await.unwrap();
    for _ in 0..20 {
        old.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    let token = held.token();
    delete(&server).await;
    let new = client(&server).await;
    let next = new.lock("k").unwrap().exclusive().acquire().await.unwrap();
    assert!(next.token() > token, "the brokers' clocks have gone on");
    timeout(5 * SOON, held.lost()).await.expect("its holder hears of it");
    let error = old.lock("k").unwrap().exclusive().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // It is shorter, and another one: whichever is noticed first.
    assert_eq!(halt(&error), Some(&Halt::Truncated), "{error:?}");
    assert!(next.is_held());
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_emptied_is_not_begun_with() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let admin: AdminClient<DefaultClientContext> = raw(&server).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("locks", 0, Offset::End).unwrap();
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    // Who has read it knows what was in it.
    assert!(held.is_held());
    let error = refused(&server.url("locks")).await;
    assert_eq!((error.kind(), halt(&error)), (ErrorKind::Conflict, Some(&Halt::Missing)), "{error}");
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_and_has_grown_past_the_old_one_is_noticed() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let proxy = &server.proxies()[0];
    let old = LockClient::new(KafkaBackend::connect(&server.url_at(proxy.addr(), "locks")).await.unwrap());
    let held = old.lock("k").unwrap().exclusive().ttl(20 * SOON).acquire().await.unwrap();
    // Until it has heard once what this log answers.
    sleep(SOON).await;
    // It stands still while the topic is made anew and grows.
    proxy.stall(true);
    delete(&server).await;
    let new = client(&server).await;
    let next = new.lock("k").unwrap().exclusive().acquire().await.unwrap();
    for _ in 0..20 {
        new.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    proxy.stall(false);
    timeout(2 * SOON, held.lost()).await.expect("its holder hears of it");
    let error = old.lock("k").unwrap().exclusive().try_acquire().await.unwrap_err();
    assert_eq!((error.kind(), halt(&error)), (ErrorKind::Conflict, Some(&Halt::Truncated)), "{error:?}");
    assert!(next.is_held());
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_move_no_key_and_are_refused_to_newcomers() {
    let server = KafkaServer::start().unwrap();
    let (one, other) = (client(&server).await, client(&server).await);
    let held = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let admin: AdminClient<DefaultClientContext> = raw(&server).create().unwrap();
    let more = admin.create_partitions([&NewPartitions::new("locks", 7)], &AdminOptions::new()).await;
    assert_eq!(more.unwrap(), [Ok("locks".to_owned())]);
    let error = refused(&server.url("locks")).await;
    let why = Halt::Partitions { begun: 1, found: 7 };
    assert_eq!((error.kind(), halt(&error)), (ErrorKind::Conflict, Some(&why)), "{error:?}");
    // Each of these keys would lie in one of the new partitions.
    for key in ["k", "a", "b", "c", "d", "e", "f"] {
        let (mine, theirs) = (one.lock(key).unwrap(), other.lock(key).unwrap());
        let holder = if key == "k" { None } else { Some(mine.exclusive().acquire().await.unwrap()) };
        assert!(theirs.exclusive().try_acquire().await.unwrap().is_none(), "{key}");
        if let Some(holder) = holder {
            holder.release().await.unwrap();
        }
    }
    held.release().await.unwrap();
}

/// Compaction keeps the last record of each key, and none without a key: the first of all is gone, and the log still begins at 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_compacted_is_not_begun_with() {
    let cleaner = [
        ("log.cleaner.enable", "true"),
        ("log.cleaner.backoff.ms", "100"),
        ("log.cleaner.dedupe.buffer.size", "8000000"),
    ];
    let options =
        cleaner.iter().fold(KafkaServer::options(), |options, (name, value)| options.property(name, value));
    let server = options.start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().ttl(60 * SOON).acquire().await.unwrap();
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("delete.retention.ms", "0"),
    ];
    set(&server, &[&RIGHT[1..], &compacted].concat()).await;
    let is_gone = || !texts(&server, "locks").iter().any(|text| text.contains(r#""type":"genesis""#));
    timeout(10 * SOON, async {
        while !is_gone() {
            // What was written last is not compacted.
            locks.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("it is compacted");
    set(&server, &[&RIGHT[..], &[("max.message.bytes", "1010000")]].concat()).await;
    // Whoever began it anew would be let in.
    let error = refused(&server.url("locks")).await;
    assert_eq!((error.kind(), halt(&error)), (ErrorKind::Conflict, Some(&Halt::Missing)), "{error}");
    assert!(held.is_held(), "who has read it knows what was in it");
    held.release().await.unwrap();
}

/// Gives the topic these settings, and no others.
async fn set(server: &KafkaServer, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = raw(server).create().unwrap();
    let topic = AlterConfig::new(ResourceSpecifier::Topic("locks"));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let done = admin.alter_configs([&topic], &AdminOptions::new()).await.unwrap();
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}
