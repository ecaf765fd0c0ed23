//! Servers and connections that fail in the middle.

use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{Attempt, Claim, ErrorKind, LockBackend, LockClient, Mode, Queue, Release, Released, Renewal};
use testbed::{Fsync, Proxy, RedisServer};
use tokio::time::{Instant, timeout};

use crate::bench::{TTL, acquire, calls, claim, connect, granted, key, kind, queued, release, reset, until};

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_server_forgets_the_scripts() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    let renewals: Vec<Renewal> =
        (0..3).map(|order| Renewal { claim: one.clone(), ttl: TTL, order }).collect();
    for renewed in backend.clone().renew(renewals).await {
        renewed.unwrap();
    }
    reset(&server);
    release(&backend, &one).await.unwrap();
    let calls = calls(&server);
    assert_eq!(calls["evalsha"], 2, "one that misses and one that acts: {calls:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_subscription_is_killed_while_somebody_waits() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (connect(&server).await, LockClient::new(connect(&server).await));
    let held = claim("a", Mode::Exclusive);
    granted(&one, &held).await;
    let lock = two.lock("a").unwrap();
    let waiter = tokio::spawn(async move { lock.exclusive().acquire().await.unwrap() });
    until("it waits", async || !one.clone().inspect(key("a")).await.unwrap().waiters.is_empty()).await;
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    // Whether this comes before or after the new subscription: the waiter looks for itself.
    until("released", async || release(&one, &held).await.is_ok()).await;
    let start = Instant::now();
    let guard = timeout(BOUND, waiter).await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "woken by polling only: {:?}", start.elapsed());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_restarts_empty() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let (one, two) = (claim("a", Mode::Exclusive), claim("a", Mode::Exclusive));
    let before = granted(&backend, &one).await.fence.token;
    queued(&backend, &two).await;
    server.restart().unwrap();
    until("connected again", async || backend.clone().inspect(key("a")).await.is_ok()).await;
    assert!(backend.clone().inspect(key("a")).await.unwrap().is_free());
    let renewal = Renewal { claim: one.clone(), ttl: TTL, order: 1 };
    assert_eq!(kind(backend.clone().renew(vec![renewal]).await.remove(0)), ErrorKind::Lost);
    // The waiter's heartbeat finds the lock free; its token is larger although the server has lost the old one.
    assert!(granted(&backend, &two).await.fence.token > before);
    assert_eq!(release(&backend, &one).await.unwrap(), Released::NotHeld);
}

#[tokio::test]
async fn a_server_that_keeps_its_data_keeps_the_locks() {
    let server = RedisServer::options().appendfsync(Fsync::Always).start().unwrap();
    let backend = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    let lease = granted(&backend, &one).await;
    server.restart().unwrap();
    until("connected again", async || backend.clone().inspect(key("a")).await.is_ok()).await;
    let renewal = Renewal { claim: one.clone(), ttl: TTL, order: 1 };
    assert_eq!(backend.clone().renew(vec![renewal]).await.remove(0).unwrap().fence, lease.fence);
}

#[tokio::test]
async fn a_dead_server_makes_nobody_hang_and_is_found_again() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    server.kill().unwrap();
    until("the loss is noticed", async || {
        let refused = timeout(BOUND, acquire(&backend, &claim("b", Mode::Exclusive))).await.expect("bounded");
        kind(refused) == ErrorKind::Unavailable
    })
    .await;
    let refused = release(&backend, &one).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(refused.to_string().contains(&server.port().to_string()), "{refused}");
    server.restart().unwrap();
    until("found again", async || acquire(&backend, &claim("b", Mode::Exclusive)).await.is_ok()).await;
}

async fn through(proxy: &Proxy, server: &RedisServer) -> Arc<RedisBackend> {
    RedisBackend::builder(&server.url_at(proxy.addr()))
        .request_timeout(Duration::from_millis(300))
        .connect_timeout(Duration::from_millis(500))
        .connect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_told_as_it_is_and_can_be_taken_back() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&proxy, &server).await;
    let one = claim("a", Mode::Exclusive);
    proxy.drop_replies(true);
    let lost = timeout(BOUND, acquire(&backend, &one)).await.unwrap();
    assert_eq!(kind(lost), ErrorKind::Indeterminate);
    proxy.drop_replies(false);
    // It was carried out: asking again gives the same grant, also on a new connection.
    let mut found = None;
    until("connected again", async || {
        found = acquire(&backend, &one).await.ok();
        found.is_some()
    })
    .await;
    assert!(matches!(found, Some(Attempt::Granted(_))));
    let withdraw = Release { claim: one.clone(), answered: false, only_waiting: false };
    assert_eq!(backend.clone().release(vec![withdraw]).await.remove(0).unwrap(), Released::Released);
    assert_eq!(acquire(&backend, &one).await.unwrap(), Attempt::Gone, "it never comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_acquire_leaves_no_ghost() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&proxy, &server).await;
    let direct = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    proxy.hold_requests(true);
    assert_eq!(kind(acquire(&backend, &one).await), ErrorKind::Indeterminate);
    let withdraw = Release { claim: one.clone(), answered: false, only_waiting: false };
    assert_eq!(direct.clone().release(vec![withdraw]).await.remove(0).unwrap(), Released::NotHeld);
    reset(&server);
    proxy.hold_requests(false);
    until("the late request has come", async || calls(&server).get("evalsha").is_some_and(|&n| n > 0)).await;
    assert!(direct.clone().inspect(key("a")).await.unwrap().is_free());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_silent_is_replaced() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&proxy, &server).await;
    proxy.drop_requests(true);
    // Also when the caller has more haste than the connection's own timeout.
    let hasty = timeout(Duration::from_millis(50), acquire(&backend, &claim("a", Mode::Exclusive))).await;
    assert!(hasty.is_err());
    let subscribed = || server.command(&["CLIENT", "LIST"]).unwrap().as_text().unwrap().contains(" sub=1 ");
    // No other one can subscribe while its requests are dropped.
    until("the silent connection is given up", async || !subscribed()).await;
    proxy.drop_requests(false);
    let one = claim("b", Mode::Exclusive);
    until("a fresh connection serves", async || acquire(&backend, &one).await.is_ok()).await;
}

#[tokio::test]
async fn a_closed_backend_says_so() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    backend.clone().close().await.unwrap();
    backend.clone().close().await.unwrap();
    assert_eq!(kind(acquire(&backend, &claim("a", Mode::Exclusive)).await), ErrorKind::Closed);
    until("the connection has ended", async || server.info("connected_clients").unwrap() == "1").await;
}

#[test]
fn a_backend_outlives_the_runtime_that_it_was_made_on() {
    let server = RedisServer::start().unwrap();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let backend = first.block_on(connect(&server));
    drop(first);
    runtime().block_on(async {
        until("it works on another runtime", async || {
            timeout(BOUND, acquire(&backend, &claim("a", Mode::Shared))).await.unwrap().is_ok()
        })
        .await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_hear_at_once_that_they_were_broken_or_taken_over() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (LockClient::new(connect(&server).await), connect(&server).await);
    let guard = one.lock("a").unwrap().exclusive().owner("me").acquire().await.unwrap();
    two.clone().break_claims(key("a"), lockcore::BreakTarget::All).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(2), guard.lost()).await.unwrap(), lockcore::Loss::Broken);

    let guard = one.lock("b").unwrap().exclusive().owner("me").acquire().await.unwrap();
    let over = Claim::new(key("b"), Mode::Exclusive, TTL).with_owner(Some("me".into())).taking_over(true);
    let attempt = two.clone().acquire(Arc::new(over), Queue::Never).await.unwrap();
    assert!(matches!(attempt, Attempt::Granted(_)));
    assert_eq!(timeout(Duration::from_secs(2), guard.lost()).await.unwrap(), lockcore::Loss::TakenOver);
}

/// What the server sees after its clock went back an hour: all stored moments lie an hour ahead.
#[tokio::test]
async fn a_clock_that_goes_back_neither_freezes_nor_revives_anything() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let one = claim("a", Mode::Exclusive);
    let before = granted(&backend, &one).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut header: Vec<u8> = redis::cmd("GET").arg("lock/{a}").query_async(&mut raw).await.unwrap();
    for at in [3, 19, 43] {
        let moment = f64::from_le_bytes(header[at..at + 8].try_into().unwrap()) + 3600e6;
        header[at..at + 8].copy_from_slice(&moment.to_le_bytes());
    }
    let mut set = redis::cmd("SET");
    set.arg("lock/{a}").arg(&header).arg("KEEPTTL");
    set.query_async::<()>(&mut raw).await.unwrap();

    let left = backend.clone().inspect(key("a")).await.unwrap().holders[0].left;
    assert!(left <= TTL, "the lease did not get longer: {left:?}");
    assert!(left + Duration::from_secs(5) > TTL, "nor shorter: {left:?}");
    let renewal = Renewal { claim: one.clone(), ttl: Duration::from_millis(50), order: 1 };
    backend.clone().renew(vec![renewal]).await.remove(0).unwrap();
    let two = claim("a", Mode::Exclusive);
    queued(&backend, &two).await;
    until("time goes on", async || matches!(acquire(&backend, &two).await.unwrap(), Attempt::Granted(_)))
        .await;
    let after = granted(&backend, &two).await;
    assert!(after.fence.token > before.fence.token);
    assert!(
        after.fence.token.get() > before.fence.token.get() + 3_500_000_000,
        "an hour of the old clock was seen"
    );
}

/// Everybody whose wait is over asks who is in the way, and each answer is as long as the queue: together they must not
/// exceed what the server keeps for one client before it cuts the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_gives_up_at_once_keeps_its_connection() {
    const CROWD: usize = 1000;
    let server = RedisServer::start().unwrap();
    let held = claim("a", Mode::Exclusive);
    granted(&connect(&server).await, &held).await;
    let backend = connect(&server).await;
    let client = LockClient::new(backend.clone());
    let connections = || server.info("total_connections_received").unwrap().parse::<u64>().unwrap();
    let before = connections();
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| client.lock("a").unwrap().exclusive().wait(Duration::from_secs(2)))
        .map(|wait| tokio::spawn(async move { wait.acquire().await.unwrap_err() }))
        .collect();
    for one in crowd {
        let error = one.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert_eq!(connections(), before + 1, "the other one asks for this number; it was cut and made again");
    assert!(backend.clone().inspect(key("a")).await.unwrap().waiters.is_empty());
}
