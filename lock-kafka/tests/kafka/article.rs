//! The list of docs/coming-from/kafka-article.md, each line shown on a real broker by the test that carries its number.

use std::time::Duration;

use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::rdkafka::message::Message;
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lockcore::{ErrorKind, LockClient, Renew};
use testbed::KafkaServer;

use crate::{SOON, raw};

/// The article's identifier.
const IDENTIFIER: &str = "example_identifier";

async fn client(server: &KafkaServer) -> LockClient {
    LockClient::new(KafkaBackend::connect(&format!("kafka://{}", server.addr())).await.unwrap())
}

/// All that is in the article's topic, as any consumer sees it: the message's key, and its text.
fn consumed(server: &KafkaServer) -> Vec<(Option<String>, String)> {
    let consumer: BaseConsumer = raw(server).set("group.id", "anybody").create().unwrap();
    let mut topic = TopicPartitionList::new();
    topic.add_partition_offset("resource_lock", 0, Offset::Beginning).unwrap();
    consumer.assign(&topic).unwrap();
    let (_, end) = consumer.fetch_watermarks("resource_lock", 0, SOON).unwrap();
    let mut all = Vec::new();
    while i64::try_from(all.len()).unwrap() < end {
        let message = consumer.poll(SOON).expect("there is more").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        all.push((message.key().map(text), text(message.payload().unwrap_or_default())));
    }
    all
}

/// K2, K3, K6, K8: the topic is the article's unless told, it is made, and whoever reads it sees the identifier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k8_a_message_shows_the_identifier() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    locks.lock(IDENTIFIER).unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    let all = consumed(&server);
    for kind in ["acquire", "release"] {
        let shows = |(key, text): &(Option<String>, String)| {
            key.as_deref() == Some(IDENTIFIER)
                && text.contains(&format!(r#""type":"{kind}""#))
                && text.contains(&format!(r#""identifier":"{IDENTIFIER}""#))
        };
        assert_eq!(all.iter().filter(|message| shows(message)).count(), 1, "{kind} in {all:?}");
    }
}

/// K7, K11, K12: the acquire waits as long as another is inside, and returns when it has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k7_k11_k12_the_acquire_waits() {
    let server = KafkaServer::start().unwrap();
    let (one, other) = (client(&server).await, client(&server).await);
    let held = one.lock(IDENTIFIER).unwrap().exclusive().acquire().await.unwrap();
    let second = other.lock(IDENTIFIER).unwrap();
    let busy = second.exclusive().wait(Duration::from_millis(300)).acquire().await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Timeout, "{busy}");
    let waits = tokio::spawn(second.exclusive().wait(4 * SOON).acquire());
    while second.inspect().await.unwrap().waiters.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(held.is_held());
    held.release().await.unwrap();
    waits.await.unwrap().unwrap().release().await.unwrap();
}

/// K9: a release ends the claim that it belongs to and no other one of this identifier; what had ended before is said to be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k9_a_release_is_of_ones_own_claim() {
    let server = KafkaServer::start().unwrap();
    let (one, other) = (client(&server).await, client(&server).await);
    let ttl = Duration::from_secs(1);
    let lock = one.lock(IDENTIFIER).unwrap();
    let first = lock.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await.unwrap();
    let second = other.lock(IDENTIFIER).unwrap().exclusive().wait(4 * SOON).acquire().await.unwrap();
    assert_eq!(first.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(lock.inspect().await.unwrap().holders[0].token, Some(second.token()));
    second.release().await.unwrap();
}
