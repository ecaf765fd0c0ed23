//! Topics of three replicas that locks cannot be kept in, or not any more.

use std::time::Duration;

use lock_kafka::Halt;
use lock_kafka::rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use lock_kafka::rdkafka::client::DefaultClientContext;
use lockcore::ErrorKind;
use testbed::{KafkaCluster, KafkaServer, Proxy};
use tokio::time::{sleep, timeout};

use crate::cluster::{self, client};
use crate::lost::halt;
use crate::{SOON, raw, refused};

const TTL: Duration = Duration::from_secs(60);

/// All that a topic needs, but for one.
const RIGHT: [(&str, &str); 4] = [
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("min.insync.replicas", "2"),
];

type Admin = AdminClient<DefaultClientContext>;

async fn make(admin: &Admin, name: &str, settings: &[(&str, &str)]) {
    let new = NewTopic::new(name, 1, TopicReplication::Fixed(3));
    let topic = settings.iter().fold(new, |topic, (setting, value)| topic.set(setting, value));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(name.to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_three_replicas_are_looked_at_and_ones_that_change_are_left() {
    let _turn = cluster::turn().await;
    let cluster = KafkaServer::options().proxies(1).start_cluster().unwrap();
    let admin: Admin = raw(cluster.node(0)).create().unwrap();
    are_refused(&cluster, &admin).await;
    a_partition_more_lets_nobody_new_in(&cluster, &admin).await;
    made_anew_it_ends_what_was_held(&cluster, &admin).await;
}

async fn are_refused(cluster: &KafkaCluster, admin: &Admin) {
    make(admin, "default", &[]).await;
    let without = |name: &str| RIGHT.iter().filter(|(right, _)| *right != name).copied().collect::<Vec<_>>();
    make(admin, "kept-a-week", &without("retention.ms")).await;
    make(admin, "in-one-place", &without("min.insync.replicas")).await;
    for (name, told) in [
        ("default", "retention.ms=-1,message.timestamp.type=LogAppendTime,min.insync.replicas=2"),
        ("kept-a-week", "retention.ms is 604800000 and must be -1"),
        ("kept-a-week", "--entity-name kept-a-week --add-config retention.ms=-1"),
        ("in-one-place", "min.insync.replicas is 1 and must be 2"),
        ("in-one-place", "--entity-name in-one-place --add-config min.insync.replicas=2"),
    ] {
        let error = refused(&cluster.url(name)).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(
            error.to_string().ends_with(told) || error.to_string().contains(&format!("{told}.")),
            "{error}"
        );
    }
}

/// Whoever is there goes on as before; whoever comes would look for locks elsewhere.
async fn a_partition_more_lets_nobody_new_in(cluster: &KafkaCluster, admin: &Admin) {
    let url = cluster.url("grown");
    let (one, other) = (client(&url).await, client(&url).await);
    let held = one.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let grown = admin.create_partitions([&NewPartitions::new("grown", 2)], &AdminOptions::new()).await;
    assert_eq!(grown.unwrap(), [Ok("grown".to_owned())]);
    let has_two =
        || admin.inner().fetch_metadata(Some("grown"), SOON).unwrap().topics()[0].partitions().len() == 2;
    while !has_two() {
        sleep(Duration::from_millis(20)).await;
    }
    let error = refused(&url).await;
    assert!(error.kind() == ErrorKind::Conflict && halt(&error).is_some(), "{error}");
    assert!(other.lock("k").unwrap().exclusive().try_acquire().await.unwrap().is_none());
    held.release().await.unwrap();
    other.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
}

/// One who was there all the time notices, and one who is away until the new topic is longer than the old one was.
async fn made_anew_it_ends_what_was_held(cluster: &KafkaCluster, admin: &Admin) {
    let url = cluster.url("anew");
    let (here, away) = (client(&url).await, client(&cluster.url_through(0, "anew")).await);
    let held = away.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let other = here.lock("other").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let proxies = || cluster.nodes().iter().flat_map(KafkaServer::proxies);
    proxies().for_each(|proxy| proxy.stall(true));
    let deleted = admin.delete_topics(&["anew"], &AdminOptions::new()).await.unwrap();
    assert_eq!(deleted, [Ok("anew".to_owned())]);
    let gone = || admin.inner().fetch_metadata(Some("anew"), SOON).unwrap().topics()[0].error().is_some();
    while !gone() {
        sleep(Duration::from_millis(20)).await;
    }
    let new = client(&url).await;
    let next = new.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    assert!(next.token() > held.token(), "the brokers' clocks have gone on");
    for _ in 0..50 {
        new.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    timeout(5 * SOON, other.lost()).await.expect("who was there hears of it");
    proxies().for_each(|proxy| proxy.stall(false));
    proxies().for_each(Proxy::sever);
    timeout(5 * SOON, held.lost()).await.expect("who was away hears of it");
    for old in [here, away] {
        let error = old.lock("k").unwrap().exclusive().try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(halt(&error), Some(&Halt::Truncated), "{error}");
    }
    assert!(next.is_held());
    next.release().await.unwrap();
}
