//! Topics and addresses that locks cannot be kept at: refused in time, in words that help.

use lock_kafka::KafkaBackend;
use lockcore::ErrorKind;
use testbed::{KafkaServer, RedisServer};
use tokio::time::Instant;

use crate::{SOON, connect, make, refused};

/// All that a topic needs.
pub(crate) const RIGHT: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_by_default_is_refused_with_the_command_that_mends_it() {
    let server = KafkaServer::start().unwrap();
    make(&server, "locks", &[]).await;
    let error = refused(&server.url("locks")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    for part in [
        "retention.ms is 604800000 and must be -1",
        "message.timestamp.type is CreateTime and must be LogAppendTime",
        &format!("kafka-configs.sh --bootstrap-server {} --alter", server.addr()),
        "--entity-name locks --add-config retention.ms=-1,message.timestamp.type=LogAppendTime",
    ] {
        assert!(error.to_string().contains(part), "{part:?} in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_that_would_lose_locks_is_named() {
    let server = KafkaServer::start().unwrap();
    for (name, value) in [
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("retention.bytes", "1000000"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000"),
    ] {
        let mut settings = RIGHT.to_vec();
        settings.retain(|(right, _)| *right != name);
        settings.push((name, value));
        // Named after what is wrong with it.
        make(&server, name, &settings).await;
        let error = refused(&server.url(name)).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let told = error.to_string();
        assert!(told.contains(&format!("{name} is {value} and must be")), "{told}");
        assert_eq!(told.matches("must be").count(), 1, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_made_as_it_is_asked_for() {
    let server = KafkaServer::start().unwrap();
    let backend = KafkaBackend::connect(&format!("{}?partitions=3", server.url("locks"))).await.unwrap();
    drop(backend);
    // What was made is right, and is found again.
    drop(connect(&server).await);
    let error = refused(&format!("{}?partitions=2", server.url("locks"))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("has 3 partitions, and 2 are asked for"), "{error}");
    let error = refused(&format!("{}?replication=2", server.url("more"))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_port_and_somebody_else_are_told_in_time() {
    let server = KafkaServer::start().unwrap();
    let url = server.url("locks");
    server.kill().unwrap();
    let start = Instant::now();
    let error = refused(&url).await;
    assert!(start.elapsed() <= SOON + SOON / 2, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("no Kafka broker answers"), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    let redis = RedisServer::start().unwrap();
    let start = Instant::now();
    let error = refused(&format!("kafka://{}/locks", redis.addr())).await;
    assert!(start.elapsed() <= SOON + SOON / 2, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_told_in_time() {
    let server = KafkaServer::start().unwrap();
    server.pause().unwrap();
    let start = Instant::now();
    let error = refused(&server.url("locks")).await;
    assert!(start.elapsed() <= SOON + SOON / 2, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
