//! `restart_grace`: a server that may have forgotten who holds grants nothing until nobody can believe to hold.

use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{Attempt, Claim, Conversion, ErrorKind, LockBackend, LockClient, Mode, Renewal, Result};
use testbed::{Fsync, RedisServer, Reply};
use tokio::time::{Instant, timeout};

use crate::bench::{acquire, claim, connect, granted, key, kind, release, until};

/// The shortest that is worth it: a server tells its uptime in whole seconds.
const GRACE: Duration = Duration::from_secs(2);

async fn graced(server: &RedisServer) -> Arc<RedisBackend> {
    RedisBackend::connect(&format!("{}?restart_grace=2s", server.url())).await.unwrap()
}

fn short(text: &str, mode: Mode) -> Arc<Claim> {
    Arc::new(Claim::new(key(text), mode, GRACE))
}

async fn convert(backend: &Arc<RedisBackend>, claim: &Arc<Claim>, to: Mode, order: u64) -> Result<Attempt> {
    backend.clone().convert(Conversion { claim: claim.clone(), to, order }).await
}

async fn over(backend: &Arc<RedisBackend>) {
    until("the grace is over", async || acquire(backend, &short("probe", Mode::Shared)).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_lost_its_state_grants_nothing_until_the_leases_of_before_are_over() {
    let start = Instant::now();
    let server = RedisServer::start().unwrap();
    let one = graced(&server).await;
    let held = short("a", Mode::Exclusive);
    let error = acquire(&one, &held).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "a first start may be a restart: {error}");
    assert!(error.message().contains("restart_grace"), "{error}");
    until("granted", async || acquire(&one, &held).await.is_ok()).await;
    assert!(start.elapsed() >= GRACE, "{:?}", start.elapsed());

    let start = Instant::now();
    server.restart().unwrap();
    // A client that was connected before, and one that comes now.
    let two = graced(&server).await;
    let mut refusals = [0, 0];
    let next = [short("a", Mode::Exclusive), short("b", Mode::Shared)];
    let mut granted_after = [None, None];
    until("both are granted", async || {
        for (n, backend) in [&one, &two].into_iter().enumerate() {
            match acquire(backend, &next[n]).await {
                Ok(_) => _ = granted_after[n].get_or_insert_with(|| start.elapsed()),
                Err(error) if error.message().contains("restart_grace") => refusals[n] += 1,
                Err(_) => {}
            }
        }
        granted_after.iter().all(Option::is_some)
    })
    .await;
    assert!(refusals.iter().all(|&count| count > 0), "{refusals:?}");
    for after in granted_after {
        assert!(after.unwrap() >= GRACE, "{granted_after:?}");
    }
}

/// It passed for harmless when it was made, and goes out on the connection that learned of the restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waited_for_the_connection_is_not_granted() {
    let server = RedisServer::start().unwrap();
    let backend = graced(&server).await;
    over(&backend).await;
    server.kill().unwrap();
    let one = short("a", Mode::Exclusive);
    until("the loss is noticed", async || acquire(&backend, &one).await.is_err()).await;
    let asking = tokio::spawn(async move {
        loop {
            match acquire(&backend, &one).await {
                Err(error) if !error.message().contains("restart_grace") => {}
                answer => return answer,
            }
        }
    });
    server.restart().unwrap();
    let error = timeout(Duration::from_secs(10), asking).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

/// A server that kept its data may hand over: its message is not believed. Holders renew and release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_within_the_grace_is_not_believed() {
    let server = RedisServer::options().appendfsync(Fsync::Always).start().unwrap();
    // One that does not obey makes the server grant.
    let other = connect(&server).await;
    let (one, two) = (graced(&server).await, graced(&server).await);
    over(&one).await;
    let reader = claim("b", Mode::Shared);
    granted(&other, &reader).await;
    let held = claim("a", Mode::Exclusive);
    granted(&other, &held).await;
    let locks = LockClient::new(two.clone());
    let lock = locks.lock("a").unwrap();
    let waiter =
        tokio::spawn(
            async move { lock.exclusive().ttl(GRACE).wait(Duration::from_secs(30)).acquire().await },
        );
    until("it waits", async || !other.clone().inspect(key("a")).await.unwrap().waiters.is_empty()).await;
    let start = Instant::now();
    server.restart().unwrap();
    until("all listen again", async || {
        matches!(server.command(&["PUBSUB", "CHANNELS"]).unwrap(), Reply::List(channels) if channels.len() == 3)
    })
    .await;
    // Of the one that obeys, a holder's upgrade is a grant too; its renewal and its way back are none.
    let renewal = Renewal { claim: reader.clone(), ttl: Duration::from_secs(60), order: 1 };
    let lease = one.clone().renew(vec![renewal]).await.remove(0).unwrap();
    assert!(lease.left <= GRACE, "cut to what a restart allows: {:?}", lease.left);
    assert_eq!(kind(convert(&one, &reader, Mode::Exclusive, 1).await), ErrorKind::Unavailable);
    assert!(matches!(convert(&one, &reader, Mode::Shared, 2).await.unwrap(), Attempt::Granted(_)));
    release(&other, &held).await.unwrap();
    let guard = timeout(Duration::from_secs(30), waiter).await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() >= GRACE, "it believed the message: {:?}", start.elapsed());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn leases_that_would_outlast_the_grace_are_refused() {
    let server = RedisServer::start().unwrap();
    let backend = graced(&server).await;
    let error = acquire(&backend, &claim("a", Mode::Exclusive)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.message().contains("30s") && error.message().contains("restart_grace=2s"), "{error}");
    for url in ["redis://127.0.0.1?restart_grace=soon", "redis://127.0.0.1?restart_grace=200y"] {
        assert_eq!(kind(RedisBackend::connect(url).await), ErrorKind::InvalidArgument, "{url}");
    }
}

#[tokio::test]
async fn with_replicas_too() {
    let start = Instant::now();
    let server = RedisServer::start().unwrap();
    let _replica = RedisServer::options().replica_of(&server).start().unwrap();
    let url = format!("{}?replicas=1&restart_grace=2s", server.url());
    let backend = RedisBackend::connect(&url).await.unwrap();
    let refused = acquire(&backend, &short("a", Mode::Exclusive)).await.unwrap_err();
    assert!(refused.message().contains("restart_grace"), "{refused}");
    over(&backend).await;
    assert!(start.elapsed() >= GRACE, "{:?}", start.elapsed());
}
