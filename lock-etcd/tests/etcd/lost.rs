//! What ends a hold from outside: its guard learns it, at once or with its next renewal.

use std::time::Duration;

use etcd_client::{DeleteOptions, GetOptions};
use lockcore::{Exclusive, LockClient, LockGuard, Loss};
use testbed::EtcdServer;
use tokio::time::{Instant, timeout};

use crate::{SOON, connect, raw};

const TTL: Duration = Duration::from_secs(6);

async fn is_told_within(limit: Duration, guard: &LockGuard<Exclusive>) {
    let start = Instant::now();
    let loss = timeout(TTL, guard.lost()).await.expect("it learns of it");
    assert_eq!(loss, Loss::Unknown);
    assert!(start.elapsed() <= limit, "after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_lease_that_was_revoked_is_noticed_at_once() {
    let server = EtcdServer::start().unwrap();
    let locks = LockClient::new(connect(&server).await);
    let guard = locks.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let mut raw = raw(&server).await;
    let prefix = Some(GetOptions::new().with_prefix());
    let lease = raw.get("lock/k/~x/", prefix).await.unwrap().kvs()[0].lease();
    raw.lease_client().revoke(lease).await.unwrap();
    is_told_within(SOON / 4, &guard).await;
    // The next one lies on another lease.
    let lock = locks.lock("k").unwrap();
    lock.exclusive().ttl(TTL).acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_key_that_was_deleted_is_noticed_though_its_lease_lives() {
    let server = EtcdServer::start().unwrap();
    let locks = LockClient::new(connect(&server).await);
    let guard = locks.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let other = locks.lock("other").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let prefix = Some(DeleteOptions::new().with_prefix());
    raw(&server).await.delete("lock/k/", prefix).await.unwrap();
    // A renewal comes after a third of the ttl at the latest; then it takes a request.
    is_told_within(TTL / 3 + SOON / 2, &guard).await;
    assert!(other.is_held(), "it lies on the same lease");
}

#[tokio::test]
async fn news_that_were_deleted_take_no_lock_away() {
    let server = EtcdServer::start().unwrap();
    let locks = LockClient::new(connect(&server).await);
    let guard = locks.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let prefix = Some(DeleteOptions::new().with_prefix());
    let gone = raw(&server).await.delete("lock/~news/", prefix).await.unwrap();
    assert!(gone.deleted() > 0, "the lease has a name there");
    assert!(timeout(TTL, guard.lost()).await.is_err(), "it is held for longer than a renewal takes");
    guard.release().await.unwrap();
}
