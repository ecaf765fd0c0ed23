//! Brokers that know their users: who may not is told what is missing, and who may notices nothing.

use std::time::Duration;

use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::{KafkaBackend, Settings};
use lockcore::{ErrorKind, LockClient, Loss};
use testbed::KafkaServer;
use tokio::time::{Instant, sleep, timeout};

use crate::{SOON, raw, refused};

/// All that is needed to use a topic that is there, but to shorten its log. The first of them is part of each of the last two.
const RIGHTS: [&str; 4] = ["Describe", "DescribeConfigs", "Read", "Write"];

fn server() -> KafkaServer {
    KafkaServer::options().user("ann", "geheim").user("bob", "geheim").start().unwrap()
}

fn url_of(server: &KafkaServer, user: &str, password: &str, topic: &str) -> String {
    let plain = "security.protocol=SASL_PLAINTEXT&sasl.mechanisms=PLAIN";
    format!("{}?{plain}&sasl.username={user}&sasl.password={password}", server.url(topic))
}

fn ann(server: &KafkaServer, topic: &str) -> String {
    url_of(server, "ann", "geheim", topic)
}

async fn operator(server: &KafkaServer) -> LockClient {
    let url = server.url_at(server.operator(), "locks");
    LockClient::new(KafkaBackend::connect(&url).await.unwrap())
}

/// It is refused because of this right, in time, and with the command that gives it.
async fn lacks(server: &KafkaServer, right: &str, topic: &str) {
    let start = Instant::now();
    let error = refused(&ann(server, topic)).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{right}: {error}");
    assert!(start.elapsed() < SOON, "{right}: {:?}", start.elapsed());
    for part in [
        format!("the user ann has no right to {right} on the topic {topic}."),
        format!("kafka-acls.sh --bootstrap-server {} --add", server.addr()),
        format!("--allow-principal User:ann --operation {right} --topic {topic}"),
    ] {
        assert!(error.to_string().contains(&part), "no {part:?} in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_is_named() {
    let server = server();
    drop(operator(&server).await);
    lacks(&server, "Describe", "locks").await;
    server.allow("ann", "Describe", "locks").unwrap();
    lacks(&server, "DescribeConfigs", "locks").await;
    server.allow("ann", "DescribeConfigs", "locks").unwrap();
    server.allow("ann", "Read", "locks").unwrap();
    lacks(&server, "Write", "locks").await;
    // It may write elsewhere.
    server.allow("ann", "Write", "other").unwrap();
    lacks(&server, "Write", "locks").await;
    server.allow("ann", "Write", "locks").unwrap();
    server.disallow("ann", "Read", "locks").unwrap();
    lacks(&server, "Read", "locks").await;
    server.allow("ann", "Read", "locks").unwrap();
    let locks = LockClient::new(KafkaBackend::connect(&ann(&server, "locks")).await.unwrap());
    locks.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_by_who_may() {
    let server = server();
    lacks(&server, "Describe", "locks").await;
    for right in RIGHTS {
        server.allow("ann", right, "locks").unwrap();
    }
    lacks(&server, "Create", "locks").await;
    server.allow("ann", "Create", "locks").unwrap();
    KafkaBackend::connect(&ann(&server, "locks")).await.unwrap();
}

/// Where the log begins.
fn start_of(server: &KafkaServer) -> i64 {
    let asking: BaseConsumer = raw(server).create().unwrap();
    asking.fetch_watermarks("locks", 0, SOON).unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_told_are_enough() {
    let server = server();
    for right in RIGHTS.iter().chain(&["Create"]) {
        server.allow("ann", right, "locks").unwrap();
    }
    let settings = Settings { checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
    let connect = || KafkaBackend::builder(&ann(&server, "locks")).settings(settings.clone()).connect();
    let locks = LockClient::new(connect().await.unwrap());
    let held = locks.lock("held").unwrap().exclusive().acquire().await.unwrap();
    let write = async || {
        for _ in 0..20 {
            locks.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
        }
    };
    // Without the right to delete nothing is, and all else works.
    for _ in 0..3 {
        write().await;
        sleep(SOON).await;
    }
    assert_eq!(start_of(&server), 0);
    server.allow("ann", "Delete", "locks").unwrap();
    timeout(10 * SOON, async {
        while start_of(&server) == 0 {
            write().await;
            sleep(SOON).await;
        }
    })
    .await
    .expect("the log is shortened");
    let newcomer = LockClient::new(connect().await.unwrap());
    let lock = newcomer.lock("held").unwrap();
    assert_eq!(lock.inspect().await.unwrap().holders[0].id, held.claim_id());
    held.release().await.unwrap();
    lock.exclusive().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_it_is_not_believed_to_be_is_told_at_once() {
    let server = server();
    drop(operator(&server).await);
    let plain = server.url("locks");
    for (url, kind, why) in [
        (url_of(&server, "ann", "wrong", "locks"), ErrorKind::Denied, "Invalid username or password"),
        (url_of(&server, "nobody", "geheim", "locks"), ErrorKind::Denied, "Invalid username or password"),
        (
            format!("{plain}?security.protocol=SASL_PLAINTEXT&sasl.mechanisms=PLAIN"),
            ErrorKind::InvalidArgument,
            "sasl.username",
        ),
        (format!("{plain}?security.protocol=SASL_PLAINTEXT"), ErrorKind::InvalidArgument, "GSSAPI"),
    ] {
        let start = Instant::now();
        let error = refused(&url).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(why), "no {why:?} in: {error}");
        assert!(start.elapsed() < SOON / 2, "{:?}: {error}", start.elapsed());
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
    }
    // Neither says who it is nor speaks as the listener does.
    let error = refused(&plain).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("security.protocol"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_end_what_is_held_and_come_back() {
    const TTL: Duration = Duration::from_secs(6);
    let server = server();
    let observer = operator(&server).await;
    for lost in ["Write", "Read"] {
        for right in RIGHTS {
            server.allow("ann", right, "locks").unwrap();
        }
        let locks = LockClient::builder(KafkaBackend::connect(&ann(&server, "locks")).await.unwrap());
        let locks = locks.request_timeout(SOON).build();
        let lock = locks.lock("k").unwrap();
        let held = lock.exclusive().ttl(TTL).acquire().await.unwrap();
        let start = Instant::now();
        server.disallow("ann", lost, "locks").unwrap();
        // What was asked before may still be answered.
        let error = timeout(4 * SOON, async {
            loop {
                if let Err(error) = lock.exclusive().try_acquire().await {
                    return error;
                }
            }
        });
        let error = error.await.unwrap_or_else(|_| panic!("{lost}: it is told"));
        match lost {
            "Write" => {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                assert!(error.to_string().contains("no right to Write on the topic locks"), "{error}");
            }
            // It is written, and its answer cannot be read.
            _ => assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}"),
        }
        assert_eq!(timeout(2 * TTL, held.lost()).await.expect("by its deadline"), Loss::Expired, "{lost}");
        assert!(start.elapsed() <= TTL + SOON / 2, "{lost}: {:?}", start.elapsed());
        let next = observer.lock("k").unwrap().exclusive().wait(10 * SOON).acquire().await.unwrap();
        server.allow("ann", lost, "locks").unwrap();
        // It notices by itself.
        let again = timeout(10 * SOON, async {
            loop {
                match lock.exclusive().try_acquire().await {
                    Ok(none) => return none,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
        assert!(again.await.expect("it goes on").is_none(), "{lost}");
        next.release().await.unwrap();
        lock.exclusive().wait(SOON).acquire().await.unwrap().release().await.unwrap();
    }
}
