//! Brokers that are away or hang: a short time is ridden out, a longer one is told in time.

use std::sync::Arc;
use std::time::Duration;

use lockcore::Loss;
use testbed::KafkaServer;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::{SOON, client};

const TTL: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_for_seconds_keeps_holders_and_waiters() {
    let server = Arc::new(KafkaServer::start().unwrap());
    let (one, other) = (client(&server).await, client(&server).await);
    let lock = one.lock("k").unwrap();
    let held = lock.exclusive().ttl(3 * TTL).acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().wait(20 * SOON).acquire());
    while lock.inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let away = server.clone();
    spawn_blocking(move || away.restart()).await.unwrap().unwrap();
    assert!(held.is_held());
    held.release().await.unwrap();
    let next = timeout(5 * SOON, waiting).await.expect("it is told").unwrap().unwrap();
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_ends_waits_and_holds_in_time() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let since = Instant::now();
    let held = locks.lock("held").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    server.pause().unwrap();
    let (wait, start) = (Duration::from_secs(2), Instant::now());
    let error = locks.lock("k").unwrap().exclusive().wait(wait).acquire().await.unwrap_err();
    assert!(start.elapsed() <= wait + SOON, "{:?}", start.elapsed());
    assert!(error.is_retryable(), "{error}");
    assert_eq!(timeout(2 * TTL, held.lost()).await.expect("by its deadline"), Loss::Expired);
    assert!(since.elapsed() <= TTL + SOON, "{:?}", since.elapsed());
    server.resume().unwrap();
    let guard = locks.lock("k").unwrap().exclusive().wait(10 * SOON).acquire().await.unwrap();
    guard.release().await.unwrap();
    assert!(locks.lock("k").unwrap().inspect().await.unwrap().is_free());
}
