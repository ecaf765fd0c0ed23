//! Servers, URLs and data that are not what they should be: a typed error that says what to do, never a hang.

use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{Error, ErrorKind, LockBackend, Mode, Queue, Release, Renewal};
use testbed::RedisServer;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::bench::{TTL, acquire, claim, connect, granted, key, kind, queued, release};

/// No call may take longer.
const BOUND: Duration = Duration::from_secs(8);

async fn refused(url: &str) -> Error {
    let connected = timeout(BOUND, RedisBackend::connect(url)).await;
    connected.expect("connecting must end in bounded time").expect_err("connecting must fail")
}

#[tokio::test]
async fn urls_that_make_no_sense() {
    for url in [
        "",
        "127.0.0.1",
        "http://127.0.0.1",
        "redis://",
        "redis://:secret@127.0.0.1/zero",
        "redis://:secret@127.0.0.1:99999",
        "redis://:secret@127.0.0.1/?protocol=resp2",
        "redis://:secret@127.0.0.1/?ca=/nowhere.pem",
        "rediss://:secret@127.0.0.1/?ca=/nowhere.pem",
    ] {
        let error = refused(url).await;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    let brace = RedisBackend::builder("redis://127.0.0.1").prefix("a{b}").connect().await;
    assert_eq!(kind(brace), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(&format!("redis://:secret@{port}")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert!(!error.message().contains("rediss"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_port_that_accepts_and_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let connect = RedisBackend::builder(&url).connect_timeout(Duration::from_millis(300)).connect();
    assert_eq!(kind(timeout(BOUND, connect).await.unwrap()), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn wrong_passwords() {
    let server = RedisServer::options().password("right").start().unwrap();
    let port = server.port();
    for url in [format!("redis://:wrong@127.0.0.1:{port}"), format!("redis://nobody:wrong@127.0.0.1:{port}")]
    {
        let error = refused(&url).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!format!("{error} {error:?}").contains(":wrong@"), "{error:?}");
    }
    assert_eq!(refused(&format!("redis://127.0.0.1:{port}")).await.kind(), ErrorKind::Denied);
    let backend = connect(&server).await;
    granted(&backend, &claim("a", Mode::Exclusive)).await;
    assert!(!format!("{backend:?}").contains("right"), "{backend:?}");
}

#[tokio::test]
async fn a_user_with_just_the_rights_that_the_docs_name() {
    let server = RedisServer::options()
        .password("root")
        .arg(
            "user",
            "locks on >pass ~lock/* &lock/news/* -@all +@connection +@read +@write +@pubsub +@scripting +info +time",
        )
        .start()
        .unwrap();
    let url = format!("redis://locks:pass@127.0.0.1:{}", server.port());
    let backend = RedisBackend::connect(&url).await.unwrap();
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    release(&backend, &one).await.unwrap();
    // Without the clock nothing is done, and why is told.
    server.command(&["ACL", "SETUSER", "locks", "-time"]).unwrap();
    assert_eq!(kind(acquire(&backend, &one).await), ErrorKind::Denied);
    // Another prefix is not theirs.
    let outside = RedisBackend::builder(&url).prefix("other/").connect().await;
    assert_eq!(kind(outside), ErrorKind::Denied);
}

#[tokio::test]
async fn a_replica_and_an_evicting_server() {
    let primary = RedisServer::start().unwrap();
    let replica = RedisServer::options().replica_of(&primary).start().unwrap();
    let error = refused(&replica.url()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("replica"), "{error}");

    for policy in ["allkeys-lru", "volatile-ttl"] {
        let evicting = RedisServer::options().arg("maxmemory-policy", policy).start().unwrap();
        let error = refused(&evicting.url()).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("noeviction"), "{error}");
    }
}

#[tokio::test]
async fn a_node_of_a_cluster() {
    let node = RedisServer::options().arg("cluster-enabled", "yes").start().unwrap();
    let error = refused(&node.url()).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("Cluster"), "{error}");
}

#[tokio::test]
async fn a_server_that_becomes_a_replica() {
    let server = RedisServer::start().unwrap();
    let other = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    server.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).unwrap();
    let error = release(&backend, &one).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test]
async fn data_of_others_under_our_keys() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    for (name, words) in [
        ("list", &["LPUSH", "lock/{list}", "x"][..]),
        ("short", &["SET", "lock/{short}", "x"]),
        ("long", &["SET", "lock/{long}", &"x".repeat(300)]),
        ("nearly", &["SET", "lock/{nearly}", &format!("f1S{}", "x".repeat(100))]),
        ("unknown", &["SET", "lock/{unknown}", &format!("f1Z{}", "x".repeat(300))]),
    ] {
        server.command(words).unwrap();
        let one = claim(name, Mode::Exclusive);
        let release = Release { claim: one.clone(), answered: false, only_waiting: false };
        let renewal = Renewal { claim: one.clone(), ttl: TTL, order: 1 };
        let errors = [
            backend.clone().acquire(one.clone(), Queue::Join).await.unwrap_err(),
            backend.clone().release(vec![release]).await.remove(0).unwrap_err(),
            backend.clone().renew(vec![renewal]).await.remove(0).unwrap_err(),
            backend.clone().inspect(key(name)).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.message().contains(&format!("lock/{{{name}}}")), "{error}");
            assert_eq!(error.key(), Some(&key(name)));
        }
    }
    // A queue that is somebody's string.
    let (one, two, three) =
        (claim("q", Mode::Exclusive), claim("q", Mode::Exclusive), claim("q", Mode::Exclusive));
    granted(&backend, &one).await;
    queued(&backend, &two).await;
    server.command(&["SET", "lock/{q}q", "x"]).unwrap();
    assert_eq!(kind(acquire(&backend, &three).await), ErrorKind::Conflict);
    assert_eq!(kind(release(&backend, &one).await), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_server_without_memory() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let (one, two) = (claim("a", Mode::Exclusive), claim("a", Mode::Exclusive));
    granted(&backend, &one).await;
    queued(&backend, &two).await;
    let alone = claim("b", Mode::Exclusive);
    granted(&backend, &alone).await;
    // The clock went back since this one was granted.
    let longer_ago = claim("d", Mode::Exclusive);
    let seen = granted(&backend, &longer_ago).await.fence.token.get() + 10_000_000;
    #[expect(clippy::cast_precision_loss, reason = "microseconds lie below 2^53")]
    let seen = (seen as f64).to_le_bytes();
    server.command(&[&b"SETRANGE"[..], b"lock/{d}", b"3", &seen]).unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let error = acquire(&backend, &claim("c", Mode::Exclusive)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("maxmemory"), "{error}");
    // Letting go always works.
    release(&backend, &alone).await.unwrap();
    release(&backend, &longer_ago).await.unwrap();
    release(&backend, &one).await.unwrap();
    release(&backend, &two).await.unwrap();
}

#[tokio::test]
async fn times_out_of_all_bounds() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    for (ttl, expected) in [
        (Duration::from_nanos(1), Duration::from_millis(10)),
        (Duration::ZERO, Duration::from_millis(10)),
        (lockcore::MAX_TTL, lockcore::MAX_TTL),
        (Duration::MAX, lockcore::MAX_TTL),
    ] {
        let one = std::sync::Arc::new(lockcore::Claim::new(key(&format!("{ttl:?}")), Mode::Exclusive, ttl));
        assert_eq!(granted(&backend, &one).await.left, expected);
        let longest = Renewal { claim: one.clone(), ttl: Duration::MAX, order: 1 };
        let renewed = backend.clone().renew(vec![longest]).await.remove(0);
        assert!(renewed.is_err() || renewed.unwrap().left == lockcore::MAX_TTL);
    }
}
