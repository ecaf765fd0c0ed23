//! Servers that are away, or cannot act: a short time is ridden out, a longer one is told in time, and nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, DeleteOptions, GetOptions};
use lock_etcd::EtcdBackend;
use lockcore::{Attempt, ErrorKind, LockBackend, LockClient, Loss, Mode, Queue, Release, Released};
use testbed::{EtcdCluster, EtcdServer, Proxy};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::{SOON, connect, join, kept, raw, until};

const TTL: Duration = Duration::from_secs(6);

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(3);

/// Kills the server, and starts it again after a while.
async fn away_for_a_while(server: &Arc<EtcdServer>) {
    server.kill().unwrap();
    let server = server.clone();
    sleep(AWAY).await;
    spawn_blocking(move || server.restart()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_seconds_costs_an_acquire_a_pause() {
    let server = Arc::new(EtcdServer::start().unwrap());
    let locks = LockClient::new(connect(&server).await);
    let lock = locks.lock("k").unwrap();
    let ((), guard) =
        tokio::join!(away_for_a_while(&server), lock.exclusive().wait(Duration::from_secs(15)).acquire());
    guard.unwrap().release().await.unwrap();
    assert!(lock.inspect().await.unwrap().is_free());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_seconds_keeps_holders_and_waiters() {
    let server = Arc::new(EtcdServer::start().unwrap());
    let (one, other) = (LockClient::new(connect(&server).await), LockClient::new(connect(&server).await));
    let held = one.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().wait(Duration::from_secs(30)).acquire());
    until("it waits", async || !one.lock("k").unwrap().inspect().await.unwrap().waiters.is_empty()).await;
    away_for_a_while(&server).await;
    // The next renewal is due by now, and is answered.
    sleep(TTL / 2).await;
    assert!(held.is_held());
    held.release().await.unwrap();
    let next = timeout(SOON, waiting).await.expect("it is told").unwrap().unwrap();
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_waits_and_holds_end_in_time() {
    let cluster = EtcdCluster::start().unwrap();
    let backend = EtcdBackend::connect(&cluster.url()).await.unwrap();
    let locks = LockClient::new(backend);
    let guard = locks.lock("held").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let since = Instant::now();
    for gone in [0, 1] {
        cluster.member(gone).kill().unwrap();
    }
    let wait = Duration::from_secs(5);
    let lock = locks.lock("k").unwrap();
    let start = Instant::now();
    let error = lock.exclusive().wait(wait).acquire().await.unwrap_err();
    // As long as the wait, and one request for the withdrawal.
    assert!(start.elapsed() <= wait + SOON + SOON / 2, "{:?}", start.elapsed());
    assert!(error.is_retryable(), "{error}");
    // Two members refuse the connection, and the third one says why that matters.
    until("the missing majority is told", async || {
        let start = Instant::now();
        let error = lock.exclusive().try_acquire().await.unwrap_err();
        assert!(start.elapsed() <= 2 * SOON + SOON / 2, "{:?}", start.elapsed());
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Indeterminate), "{error}");
        error.to_string().contains("majority")
    })
    .await;
    assert_eq!(timeout(TTL, guard.lost()).await.expect("by its deadline"), Loss::Expired);
    assert!(since.elapsed() <= TTL + SOON / 2, "{:?}", since.elapsed());
    for back in [0, 1] {
        cluster.member(back).restart().or_else(|_| cluster.member(back).restart()).unwrap();
    }
    let guard = lock.exclusive().wait(5 * SOON).acquire().await.unwrap();
    guard.release().await.unwrap();
    until("nothing is left behind", async || lock.inspect().await.is_ok_and(|seen| seen.is_free())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_ends_requests_in_time() {
    let server = EtcdServer::start().unwrap();
    let backend = EtcdBackend::builder(&server.url()).request_timeout(SOON).connect().await.unwrap();
    server.pause().unwrap();
    let claim = kept("k", Mode::Exclusive, TTL);
    let start = Instant::now();
    let error = backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap_err();
    // For its lease, and for the claim.
    assert!(start.elapsed() <= 2 * SOON + SOON / 2, "{:?}", start.elapsed());
    assert!(error.is_retryable() && error.to_string().contains("did not answer in time"), "{error}");
    server.resume().unwrap();
    let release = Release { claim: claim.clone(), answered: false, only_waiting: false };
    backend.clone().release(vec![release]).await.pop().unwrap().unwrap();
    assert_eq!(join(&backend, &claim).await, Attempt::Gone);
}

#[tokio::test]
async fn a_connection_that_went_silent_is_given_up_though_nothing_is_asked() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let _idle = EtcdBackend::connect(&server.url_at(proxy.addr())).await.unwrap();
    let before = proxy.counters().accepted;
    proxy.stall(true);
    let start = Instant::now();
    until("there is another connection", async || proxy.counters().accepted > before).await;
    // A probe after 6 s at most, which has 4 s to be answered.
    assert!(start.elapsed() <= 6 * SOON, "{:?}", start.elapsed());
}

/// What a full database means: nobody new comes in, and whoever is in stays in, or goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_lets_nobody_in_and_everybody_out() {
    let server = EtcdServer::options().arg("quota-backend-bytes", "2000000").start().unwrap();
    let backend = connect(&server).await;
    let locks = LockClient::new(backend.clone());
    let held = locks.lock("held").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let (first, second) = (kept("k", Mode::Exclusive, TTL * 5), kept("k", Mode::Exclusive, TTL * 5));
    assert!(matches!(join(&backend, &first).await, Attempt::Granted(_)));
    assert!(matches!(join(&backend, &second).await, Attempt::Queued(_)));
    let mut raw = raw(&server).await;
    let mut filled = 0;
    while raw.put(format!("fill/{filled}"), vec![0; 100_000], None).await.is_ok() {
        filled += 1;
    }
    let start = Instant::now();
    let error = locks.lock("new").unwrap().exclusive().wait(SOON).acquire().await.unwrap_err();
    assert!(start.elapsed() <= 2 * SOON, "{:?}", start.elapsed());
    assert!(error.is_retryable(), "{error}");
    let error = locks.lock("new").unwrap().exclusive().try_acquire().await.unwrap_err();
    // The very write that fills the database is done, and answered in the same words.
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    assert!(error.to_string().contains("NOSPACE"), "{error}");
    // Renewals go on.
    sleep(TTL).await;
    assert!(held.is_held());
    // Letting go works, and the next one is let in.
    held.release().await.unwrap();
    let release = Release { claim: first.clone(), answered: true, only_waiting: false };
    assert_eq!(backend.clone().release(vec![release]).await.pop().unwrap().unwrap(), Released::Released);
    let emptied = raw.delete("fill/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
    raw.compact(emptied.header().unwrap().revision(), None).await.unwrap();
    raw.defragment().await.unwrap();
    let mut which = AlarmOptions::new();
    which.with_member(raw.status().await.unwrap().header().unwrap().member_id());
    raw.maintenance_client().alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(which)).await.unwrap();
    assert!(matches!(join(&backend, &second).await, Attempt::Granted(_)));
    locks.lock("new").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    let left = raw.get("lock/new/", Some(GetOptions::new().with_prefix())).await.unwrap();
    assert!(left.kvs().iter().all(|kv| kv.key_str().unwrap().contains("/~d/")), "{left:?}");
}
