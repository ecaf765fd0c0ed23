//! What is Kafka's own, on a real broker.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod article;
mod clocks;
mod cluster;
mod copied;
mod foreign;
mod holding;
mod load;
mod lost;
mod secured;
mod shortened;
mod speed;
#[cfg(feature = "ssl")]
mod tls;
mod topics;
mod truncated;
mod unavailable;
mod wrong;

use std::sync::Arc;
use std::time::Duration;

use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::ClientConfig;
use lock_kafka::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use lock_kafka::rdkafka::client::DefaultClientContext;
use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::rdkafka::message::Message;
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lockcore::{Error, LockClient};
use testbed::KafkaServer;

const SOON: Duration = Duration::from_secs(3);

/// Why a connection is refused, which is told in time.
async fn refused(url: &str) -> Error {
    let connecting = KafkaBackend::builder(url).connect_timeout(SOON).connect();
    let outcome = tokio::time::timeout(2 * SOON, connecting).await.expect("it ends");
    outcome.expect_err("it is refused")
}

async fn connect(server: &KafkaServer) -> Arc<KafkaBackend> {
    KafkaBackend::connect(&server.url("locks")).await.unwrap()
}

async fn client(server: &KafkaServer) -> LockClient {
    LockClient::new(connect(server).await)
}

/// A client of the broker without locks, which may do everything.
fn raw(server: &KafkaServer) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.operator().to_string());
    config
}

/// Makes a topic with these settings.
async fn make(server: &KafkaServer, name: &str, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = raw(server).create().unwrap();
    let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    for (setting, value) in settings {
        topic = topic.set(setting, value);
    }
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(name.to_owned())]);
}

/// All records that are in a topic, as any consumer sees them.
fn texts(server: &KafkaServer, topic: &str) -> Vec<String> {
    let consumer: BaseConsumer = raw(server).set("group.id", "anybody").create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&place).unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, SOON).unwrap();
    let (mut texts, mut next) = (Vec::new(), 0);
    while next < end {
        let message = consumer.poll(SOON).expect("there is more").unwrap();
        next = message.offset() + 1;
        texts.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
    }
    texts
}
