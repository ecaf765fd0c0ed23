//! The names of claims, which are used again, and the hand-over by one write.

use std::sync::Arc;
use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{Attempt, Claim, ErrorKind, Key, LockBackend, Mode, Release, Released};
use testbed::{EtcdServer, Proxy};

use crate::{SOON, connect, join, kept, key_of, raw, release};

const TTL: Duration = Duration::from_secs(20);

async fn name_of(server: &EtcdServer, claim: &Claim) -> String {
    key_of(&mut raw(server).await, "lock/k", claim).await.key_str().unwrap().to_owned()
}

async fn is_granted(server: &EtcdServer, claim: &Claim) -> bool {
    key_of(&mut raw(server).await, "lock/k", claim).await.value_str().unwrap().contains("granted")
}

#[tokio::test]
async fn a_claim_has_the_name_of_the_one_before_it() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let mut names = Vec::new();
    for _ in 0..3 {
        let claim = kept("k", Mode::Exclusive, TTL);
        join(&one, &claim).await;
        names.push(name_of(&server, &claim).await);
        release(&one, &claim).await;
    }
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    let (holder, waiter, of_another) =
        (kept("k", Mode::Exclusive, TTL), kept("k", Mode::Exclusive, TTL), kept("k", Mode::Exclusive, TTL));
    for (backend, claim) in [(&one, &holder), (&one, &waiter), (&other, &of_another)] {
        join(backend, claim).await;
        names.push(name_of(&server, claim).await);
    }
    assert_eq!(names[0], names[3]);
    names.drain(..3);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3, "nobody has the name of another one: {names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_which_a_release_is_unanswered_is_not_used_again() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let builder = EtcdBackend::builder(&server.url_at(proxy.addr())).request_timeout(SOON / 4);
    let backend = builder.connect().await.unwrap();
    let (first, second) = (kept("k", Mode::Exclusive, TTL), kept("k", Mode::Exclusive, TTL));
    join(&backend, &first).await;
    let name = name_of(&server, &first).await;
    proxy.drop_replies(true);
    let leave = || Release { claim: first.clone(), answered: true, only_waiting: false };
    let left = backend.clone().release(vec![leave()]).await.pop().unwrap();
    assert_eq!(left.unwrap_err().kind(), ErrorKind::Indeterminate);
    proxy.drop_replies(false);
    proxy.sever();
    crate::until("the release is answered", async || {
        backend.clone().release(vec![leave()]).await.pop().unwrap().is_ok()
    })
    .await;
    join(&backend, &second).await;
    let another = name_of(&server, &second).await;
    // The release that was not answered, which comes late.
    raw(&server).await.delete(name.as_str(), None).await.unwrap();
    assert_ne!(another, name);
    assert_eq!(release(&backend, &second).await, Released::Released);
}

#[tokio::test]
async fn a_release_lets_in_whom_its_client_has_seen_waiting() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let entries = || server.metric("etcd_server_proposals_committed_total").unwrap();
    let claims: Vec<_> = (0..3).map(|_| kept("k", Mode::Exclusive, TTL)).collect();
    for (backend, claim) in [&one, &one, &other].into_iter().zip(&claims) {
        join(backend, claim).await;
    }
    let before = entries();
    assert_eq!(release(&one, &claims[0]).await, Released::Released);
    assert!(entries() - before <= 1.0, "{}", entries() - before);
    assert!(is_granted(&server, &claims[1]).await);
    assert_eq!(release(&one, &claims[1]).await, Released::Released);
    assert!(is_granted(&server, &claims[2]).await, "whom it has not seen");
}

#[tokio::test]
async fn a_release_lets_nobody_in_past_a_take_over() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let owned = |claim: Claim| claim.with_owner(Some("ann".into())).keeping(true);
    let claim = |mode| Claim::new(Key::new("k").unwrap(), mode, TTL).with_waiter_ttl(TTL);
    let (holder, replaced, behind) = (
        kept("k", Mode::Exclusive, TTL),
        Arc::new(owned(claim(Mode::Exclusive))),
        kept("k", Mode::Exclusive, TTL),
    );
    for claim in [&holder, &replaced, &behind] {
        join(&one, claim).await;
    }
    // It takes the place of the one that the client has seen next.
    let taking = Arc::new(owned(claim(Mode::Exclusive)).taking_over(true));
    assert!(matches!(join(&other, &taking).await, Attempt::Queued(_)));
    assert_eq!(release(&one, &holder).await, Released::Released);
    assert!(is_granted(&server, &taking).await);
    assert!(!is_granted(&server, &behind).await);
}

#[tokio::test]
async fn readers_of_several_clients_come_in_together() {
    let server = EtcdServer::start().unwrap();
    let (one, other, third) = (connect(&server).await, connect(&server).await, connect(&server).await);
    // Where the releasing client has seen a part of them, these come in with the release, and the others after it.
    for (writes, by_writes) in [(&one, 2), (&third, 1)] {
        let writer = kept("k", Mode::Exclusive, TTL);
        let readers: Vec<_> = (0..12).map(|_| kept("k", Mode::Shared, TTL)).collect();
        let last = kept("k", Mode::Exclusive, TTL);
        join(writes, &writer).await;
        let backend = |at: usize| if at.is_multiple_of(3) { &other } else { &one };
        for (at, claim) in readers.iter().enumerate() {
            assert!(matches!(join(backend(at), claim).await, Attempt::Queued(_)));
        }
        assert!(matches!(join(&one, &last).await, Attempt::Queued(_)));
        assert_eq!(release(writes, &writer).await, Released::Released);
        let mut granted = Vec::new();
        for (at, reader) in readers.iter().enumerate() {
            let kv = key_of(&mut raw(&server).await, "lock/k", reader).await;
            let Attempt::Granted(lease) = join(backend(at), reader).await else { panic!("{at} waits") };
            granted.push((kv.mod_revision(), lease.fence));
        }
        let first = granted[0].1;
        for (_, fence) in &granted {
            assert_eq!(fence.floor, first.token);
        }
        assert!(granted.is_sorted_by_key(|(_, fence)| fence.token), "in their order");
        granted.dedup_by_key(|(revision, _)| *revision);
        assert_eq!(granted.len(), by_writes);
        assert!(!is_granted(&server, &last).await);
        for (at, reader) in readers.iter().enumerate() {
            release(backend(at), reader).await;
        }
        assert!(is_granted(&server, &last).await);
        release(&one, &last).await;
    }
}

#[tokio::test]
async fn a_release_lets_nobody_in_under_the_name_of_one_that_has_gone() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    let writer = kept("k", Mode::Exclusive, TTL);
    let [first, gone, seen, again] = [(); 4].map(|()| kept("k", Mode::Shared, TTL));
    for (backend, claim) in [(&one, &writer), (&other, &first), (&other, &gone), (&one, &seen)] {
        join(backend, claim).await;
    }
    let name = name_of(&server, &gone).await;
    release(&other, &gone).await;
    join(&other, &again).await;
    assert_eq!(name_of(&server, &again).await, name);
    assert_eq!(release(&one, &writer).await, Released::Released);
    let mut tokens = Vec::new();
    for (backend, claim) in [(&other, &first), (&one, &seen), (&other, &again)] {
        let Attempt::Granted(lease) = join(backend, claim).await else { panic!("one waits for ever") };
        tokens.push(lease.fence.token);
    }
    assert!(tokens.is_sorted(), "{tokens:?}");
}
