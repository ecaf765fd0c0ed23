//! What others do to our keys and leases.

use std::time::Duration;

use etcd_client::DeleteOptions;
use lockcore::{Attempt, ErrorKind, LockClient, Mode, Released};
use testbed::EtcdServer;

use crate::{connect, join, kept, key_of, raw, release, renew};

const TTL: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_keepalive_that_answers_proves_nothing() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let (gone, stays) = (kept("gone", Mode::Exclusive, TTL), kept("stays", Mode::Exclusive, TTL));
    for claim in [&gone, &stays] {
        assert!(matches!(join(&backend, claim).await, Attempt::Granted(_)));
    }
    let prefix = Some(DeleteOptions::new().with_prefix());
    raw(&server).await.delete("lock/gone/", prefix).await.unwrap();
    assert_eq!(renew(&backend, &gone, 1).await.unwrap_err().kind(), ErrorKind::Lost);
    renew(&backend, &stays, 1).await.unwrap();
    let next = kept("gone", Mode::Exclusive, TTL);
    assert!(matches!(join(&connect(&server).await, &next).await, Attempt::Granted(_)));
    assert_eq!(release(&backend, &gone).await, Released::NotHeld);
}

#[tokio::test]
async fn a_waiter_whose_lease_was_revoked_is_never_granted() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let (holder, waiter) = (kept("k", Mode::Exclusive, TTL), kept("k", Mode::Exclusive, TTL * 2));
    assert!(matches!(join(&one, &holder).await, Attempt::Granted(_)));
    assert!(matches!(join(&other, &waiter).await, Attempt::Queued(_)));
    let mut raw = raw(&server).await;
    let lease = key_of(&mut raw, "lock/k", &waiter).await.lease();
    raw.lease_client().revoke(lease).await.unwrap();
    assert_eq!(release(&one, &holder).await, Released::Released);
    assert_eq!(join(&other, &waiter).await, Attempt::Gone);
    assert_eq!(join(&other, &waiter).await, Attempt::Gone, "and it stays so");
    // What comes next has another lease.
    let next = kept("k", Mode::Exclusive, TTL * 2);
    assert!(matches!(join(&other, &next).await, Attempt::Granted(_)));
}

#[tokio::test]
async fn a_compaction_during_a_wait_is_not_noticed() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (LockClient::new(connect(&server).await), LockClient::new(connect(&server).await));
    let guard = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().acquire());
    let mut raw = raw(&server).await;
    let mut revision = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        revision = raw.put("elsewhere", "x", None).await.unwrap().header().unwrap().revision();
    }
    raw.compact(revision, None).await.unwrap();
    guard.release().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap().unwrap();
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_claim_that_is_renewed_no_more_leaves_a_lease_that_lives() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let ttl = Duration::from_secs(3);
    let (left, renewed) = (kept("left", Mode::Exclusive, ttl), kept("renewed", Mode::Exclusive, ttl));
    for claim in [&left, &renewed] {
        assert!(matches!(join(&backend, claim).await, Attempt::Granted(_)));
    }
    let next = kept("left", Mode::Exclusive, TTL);
    assert!(matches!(join(&backend, &next).await, Attempt::Queued(_)));
    for order in 1..14 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        renew(&backend, &renewed, order).await.unwrap();
    }
    assert!(matches!(join(&backend, &next).await, Attempt::Granted(_)), "the other one has the lock");
    assert_eq!(renew(&backend, &left, 1).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(join(&backend, &left).await, Attempt::Gone);
}
