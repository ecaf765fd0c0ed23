//! Three brokers, of which one may be gone.

use std::time::Duration;

use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::ClientConfig;
use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lockcore::{ErrorKind, LockBackend, LockClient};
use testbed::KafkaCluster;
use tokio::time::{sleep, timeout};

use crate::SOON;

const TTL: Duration = Duration::from_secs(60);

/// The number of the node that leads the topic.
fn leader(cluster: &KafkaCluster) -> usize {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.node(0).addr().to_string());
    let asking: BaseConsumer = config.create().unwrap();
    let metadata = asking.fetch_metadata(Some("locks"), SOON).unwrap();
    let leader = metadata.topics()[0].partitions()[0].leader();
    usize::try_from(leader).unwrap() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_end_keeps_holders_and_waiters() {
    let cluster = KafkaCluster::start().unwrap();
    let url = cluster.url("locks");
    let first = KafkaBackend::connect(&url).await.unwrap();
    assert!(first.capabilities().survives_failover, "three replicas, of which two must have a record");
    let (one, other) = (LockClient::new(first), LockClient::new(KafkaBackend::connect(&url).await.unwrap()));
    let lock = one.lock("k").unwrap();
    let held = lock.exclusive().ttl(TTL).acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().ttl(TTL).wait(TTL).acquire());
    while lock.inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let gone = leader(&cluster);
    cluster.node(gone).kill().unwrap();
    let token = held.token();
    assert!(held.is_held());
    // Nobody leads until the controllers have given it up, which takes longer than a release waits; its record is on its way.
    if let Err(error) = held.release().await {
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    }
    let next = timeout(TTL / 2, waiting).await.expect("it is told").unwrap().unwrap();
    assert!(next.token() > token);
    cluster.node(gone).restart().unwrap();
    next.release().await.unwrap();
    assert!(lock.inspect().await.unwrap().is_free());
}
