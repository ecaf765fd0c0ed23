//! A cluster of three that loses one, or its leader: nobody who holds or waits notices more than a pause.

use std::sync::Arc;
use std::time::Duration;

use lock_conformance::history::{Act, Options, Recorder};
use lock_etcd::EtcdBackend;
use lockcore::{Exclusive, LockClient, LockGuard, Mode};
use testbed::{EtcdCluster, EtcdVersion, Proxy};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::{SOON, until};

const TTL: Duration = Duration::from_secs(6);

/// A request that hangs is given up after 2 s, and a new leader is there within 2 s.
const PAUSE: Duration = Duration::from_secs(6);

async fn client(cluster: &EtcdCluster) -> LockClient {
    LockClient::new(EtcdBackend::connect(&cluster.url()).await.unwrap())
}

/// Acquires and releases; how long that took.
async fn a_cycle(locks: &LockClient) -> Duration {
    let start = Instant::now();
    locks
        .lock("cycle")
        .unwrap()
        .exclusive()
        .wait(2 * PAUSE)
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    start.elapsed()
}

type Waiting = JoinHandle<lockcore::Result<LockGuard<Exclusive>>>;

/// A holder, and another client that waits for it.
async fn held_and_waiting(one: &LockClient, other: &LockClient) -> (LockGuard<Exclusive>, Waiting) {
    let held = one.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().acquire());
    until("it waits", async || {
        one.lock("k").unwrap().inspect().await.is_ok_and(|seen| !seen.waiters.is_empty())
    })
    .await;
    (held, waiting)
}

/// Lets go, and sees the other one told.
async fn is_handed_over(held: LockGuard<Exclusive>, waiting: Waiting) {
    let token = held.token();
    held.release().await.unwrap();
    let next = timeout(SOON, waiting).await.expect("it is told").unwrap().unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left_within_a_request() {
    let cluster = EtcdCluster::start().unwrap();
    let locks = client(&cluster).await;
    for member in cluster.members() {
        let guard = locks.lock("held").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
        member.pause().unwrap();
        let first = a_cycle(&locks).await;
        assert!(first <= PAUSE, "{first:?}");
        // From then on nothing is sent to it, however often it is asked.
        for _ in 0..20 {
            let next = a_cycle(&locks).await;
            assert!(next <= SOON / 2, "{next:?}");
        }
        // Renewals went past it too.
        sleep(TTL).await;
        // Before it comes back: a leader that was stopped may then revoke what was renewed elsewhere meanwhile.
        guard.release().await.unwrap();
        member.resume().unwrap();
        cluster.wait_until_healthy().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_past_members_that_hang_or_are_gone() {
    let cluster = EtcdCluster::start().unwrap();
    let away = cluster.member((cluster.leader().unwrap() + 1) % 3);
    for hangs in [true, false] {
        if hangs { away.pause() } else { away.kill() }.unwrap();
        for _ in 0..6 {
            let start = Instant::now();
            let locks = client(&cluster).await;
            assert!(locks.capabilities().survives_failover);
            a_cycle(&locks).await;
            assert!(start.elapsed() <= SOON, "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_told_although_the_member_that_was_asked_hangs() {
    let cluster = EtcdCluster::start().unwrap();
    let quiet = (cluster.leader().unwrap() + 1) % 3;
    let (holder, others) = (client(&cluster).await, client(&cluster).await);
    for round in 0..3 {
        let member = cluster.member((quiet + round) % 3);
        let (held, waiting) = held_and_waiting(&holder, &others).await;
        member.pause().unwrap();
        // Long enough for a heartbeat that meets the member, and for a new leader.
        sleep(PAUSE).await;
        is_handed_over(held, waiting).await;
        // And once more, sooner than any heartbeat.
        let (held, waiting) = held_and_waiting(&holder, &others).await;
        is_handed_over(held, waiting).await;
        member.resume().unwrap();
        cluster.wait_until_healthy().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_moves_during_a_hold_and_a_wait() {
    for version in [EtcdVersion::Built, EtcdVersion::Installed] {
        let Ok(cluster) = EtcdCluster::start_version(version) else { continue };
        let (one, other) = (client(&cluster).await, client(&cluster).await);
        let (guard, waiting) = held_and_waiting(&one, &other).await;
        let begin = cluster.leader().unwrap();
        for step in 1..=3 {
            cluster.move_leader((begin + step) % 3).unwrap();
            assert!(a_cycle(&one).await <= SOON);
        }
        assert!(guard.is_held());
        is_handed_over(guard, waiting).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_is_cut_during_a_wait() {
    let cluster = EtcdCluster::start().unwrap();
    let proxies: Vec<Proxy> =
        cluster.members().iter().map(|member| Proxy::start(member.addr()).unwrap()).collect();
    let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
    let url = format!("etcd://{}", addresses.join(","));
    let (one, other) = (client(&cluster).await, LockClient::new(EtcdBackend::connect(&url).await.unwrap()));
    for _ in 0..5 {
        let (held, waiting) = held_and_waiting(&one, &other).await;
        proxies.iter().for_each(Proxy::sever);
        is_handed_over(held, waiting).await;
    }
}

/// Four clients on two keys; meanwhile each member in turn is killed, or stopped, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_are_inside_while_members_die_hang_and_come_back() {
    let cluster = Arc::new(EtcdCluster::start().unwrap());
    let history = Recorder::new();
    let mut players = JoinSet::new();
    for player in 0..4 {
        let (locks, history) = (client(&cluster).await, history.clone());
        players.spawn(async move {
            let end = Instant::now() + Duration::from_secs(20);
            let mut turn = player;
            while Instant::now() < end {
                turn += 1;
                let (key, exclusive) = (["a", "b"][turn % 2], turn % 3 > 0);
                let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
                let track = history.asks(key, mode);
                let lock = locks.lock(key).unwrap();
                let wait = Duration::from_secs(10);
                let guard = if exclusive {
                    lock.exclusive().ttl(TTL).wait(wait).acquire().await.map(LockGuard::into_any)
                } else {
                    lock.shared().ttl(TTL).wait(wait).acquire().await.map(LockGuard::into_any)
                };
                match guard {
                    Ok(guard) => {
                        track.granted(&guard);
                        sleep(Duration::from_millis(20)).await;
                        // A release that is not answered is finished in the background.
                        let _unanswered = track.release(guard).await;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        track.note(Act::GaveUp);
                    }
                }
            }
        });
    }
    let faults = cluster.clone();
    spawn_blocking(move || {
        for member in faults.members() {
            for hangs in [false, true] {
                if hangs { member.pause() } else { member.kill() }.unwrap();
                std::thread::sleep(Duration::from_secs(2));
                if hangs { member.resume() } else { member.restart() }.unwrap();
                faults.wait_until_healthy().unwrap();
            }
        }
    })
    .await
    .unwrap();
    while let Some(played) = players.join_next().await {
        played.unwrap();
    }
    let summary = history.check(Options { complete: true, ..Options::default() }).unwrap();
    println!("{summary:?}");
    assert!(summary.grants > 200, "only {} grants", summary.grants);
}
