//! Logs that were copied, and topics that were mixed up.

use std::collections::BTreeMap;

use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::rdkafka::message::Message;
use lock_kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lock_kafka::{Halt, KafkaBackend, Settings};
use lockcore::{ErrorKind, Lock, LockClient};
use testbed::KafkaServer;
use tokio::time::{Duration, timeout};

use crate::lost::halt;
use crate::wrong::RIGHT;
use crate::{SOON, client, make, raw, refused};

async fn of_topic(server: &KafkaServer, topic: &str) -> LockClient {
    LockClient::new(KafkaBackend::connect(&server.url(topic)).await.unwrap())
}

/// Appends all that is in one partition to another one, as it is.
fn copy(server: &KafkaServer, from: (&str, i32), to: (&str, i32)) {
    let consumer: BaseConsumer = raw(server).set("group.id", "mirror").create().unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = raw(server).create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(from.0, from.1, Offset::Beginning).unwrap();
    consumer.assign(&place).unwrap();
    let (_, end) = consumer.fetch_watermarks(from.0, from.1, SOON).unwrap();
    let mut next = 0;
    while next < end {
        let message = consumer.poll(SOON).expect("there is more").unwrap();
        next = message.offset() + 1;
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(to.0).partition(to.1);
        (record.key, record.payload) = (message.key(), message.payload());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(SOON).unwrap();
    assert_eq!(producer.in_flight_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_in_another_topic_does_not_count() {
    let server = KafkaServer::start().unwrap();
    // So short that there is a checkpoint in it, which is of another state.
    let settings = Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
    let connect = |topic| KafkaBackend::builder(&server.url(topic)).settings(settings.clone()).connect();
    let (there, here) = (connect("there").await.unwrap(), connect("locks").await.unwrap());
    let (there, here) = (LockClient::new(there), LockClient::new(here));
    let held = here.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let theirs = there.lock("k").unwrap().exclusive().acquire().await;
    let theirs = theirs.expect("topics know nothing of each other");
    drop(there.lock("free").unwrap().exclusive().acquire().await.unwrap().detach());
    there.lock("k").unwrap().break_claims(lockcore::BreakTarget::All).await.unwrap();
    timeout(SOON, theirs.lost()).await.expect("it is broken there");
    until_a_checkpoint(&server, "there", &there.lock("k").unwrap()).await;
    copy(&server, ("there", 0), ("locks", 0));
    let newcomer = client(&server).await;
    assert!(held.is_held(), "the copied break is not of this log");
    for locks in [&here, &newcomer] {
        assert_eq!(locks.lock("k").unwrap().inspect().await.unwrap().holders[0].id, held.claim_id());
        assert!(locks.lock("free").unwrap().inspect().await.unwrap().is_free());
    }
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_in_another_partition_does_not_count() {
    let server = KafkaServer::start().unwrap();
    let settings = Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
    let url = format!("{}?partitions=2", server.url("locks"));
    let connect = || KafkaBackend::builder(&url).settings(settings.clone()).connect();
    let locks = LockClient::new(connect().await.unwrap());
    // Some of them lie in either.
    let mut held = BTreeMap::new();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        held.insert(key, locks.lock(key).unwrap().exclusive().acquire().await.unwrap());
    }
    // Only the first partition has a checkpoint, so that it would be the newest of the other one.
    let first = ["i", "j", "k", "l", "m", "n"].into_iter().find(|key| key_is_in_the_first(key));
    let first = locks.lock(first.unwrap()).unwrap();
    until_a_checkpoint(&server, "locks", &first).await;
    copy(&server, ("locks", 0), ("locks", 1));
    copy(&server, ("locks", 1), ("locks", 0));
    let newcomer = LockClient::new(connect().await.unwrap());
    for (key, guard) in held {
        let lock = newcomer.lock(key).unwrap();
        assert_eq!(lock.inspect().await.unwrap().holders[0].id, guard.claim_id());
        guard.release().await.unwrap();
        lock.exclusive().try_acquire().await.unwrap().expect("it is free").release().await.unwrap();
    }
}

/// Whether a key lies in the first of two partitions, by the rule that is written in the protocol.
fn key_is_in_the_first(key: &str) -> bool {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    key.bytes().fold(0xcbf2_9ce4_8422_2325, step) % 2 == 0
}

/// Locks and lets go until there is a checkpoint in the topic's first partition.
async fn until_a_checkpoint(server: &KafkaServer, topic: &str, lock: &Lock) {
    let written = timeout(10 * SOON, async {
        while !crate::texts(server, topic).iter().any(|text| text.contains(r#""type":"checkpoint""#)) {
            lock.exclusive().acquire().await.unwrap().release().await.unwrap();
        }
    });
    written.await.expect("it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_topic_is_another_topic_with_the_same_claims() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let ttl = Duration::from_secs(4);
    let held = locks.lock("k").unwrap().exclusive().ttl(ttl).acquire().await.unwrap();
    make(&server, "copy", &RIGHT).await;
    copy(&server, ("locks", 0), ("copy", 0));
    let copied = of_topic(&server, "copy").await;
    let lock = copied.lock("k").unwrap();
    assert_eq!(lock.inspect().await.unwrap().holders[0].id, held.claim_id());
    // Nobody renews it there, where its holder does not answer.
    lock.exclusive().wait(4 * ttl).acquire().await.unwrap().release().await.unwrap();
    assert!(held.is_held());
    // The stamps are others than in the log that a checkpoint is of.
    let settings = Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
    let short = KafkaBackend::builder(&server.url("short")).settings(settings).connect().await.unwrap();
    let short = LockClient::new(short);
    until_a_checkpoint(&server, "short", &short.lock("k").unwrap()).await;
    make(&server, "halts", &RIGHT).await;
    copy(&server, ("short", 0), ("halts", 0));
    let error = refused(&server.url("halts")).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(matches!(halt(&error), Some(Halt::Diverged { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_topic_are_one_topic() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let by_name = server.url("locks").replace("127.0.0.1", "localhost");
    let by_proxy = server.url_at(server.proxies()[0].addr(), "locks");
    let first = LockClient::new(KafkaBackend::connect(&by_name).await.unwrap());
    let held = first.lock("k").unwrap().exclusive().acquire().await.unwrap();
    for url in [by_proxy, by_name.replace("locks", "locks?client.id=other"), server.url("locks")] {
        let other = LockClient::new(KafkaBackend::connect(&url).await.unwrap());
        assert!(other.lock("k").unwrap().exclusive().try_acquire().await.unwrap().is_none(), "{url}");
    }
    held.release().await.unwrap();
}

/// The second-newest of the checkpoints in the log is of another topic: a newcomer that began with it would know nothing of who
/// holds here, and be heard by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_does_not_begin_with_the_checkpoint_of_another_topic() {
    let server = KafkaServer::start().unwrap();
    let settings = Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
    let connect = async |topic| {
        let builder = KafkaBackend::builder(&server.url(topic)).settings(settings.clone());
        LockClient::new(builder.connect().await.unwrap())
    };
    let there = connect("there").await;
    until_one_is_after(&server, "there", &there.lock("k").unwrap(), 16).await;
    let copied = checkpoints(&server, "there");
    let here = connect("locks").await;
    let held = here.lock("k").unwrap().exclusive().acquire().await.unwrap();
    copy(&server, ("there", 0), ("locks", 0));
    for last in [0, *copied.last().unwrap()] {
        until_one_is_after(&server, "locks", &here.lock("busy").unwrap(), last).await;
        let newcomer = connect("locks").await;
        let lock = newcomer.lock("k").unwrap();
        assert!(lock.exclusive().try_acquire().await.unwrap().is_none(), "{last}: two are inside");
        assert_eq!(lock.inspect().await.unwrap().holders[0].id, held.claim_id());
    }
    assert!(held.is_held());
    held.release().await.unwrap();
}

/// Where the checkpoints in a topic were taken, in the order in which they lie there.
fn checkpoints(server: &KafkaServer, topic: &str) -> Vec<u64> {
    let texts = crate::texts(server, topic);
    let taken = texts.iter().filter(|text| text.contains(r#""type":"checkpoint""#)).map(|text| {
        let (_, at_offset) = text.split_once(r#""at_offset":"#).unwrap();
        at_offset.split(',').next().unwrap().parse().unwrap()
    });
    taken.collect()
}

/// Locks and lets go until there is a checkpoint in the topic that was taken after this offset.
async fn until_one_is_after(server: &KafkaServer, topic: &str, lock: &Lock, offset: u64) {
    let written = timeout(10 * SOON, async {
        while !checkpoints(server, topic).iter().any(|at_offset| *at_offset > offset) {
            lock.exclusive().acquire().await.unwrap().release().await.unwrap();
        }
    });
    written.await.expect("it is written");
}
