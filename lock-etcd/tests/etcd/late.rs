//! Requests that arrive late or twice, of claims that are over.

use std::sync::Arc;
use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{Attempt, BreakTarget, Claim, LockBackend, Mode, Release, Released};
use testbed::{EtcdServer, Proxy};

use crate::{connect, join, kept, release, until};

const TTL: Duration = Duration::from_secs(20);

async fn holder(backend: &Arc<EtcdBackend>) -> Option<lockcore::ClaimId> {
    let seen = backend.clone().inspect(lockcore::Key::new("k").unwrap()).await.unwrap();
    seen.holders.first().map(|holder| holder.id)
}

async fn release_as(backend: &Arc<EtcdBackend>, claim: &Arc<Claim>, answered: bool) -> Released {
    let release = Release { claim: claim.clone(), answered, only_waiting: false };
    backend.clone().release(vec![release]).await.pop().unwrap().unwrap()
}

/// The key of etcd's own mutex is named after its lease, so that a client's second hold has the name of its first.
#[tokio::test]
async fn a_repeated_release_of_an_old_claim_leaves_the_newer_one_alone() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let mut old = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&one, &old).await, Attempt::Granted(_)));
    assert_eq!(release(&one, &old).await, Released::Released);
    for next_is in [&one, &other] {
        let new = kept("k", Mode::Exclusive, TTL);
        assert!(matches!(join(next_is, &new).await, Attempt::Granted(_)));
        for (backend, answered) in [(&one, true), (&one, false), (&other, true), (&other, false)] {
            assert_eq!(release_as(backend, &old, answered).await, Released::NotHeld);
            assert_eq!(holder(&one).await, Some(new.id()));
        }
        assert_eq!(release(next_is, &new).await, Released::Released);
        old = new;
    }
}

#[tokio::test]
async fn a_release_that_arrives_late_leaves_the_newer_claim_alone() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let (slow, other) =
        (EtcdBackend::connect(&server.url_at(proxy.addr())).await.unwrap(), connect(&server).await);
    let old = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&slow, &old).await, Attempt::Granted(_)));
    proxy.hold_requests(true);
    let sent = proxy.counters().requests;
    let late = tokio::spawn({
        let (slow, old) = (slow.clone(), old.clone());
        async move { release(&slow, &old).await }
    });
    until("the release is under way", async || proxy.counters().requests > sent).await;
    let key = lockcore::Key::new("k").unwrap();
    assert_eq!(other.clone().break_claims(key, BreakTarget::All).await.unwrap().len(), 1);
    let new = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&other, &new).await, Attempt::Granted(_)));
    proxy.hold_requests(false);
    assert_eq!(late.await.unwrap(), Released::NotHeld);
    assert_eq!(holder(&other).await, Some(new.id()));
}
