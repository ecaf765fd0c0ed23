//! `replicas=n`: what the primary alone knows does not count, and what counts outlives the primary.

use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{
    Attempt, Claim, Conversion, ErrorKind, LockBackend, LockClient, Mode, Release, Released, Renewal,
};
use testbed::{RedisServer, wait_for};
use tokio::time::{Instant, timeout};

use crate::bench::{TTL, acquire, calls, claim, connect, granted, key, kind, queued, release, reset, until};

/// A refusal takes two rounds of half a second at most.
const BOUND: Duration = Duration::from_secs(4);

/// A primary, and a replica that follows it: when it has loaded the data it may be a second until it is sent more.
fn pair() -> (RedisServer, RedisServer) {
    let primary = RedisServer::start().unwrap();
    let replica = RedisServer::options().replica_of(&primary).start().unwrap();
    primary.command(&["SET", "probe", "1"]).unwrap();
    wait_for("the replica to follow", BOUND, || Ok(replica.command(&["GET", "probe"])?.as_text().map(drop)))
        .unwrap();
    (primary, replica)
}

async fn confirmed(primary: &RedisServer, replicas: u32) -> Arc<RedisBackend> {
    RedisBackend::connect(&format!("{}?replicas={replicas}", primary.url())).await.unwrap()
}

async fn renew(
    backend: &Arc<RedisBackend>,
    claim: &Arc<Claim>,
    order: u64,
) -> lockcore::Result<lockcore::Lease> {
    let renewal = Renewal { claim: claim.clone(), ttl: TTL, order };
    timeout(BOUND, backend.clone().renew(vec![renewal])).await.unwrap().remove(0)
}

async fn convert(
    backend: &Arc<RedisBackend>,
    claim: &Arc<Claim>,
    to: Mode,
    order: u64,
) -> lockcore::Result<Attempt> {
    let conversion = Conversion { claim: claim.clone(), to, order };
    timeout(BOUND, backend.clone().convert(conversion)).await.unwrap()
}

#[tokio::test]
async fn a_grant_that_only_the_primary_knows_does_not_count() {
    let (primary, replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let (one, two) = (claim("a", Mode::Exclusive), claim("b", Mode::Exclusive));
    granted(&backend, &one).await;
    replica.pause().unwrap();
    let error = timeout(BOUND, acquire(&backend, &two)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    assert!(error.is_retryable() && error.message().contains("0 of the 1 replicas"), "{error}");
    assert!(error.message().contains(&primary.port().to_string()), "{error}");
    assert_eq!(kind(renew(&backend, &one, 1).await), ErrorKind::Indeterminate);
    // What grants nothing goes on.
    queued(&backend, &claim("a", Mode::Exclusive)).await;
    assert_eq!(kind(renew(&backend, &claim("c", Mode::Shared), 1).await), ErrorKind::Lost);
    assert_eq!(release(&backend, &one).await.unwrap(), Released::Released);
    // A withdrawal that finds a grant must not tell it either.
    let withdrawal =
        |claim: &Arc<Claim>| Release { claim: claim.clone(), answered: false, only_waiting: true };
    for answer in backend.clone().release(vec![withdrawal(&two), withdrawal(&two)]).await {
        assert_eq!(kind(answer), ErrorKind::Indeterminate);
    }
    replica.resume().unwrap();
    let lease = granted(&backend, &two).await;
    assert_eq!(renew(&backend, &two, 1).await.unwrap().fence, lease.fence);
    let withdrawn = backend.clone().release(vec![withdrawal(&two)]).await.remove(0).unwrap();
    assert!(matches!(withdrawn, Released::Granted(found) if found.fence == lease.fence), "{withdrawn:?}");
    release(&backend, &two).await.unwrap();
}

#[tokio::test]
async fn a_confirmed_grant_outlives_the_primary() {
    let (primary, replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let (held, upgraded) = (claim("a", Mode::Exclusive), claim("b", Mode::Shared));
    let lease = granted(&backend, &held).await;
    granted(&backend, &upgraded).await;
    let Attempt::Granted(exclusive) = convert(&backend, &upgraded, Mode::Exclusive, 1).await.unwrap() else {
        panic!("nobody else is there")
    };
    primary.kill().unwrap();
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let after = connect(&replica).await;
    queued(&after, &claim("a", Mode::Exclusive)).await;
    queued(&after, &claim("b", Mode::Shared)).await;
    assert_eq!(renew(&after, &held, 1).await.unwrap().fence, lease.fence);
    assert_eq!(renew(&after, &upgraded, 1).await.unwrap().fence, exclusive.fence);
}

/// The message of the hand-over comes, and is not believed before a replica has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_is_confirmed() {
    let (primary, replica) = pair();
    let (one, two) = (connect(&primary).await, confirmed(&primary, 1).await);
    let locks = LockClient::new(two.clone());
    for resumed in [true, false] {
        let held = claim("a", Mode::Exclusive);
        granted(&one, &held).await;
        let lock = locks.lock("a").unwrap();
        let wait = if resumed { Duration::from_secs(20) } else { Duration::from_secs(2) };
        let waiter = tokio::spawn(async move { lock.exclusive().wait(wait).acquire().await });
        until("it waits", async || !one.clone().inspect(key("a")).await.unwrap().waiters.is_empty()).await;
        replica.pause().unwrap();
        reset(&primary);
        release(&one, &held).await.unwrap();
        until("it asks the replica", async || calls(&primary).contains_key("wait")).await;
        assert!(!waiter.is_finished(), "it believes the message");
        if resumed {
            replica.resume().unwrap();
            waiter.await.unwrap().unwrap().release().await.unwrap();
        } else {
            let error = waiter.await.unwrap().unwrap_err();
            assert!(error.is_retryable(), "{error}");
            replica.resume().unwrap();
            // The reaper lets it go.
            until("free", async || one.clone().inspect(key("a")).await.unwrap().is_free()).await;
        }
    }
}

#[tokio::test]
async fn a_confirmation_changes_no_lease() {
    let (primary, _replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let (one, two) = (claim("a", Mode::Exclusive), claim("a", Mode::Exclusive));
    assert!(granted(&backend, &one).await.left > two.waiter_ttl());
    queued(&backend, &two).await;
    release(&backend, &one).await.unwrap();
    assert!(granted(&backend, &two).await.left <= two.waiter_ttl(), "handed over, it goes on as a waiter");
}

#[tokio::test]
async fn an_upgrade_is_confirmed_also_one_that_waited() {
    let (primary, replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let (one, two) = (claim("a", Mode::Shared), claim("a", Mode::Shared));
    granted(&backend, &one).await;
    granted(&backend, &two).await;
    assert!(matches!(convert(&backend, &one, Mode::Exclusive, 1).await.unwrap(), Attempt::Queued(_)));
    replica.pause().unwrap();
    release(&backend, &two).await.unwrap();
    let error = convert(&backend, &one, Mode::Exclusive, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    // To become shared again takes nobody's word.
    assert!(matches!(convert(&backend, &one, Mode::Shared, 2).await.unwrap(), Attempt::Granted(_)));
    assert_eq!(kind(convert(&backend, &one, Mode::Exclusive, 3).await), ErrorKind::Indeterminate);
    replica.resume().unwrap();
    let upgraded = convert(&backend, &one, Mode::Exclusive, 3).await.unwrap();
    assert!(matches!(upgraded, Attempt::Granted(_)), "{upgraded:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_confirmations_share_a_wait() {
    let (primary, replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let claims: Vec<Arc<Claim>> = (0..300).map(|n| claim(&format!("k{n}"), Mode::Exclusive)).collect();
    // All at once while nobody confirms: they share the rounds, so that none waits for more than two.
    replica.pause().unwrap();
    let start = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for one in &claims {
        let (backend, one) = (backend.clone(), one.clone());
        asking.spawn(async move { acquire(&backend, &one).await });
    }
    while let Some(answer) = asking.join_next().await {
        assert_eq!(kind(answer.unwrap()), ErrorKind::Indeterminate);
    }
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    replica.resume().unwrap();
    for one in &claims {
        granted(&backend, one).await;
    }
    reset(&primary);
    let renewals = claims.iter().map(|claim| Renewal { claim: claim.clone(), ttl: TTL, order: 1 }).collect();
    for lease in backend.clone().renew(renewals).await {
        assert_eq!(lease.unwrap().left, TTL);
    }
    let calls = calls(&primary);
    assert_eq!((calls["evalsha"], calls["wait"]), (300, 1), "{calls:?}");
}

#[tokio::test]
async fn too_few_replicas_at_connect() {
    let (primary, _replica) = pair();
    for (url, says) in [
        (format!("{}?replicas=2", primary.url()), "1 of the 2 replicas"),
        (format!("{}?replicas=1", RedisServer::start().unwrap().url()), ""),
    ] {
        let error = timeout(BOUND, RedisBackend::connect(&url)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    let error = RedisBackend::connect("redis://127.0.0.1?replicas=all").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn a_server_that_forgets_its_scripts_or_its_connections() {
    let (primary, _replica) = pair();
    let backend = confirmed(&primary, 1).await;
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    primary.command(&["SCRIPT", "FLUSH"]).unwrap();
    renew(&backend, &one, 1).await.unwrap();
    primary.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
    primary.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    let mut order = 1;
    until("renewed again", async || {
        order += 1;
        renew(&backend, &one, order).await.is_ok()
    })
    .await;
    release(&backend, &one).await.unwrap();
    backend.clone().close().await.unwrap();
    assert_eq!(kind(acquire(&backend, &one).await), ErrorKind::Closed);
    until("both connections have ended", async || primary.info("connected_clients").unwrap() == "1").await;
}

/// Once the primary is gone its last words are not taken for a grant, and nobody hangs.
#[tokio::test]
async fn a_primary_that_stands_still() {
    let (primary, _replica) = pair();
    let url = format!("{}?replicas=1", primary.url());
    let backend =
        RedisBackend::builder(&url).request_timeout(Duration::from_secs(2)).connect().await.unwrap();
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    primary.pause().unwrap();
    assert_eq!(kind(renew(&backend, &one, 1).await), ErrorKind::Indeterminate);
    primary.resume().unwrap();
    let mut order = 1;
    until("renewed again", async || {
        order += 1;
        renew(&backend, &one, order).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn without_the_option_nobody_waits_for_replicas() {
    let (primary, replica) = pair();
    let backend = connect(&primary).await;
    replica.pause().unwrap();
    let one = claim("a", Mode::Exclusive);
    granted(&backend, &one).await;
    renew(&backend, &one, 1).await.unwrap();
    release(&backend, &one).await.unwrap();
    assert!(!calls(&primary).contains_key("wait"));
    assert_eq!(primary.info("connected_clients").unwrap(), "2", "ours and the one that asks");
}

#[test]
fn a_backend_outlives_the_runtime_that_it_was_made_on() {
    let (primary, _replica) = pair();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = runtime();
    let backend = first.block_on(async {
        let backend = confirmed(&primary, 1).await;
        granted(&backend, &claim("a", Mode::Shared)).await;
        backend
    });
    drop(first);
    runtime().block_on(async {
        until("it works on another runtime", async || {
            timeout(BOUND, acquire(&backend, &claim("a", Mode::Shared)))
                .await
                .is_ok_and(|answer| answer.is_ok())
        })
        .await;
    });
}
