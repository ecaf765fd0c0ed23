//! What an attacker tried: lost answers, late copies, crowds and foreign data at the worst moments.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use lock_etcd::EtcdBackend;
use lockcore::{
    Attempt, Claim, ErrorKind, FenceGate, Key, LockBackend, LockClient, Mode, Queue, Released, Renewal,
};
use testbed::{EtcdServer, Proxy, wait_for};
use tokio::time::{Instant, sleep, timeout};

use crate::{connect, join, kept, key_of, raw, release, renew};

const TTL: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(10);

/// A client through the proxy, whose requests take at most so long.
async fn through(server: &EtcdServer, proxy: &Proxy, patience: Duration) -> Arc<EtcdBackend> {
    let builder = EtcdBackend::builder(&server.url_at(proxy.addr()));
    builder.request_timeout(patience).connect().await.unwrap()
}

fn permit(key: &str, at_most: u32) -> Arc<Claim> {
    kept(key, Mode::Permit { at_most: NonZeroU32::new(at_most).unwrap() }, 6 * TTL)
}

fn leases_granted(server: &EtcdServer) -> f64 {
    server.metric("etcd_debugging_lease_granted_total").unwrap()
}

/// Does `then` as soon as the server has granted another lease.
fn when_a_lease_is_granted(server: &EtcdServer, then: impl FnOnce()) {
    let before = leases_granted(server);
    let granted = || Ok((leases_granted(server) > before).then_some(()));
    wait_for("another lease", PATIENCE, granted).unwrap();
    then();
}

/// The names of the claims and markers on a lock.
async fn names(server: &EtcdServer, key: &str) -> Vec<String> {
    let prefix = Some(GetOptions::new().with_prefix().with_keys_only());
    let found = raw(server).await.get(format!("lock/{key}/~"), prefix).await.unwrap();
    let names = found.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned());
    names.filter(|name| !name.contains("/~d/")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_that_was_written_is_no_failure() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let locks = LockClient::new(EtcdBackend::connect(&server.url_at(proxy.addr())).await.unwrap());
    let other = connect(&server).await;
    let guard = locks.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let reader = kept("k", Mode::Shared, TTL);
    assert!(matches!(join(&other, &reader).await, Attempt::Queued(_)));
    proxy.delay_replies(Duration::from_millis(400));
    let converting = tokio::spawn(guard.downgrade());
    // The first lease is for the message to the reader: the downgrade is written by then.
    when_a_lease_is_granted(&server, || {
        proxy.refuse(true);
        proxy.sever();
    });
    let still_exclusive = match converting.await.unwrap() {
        Ok(_shared) => false,
        Err(error) => error.into_guard().is_held(),
    };
    let reader_is_in = matches!(join(&other, &reader).await, Attempt::Granted(_));
    assert!(reader_is_in, "the server has the holder as shared");
    assert!(!still_exclusive, "a reader is in beside an exclusive guard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_amid_a_hand_over_is_not_fenced_off() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let (slow, fast) = (through(&server, &proxy, 4 * SOON).await, connect(&server).await);
    for waiting in [1, 9] {
        let writer = kept("k", Mode::Exclusive, TTL);
        let waiters: Vec<_> = (0..waiting).map(|_| kept("k", Mode::Shared, TTL)).collect();
        let late = kept("k", Mode::Shared, TTL);
        assert!(matches!(join(&slow, &writer).await, Attempt::Granted(_)));
        for waiter in &waiters {
            assert!(matches!(join(&fast, waiter).await, Attempt::Queued(_)));
        }
        proxy.delay_replies(SOON);
        let releasing = tokio::spawn({
            let (slow, writer) = (slow.clone(), writer.clone());
            async move { release(&slow, &writer).await }
        });
        while names(&server, "k").await.len() > waiting {}
        let Attempt::Granted(late_lease) = join(&fast, &late).await else { panic!("nobody conflicts") };
        proxy.delay_replies(Duration::ZERO);
        assert_eq!(releasing.await.unwrap(), Released::Released);
        let gate = FenceGate::new();
        for waiter in &waiters {
            let Attempt::Granted(lease) = join(&fast, waiter).await else { panic!("nobody conflicts") };
            gate.enter(lease.fence).unwrap();
        }
        gate.enter(late_lease.fence).unwrap();
        for claim in waiters.iter().chain([&late]) {
            assert_eq!(release(&fast, claim).await, Released::Released);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_copy_of_a_shorter_renewal_cuts_no_lease() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&server, &proxy, 3 * SOON).await;
    let claim = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&backend, &claim).await, Attempt::Granted(_)));
    let mut raw = raw(&server).await;
    let kv = key_of(&mut raw, "lock/k", &claim).await;
    let (name, value, written) = (kv.key_str().unwrap(), kv.value().to_vec(), kv.mod_revision());
    // The move to the shorter lease is lost on its way.
    proxy.delay_replies(2 * SOON);
    let shorter = Renewal { claim: claim.clone(), ttl: Duration::from_secs(3), order: 1 };
    let renewing = tokio::spawn(backend.clone().renew(vec![shorter]));
    when_a_lease_is_granted(&server, || proxy.drop_requests(true));
    let answer = renewing.await.unwrap().pop().unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Indeterminate);
    proxy.delay_replies(Duration::ZERO);
    proxy.sever();
    proxy.drop_requests(false);
    let longer = async || renew(&backend, &claim, 2).await;
    let left = loop {
        // A broken connection is found out by the first request.
        if let Ok(lease) = longer().await {
            break lease.left;
        }
    };
    assert!(left > TTL / 2);
    // Here it comes.
    let lease = raw.lease_grant(3, None).await.unwrap().id();
    let late = Txn::new()
        .when([Compare::mod_revision(name, CompareOp::Equal, written)])
        .and_then([TxnOp::put(name, value, Some(PutOptions::new().with_lease(lease)))]);
    assert!(!raw.txn(late).await.unwrap().succeeded(), "{left:?} were promised, 3 s are left");
    renew(&backend, &claim, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_not_taken_out_while_its_late_join_is_granted() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&server, &proxy, 4 * SOON).await;
    let ttl = Duration::from_secs(3);
    let (claim, other) = (kept("k", Mode::Exclusive, ttl), kept("other", Mode::Exclusive, ttl));
    assert!(matches!(join(&backend, &other).await, Attempt::Granted(_)));
    proxy.drop_requests(true);
    let begun = Instant::now();
    let lost = timeout(SOON / 2, backend.clone().acquire(claim.clone(), Queue::Join)).await;
    assert!(lost.is_err());
    proxy.sever();
    proxy.drop_requests(false);
    // The lease that both share lives on, and the claim's own time is just over when it is granted.
    let mut order = 0;
    while begun.elapsed() < ttl + Duration::from_millis(950) {
        order += 1;
        let _broken_connection = renew(&backend, &other, order).await;
        sleep(Duration::from_millis(100)).await;
    }
    proxy.delay_replies(Duration::from_millis(1300));
    let asked = Instant::now();
    let joined = join(&backend, &claim).await;
    proxy.delay_replies(Duration::ZERO);
    let Attempt::Granted(lease) = joined else { return assert_eq!(joined, Attempt::Gone) };
    let until = asked + lease.left - Duration::from_millis(300);
    while Instant::now() < until {
        assert!(names(&server, "k").await.len() == 1, "{:?} before its end", until - Instant::now());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_join_that_meets_foreign_data_leaves_nothing() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let mut raw = raw(&server).await;
    raw.put("lock/k/~p/what", "foreign", None).await.unwrap();
    for claim in [kept("k", Mode::Exclusive, TTL), kept("k", Mode::Shared, TTL), permit("k", 3)] {
        let joined = backend.clone().acquire(claim, Queue::Join).await;
        assert_eq!(joined.unwrap_err().kind(), ErrorKind::Conflict);
    }
    raw.delete("lock/k/~p/what", None).await.unwrap();
    assert_eq!(names(&server, "k").await, Vec::<String>::new());
    assert_eq!(backend.listening(), 0);
}

#[tokio::test]
async fn foreign_data_does_not_keep_a_holder_from_letting_go() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let claim = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&backend, &claim).await, Attempt::Granted(_)));
    raw(&server).await.put("lock/k/~s/what", "foreign", None).await.unwrap();
    assert_eq!(release(&backend, &claim).await, Released::Released);
    assert_eq!(backend.listening(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_doubt_is_taken_out_though_its_server_was_away_since() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&server, &proxy, SOON).await;
    let ttl = Duration::from_secs(3);
    let (claim, other) = (kept("k", Mode::Exclusive, ttl), kept("other", Mode::Exclusive, ttl));
    assert!(matches!(join(&backend, &other).await, Attempt::Granted(_)));
    proxy.drop_replies(true);
    let joined = backend.clone().acquire(claim.clone(), Queue::Join).await;
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::Indeterminate);
    proxy.refuse(true);
    proxy.sever();
    let refused = async || backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap_err().kind();
    while refused().await != ErrorKind::Unavailable {}
    proxy.drop_replies(false);
    proxy.refuse(false);
    // Whoever had it gives up here. The lease that it lies on lives on for the other one.
    let next = kept("k", Mode::Exclusive, TTL);
    let rival = connect(&server).await;
    let begun = Instant::now();
    let mut order = 0;
    while !matches!(join(&rival, &next).await, Attempt::Granted(_)) {
        assert!(begun.elapsed() < PATIENCE, "the claim stays for ever");
        order += 1;
        let _broken_connection = renew(&backend, &other, order).await;
        sleep(Duration::from_millis(100)).await;
    }
    renew(&backend, &other, order + 1).await.unwrap();
}

#[tokio::test]
async fn a_claim_whose_lease_was_gone_before_it_joined_stays_gone() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&server, &proxy, SOON).await;
    // Its leases are there already.
    let warm = kept("warm", Mode::Exclusive, TTL);
    assert!(matches!(join(&backend, &warm).await, Attempt::Granted(_)));
    proxy.drop_requests(true);
    let claim = kept("k", Mode::Exclusive, TTL);
    let joined = backend.clone().acquire(claim.clone(), Queue::Join).await;
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::Indeterminate);
    proxy.sever();
    proxy.drop_requests(false);
    let mut leases = raw(&server).await.lease_client();
    for lease in leases.leases().await.unwrap().leases() {
        leases.revoke(lease.id()).await.unwrap();
    }
    let attempt = loop {
        if let Ok(attempt) = backend.clone().acquire(claim.clone(), Queue::Join).await {
            break attempt;
        }
    };
    assert_eq!(attempt, Attempt::Gone);
    let remembered = raw(&server).await.get(format!("lock/k/~d/{}", claim.id()), None).await.unwrap();
    assert_eq!(remembered.kvs().len(), 1, "a late copy on another lease would join");
}

#[tokio::test]
async fn an_owner_takes_over_from_a_crowd_of_its_own() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let of_ann = |mode| Claim::new(Key::new("k").unwrap(), mode, TTL).with_owner(Some("ann".into()));
    for mode in [Mode::Shared, Mode::Exclusive] {
        let crowd: Vec<_> = (0..150).map(|_| Arc::new(of_ann(mode).keeping(true))).collect();
        for claim in &crowd {
            join(&backend, claim).await;
        }
        let bystander = kept("k", Mode::Exclusive, TTL);
        assert!(matches!(join(&backend, &bystander).await, Attempt::Queued(_)));
        let heir = Arc::new(of_ann(Mode::Exclusive).taking_over(true).keeping(true));
        assert!(matches!(join(&backend, &heir).await, Attempt::Granted(_)));
        assert!(matches!(join(&backend, &bystander).await, Attempt::Queued(_)));
        assert_eq!(backend.clone().inspect(heir.key().clone()).await.unwrap().waiters.len(), 1);
        assert_eq!(release(&backend, &heir).await, Released::Released);
        assert_eq!(release(&backend, &bystander).await, Released::Released);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_permits_is_served() {
    let server = EtcdServer::start().unwrap();
    let backends = [connect(&server).await, connect(&server).await];
    let mut joins = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (backend, claim) = (backends[n % 2].clone(), permit("k", 1000));
        joins.spawn(backend.acquire(claim, Queue::Join));
    }
    let begun = Instant::now();
    while let Some(joined) = joins.join_next().await {
        let joined = joined.unwrap();
        assert!(
            matches!(joined, Ok(Attempt::Granted(_) | Attempt::Queued(_))),
            "{joined:?} after {:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn a_long_queue_is_read_whole() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    let long: Arc<str> = "\u{1}".repeat(1024).into();
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let claim = Claim::new(Key::new("k").unwrap(), Mode::Exclusive, TTL).keeping(true);
        let claim = Arc::new(claim.with_owner(Some(long.clone())).with_note(Some(long.clone())));
        join(&backend, &claim).await;
        crowd.push(claim);
    }
    let seen = backend.clone().inspect(crowd[0].key().clone()).await.unwrap();
    assert_eq!((seen.holders.len(), seen.waiters.len()), (1, 399));
    // A renewal that moves the holder to another lease.
    let renewal = Renewal { claim: crowd[0].clone(), ttl: 2 * TTL, order: 1 };
    backend.clone().renew(vec![renewal]).await.pop().unwrap().unwrap();
}

#[tokio::test]
async fn a_claim_that_comes_back_is_looked_for_where_it_lies() {
    let server = EtcdServer::start().unwrap();
    let (home, away) = (connect(&server).await, connect(&server).await);
    let claim = || Claim::new(Key::new("k").unwrap(), Mode::Exclusive, TTL);
    let first = Arc::new(claim());
    assert!(matches!(join(&home, &first).await, Attempt::Granted(_)));
    let mut raw = raw(&server).await;
    let left_behind = key_of(&mut raw, "lock/k", &first).await.lease();
    renew(&away, &Arc::new(claim().with_id(first.id())), 1).await.unwrap();
    raw.lease_revoke(left_behind).await.unwrap();
    renew(&home, &Arc::new(claim().with_id(first.id())), 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_while_a_backend_ends_its_leases() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let backend = through(&server, &proxy, 4 * SOON).await;
    let warm = kept("k", Mode::Exclusive, TTL);
    assert!(matches!(join(&backend, &warm).await, Attempt::Granted(_)));
    assert_eq!(release(&backend, &warm).await, Released::Released);
    proxy.delay_requests(SOON);
    let sent = proxy.counters().requests;
    let closing = tokio::spawn(backend.clone().close());
    wait_for("the revocation", PATIENCE, || Ok((proxy.counters().requests > sent).then_some(()))).unwrap();
    let joining = backend.clone().acquire(kept("k", Mode::Exclusive, TTL), Queue::Join);
    let joined = timeout(SOON / 2, joining).await.expect("nothing is sent");
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::Closed);
    closing.await.unwrap().unwrap();
    let leases = raw(&server).await.lease_client().leases().await.unwrap();
    assert_eq!(leases.leases().len(), 0, "what nothing lies on is ended");
}

#[tokio::test]
async fn the_keys_of_another_prefix_are_not_listed() {
    let server = EtcdServer::start().unwrap();
    let (outer, inner) =
        (connect(&server).await, EtcdBackend::builder(&server.url()).prefix("lock/a/").connect());
    let inner = inner.await.unwrap();
    assert!(matches!(join(&inner, &kept("k", Mode::Exclusive, TTL)).await, Attempt::Granted(_)));
    let locks = LockClient::new(outer);
    assert_eq!(locks.list("", lockcore::PageToken::default()).await.unwrap().keys, []);
}

#[tokio::test]
async fn connecting_takes_no_longer_than_it_may() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    proxy.delay(SOON / 4);
    let connecting = EtcdBackend::builder(&server.url_at(proxy.addr())).connect_timeout(SOON).connect();
    let begun = Instant::now();
    let outcome = connecting.await;
    assert!(begun.elapsed() < 2 * SOON, "{:?} for {outcome:?}", begun.elapsed());
    assert_eq!(outcome.map(drop).unwrap_err().kind(), ErrorKind::Unavailable);
}
