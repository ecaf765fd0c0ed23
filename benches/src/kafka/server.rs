//! The broker that is measured on, and what its log says of it.

use std::sync::Arc;

use async_trait::async_trait;
use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use lock_kafka::rdkafka::client::DefaultClientContext;
use lock_kafka::rdkafka::config::ClientConfig;
use lock_kafka::rdkafka::types::RDKafkaErrorCode;
use lockcore::LockBackend;
use testbed::KafkaServer;
use tokio::task::spawn_blocking;

use super::peers::end;
use crate::Result;
use crate::server::{Counted, Counters, Server};

/// The topics of the locks and of the bare records, of one partition each.
pub(crate) const LOCKS: &str = "bench_locks";
pub(crate) const BARE: &str = "bench_bare";

const RECORDS: &str = "records";

/// A broker, one, with its log in the folder for temporary files. Kafka waits for no disk.
pub(crate) struct Kafka {
    pub(crate) broker: String,
    url: String,
    /// Ends with the benchmark if we started it.
    _own: Option<KafkaServer>,
}

impl Kafka {
    /// Starts one of our own.
    pub(crate) async fn start() -> Result<Kafka> {
        let own = KafkaServer::start()?;
        Kafka::of(own.addr().to_string(), Some(own)).await
    }

    /// The one that somebody else has started.
    pub(crate) async fn at(address: &str) -> Result<Kafka> {
        Kafka::of(address.to_owned(), None).await
    }

    async fn of(broker: String, own: Option<KafkaServer>) -> Result<Kafka> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &broker).create()?;
        let topic = NewTopic::new(BARE, 1, TopicReplication::Fixed(1));
        for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(format!("the topic {name} cannot be made: {code}").into()),
            }
        }
        let url = format!("kafka://{broker}/{LOCKS}");
        // It makes the topic of the locks.
        drop(KafkaBackend::connect(&url).await?);
        Ok(Kafka { broker, url, _own: own })
    }
}

#[async_trait]
impl Server for Kafka {
    fn url(&self) -> &str {
        &self.url
    }

    async fn connect(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(KafkaBackend::connect(&self.url).await?)
    }

    async fn counters(&self) -> Result<Counters> {
        let broker = self.broker.clone();
        let mut counters = Counters::default();
        for topic in [LOCKS, BARE] {
            let broker = broker.clone();
            counters.add(RECORDS, spawn_blocking(move || end(&broker, topic)).await??);
        }
        Ok(counters)
    }

    fn sum_up(&self, counters: &Counters) -> Counted {
        // A request of a client is a record in the log.
        Counted { requests: counters.of(RECORDS), ..Counted::default() }
    }
}
