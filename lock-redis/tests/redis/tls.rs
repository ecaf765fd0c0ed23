//! `rediss://`: locks over TLS, with a user and a password, and what happens when one side speaks it and the other does not.

use std::time::Duration;

use lock_redis::{RedisBackend, RedisBuilder};
use lockcore::{Error, ErrorKind, LockClient};
use testbed::RedisServer;
use tokio::time::timeout;

/// No attempt to connect may take longer.
const BOUND: Duration = Duration::from_secs(5);

async fn refused(builder: RedisBuilder) -> Error {
    let connected = timeout(BOUND, builder.connect_timeout(Duration::from_secs(1)).connect()).await;
    connected.expect("connecting must end in bounded time").expect_err("connecting must fail")
}

#[tokio::test]
async fn locks_with_a_user_over_tls() {
    let server = RedisServer::options().tls().user("ann", "se/cr:et").start().unwrap();
    let by_option = RedisBackend::builder(&server.url()).ca_file(server.ca_path().unwrap());
    let url = format!("{}?ca={}", server.url(), server.ca_path().unwrap().display());
    let one = LockClient::new(by_option.connect().await.unwrap());
    let other = LockClient::new(RedisBackend::connect(&url).await.unwrap());
    let held = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    assert!(other.lock("k").unwrap().exclusive().try_acquire().await.unwrap().is_none());
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().acquire());
    held.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    // A new connection is encrypted like the first.
    let held = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    held.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted() {
    let server = RedisServer::options().tls().password("secret").start().unwrap();
    let stranger = RedisServer::options().tls().start().unwrap();
    for builder in [
        RedisBackend::builder(&server.url()),
        RedisBackend::builder(&server.url()).ca_file(stranger.ca_path().unwrap()),
    ] {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let report = format!("{error} {error:?}");
        assert!(report.to_lowercase().contains("certificate") && !report.contains("secret"), "{report}");
    }
}

#[tokio::test]
async fn one_side_speaks_tls_and_the_other_does_not() {
    let (plain, tls) = (RedisServer::start().unwrap(), RedisServer::options().tls().start().unwrap());
    let to_plain = RedisBackend::builder(&plain.url().replace("redis:", "rediss:"));
    let to_tls = RedisBackend::builder(&tls.url().replace("rediss:", "redis:"));
    for (builder, advice) in
        [(to_plain.ca_file(tls.ca_path().unwrap()), "a port that speaks TLS)"), (to_tls, "needs rediss://")]
    {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains(advice), "{error}");
    }
}
