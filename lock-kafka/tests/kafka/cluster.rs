//! Three brokers, of which each may be gone, hang or lead.

use std::sync::Arc;
use std::time::Duration;

use lock_kafka::{KafkaBackend, Settings};
use lockcore::{ErrorKind, LockBackend, LockClient, Loss};
use testbed::{KafkaCluster, KafkaServer, Proxy};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::load::{self, Load};

const TTL: Duration = Duration::from_secs(60);

/// After a fault everybody is served again within this time: a leader that hangs is left after 6 s, and what is not heard of after
/// that is over with its lease.
pub(crate) const SERVED: Duration = Duration::from_secs(30);

/// One cluster at a time: three brokers are work enough for a machine.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Brokers that are given up sooner than usual.
pub(crate) fn brokers() -> testbed::KafkaOptions {
    KafkaServer::options().property("broker.session.timeout.ms", "3000")
}

/// A client of a topic with many checkpoints.
pub(crate) async fn client(url: &str) -> LockClient {
    let settings = Settings { checkpoint_every: 300.try_into().unwrap(), ..Settings::default() };
    LockClient::new(KafkaBackend::builder(url).settings(settings).connect().await.unwrap())
}

/// Work on the processes of the brokers, which blocks.
pub(crate) async fn with<T: Send + 'static>(
    cluster: &Arc<KafkaCluster>,
    work: impl FnOnce(&KafkaCluster) -> std::io::Result<T> + Send + 'static,
) -> T {
    let cluster = cluster.clone();
    spawn_blocking(move || work(&cluster)).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_end_keeps_holders_and_waiters() {
    let _turn = turn().await;
    let cluster = Arc::new(KafkaCluster::start().unwrap());
    let url = cluster.url("locks");
    let first = KafkaBackend::connect(&url).await.unwrap();
    assert!(first.capabilities().survives_failover, "three replicas, of which two must have a record");
    let (one, other) = (LockClient::new(first), LockClient::new(KafkaBackend::connect(&url).await.unwrap()));
    let lock = one.lock("k").unwrap();
    let held = lock.exclusive().ttl(TTL).acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().ttl(TTL).wait(TTL).acquire());
    while lock.inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let gone = cluster.leader("locks").unwrap();
    cluster.node(gone).kill().unwrap();
    let token = held.token();
    assert!(held.is_held());
    // Nobody leads until the controllers have given it up, which takes longer than a release waits; its record is on its way.
    if let Err(error) = held.release().await {
        assert_eq!(error.kind(), ErrorKind::Indeterminate, "{error}");
    }
    let next = timeout(TTL / 2, waiting).await.expect("it is told").unwrap().unwrap();
    assert!(next.token() > token);
    cluster.node(gone).restart().unwrap();
    next.release().await.unwrap();
    assert!(lock.inspect().await.unwrap().is_free());
}

/// Six clients under load, one of which can be cut off; a holder whose lease is long is there through all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_are_inside_while_brokers_lead_in_turn_die_hang_and_come_back() {
    let _turn = turn().await;
    let cluster = Arc::new(brokers().proxies(1).start_cluster().unwrap());
    let url = cluster.url("locks");
    let mut clients = vec![client(&cluster.url_through(0, "locks")).await];
    for _ in 0..5 {
        clients.push(client(&url).await);
    }
    let (cut, steady) = (clients[0].clone(), client(&url).await);
    let held = steady.lock("steady").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let mut load = Load::start(clients);
    load.all_are_served(SERVED).await;

    with(&cluster, |cluster| {
        let begin = cluster.leader("locks")?;
        (1..=3).try_for_each(|step| cluster.move_leader("locks", (begin + step) % 3))
    })
    .await;
    load.all_are_served(SERVED).await;

    is_cut_off(&cluster, &load, &cut, &steady).await;
    load.all_are_served(SERVED).await;

    with(&cluster, |cluster| {
        let gone = cluster.leader("locks")?;
        cluster.node(gone).kill()?;
        cluster.leader_but("locks", gone)?;
        cluster.node(gone).restart()?;
        cluster.wait_until_in_sync("locks", &[0, 1, 2])
    })
    .await;
    load.join(client(&url).await);
    load.all_are_served(SERVED).await;

    let hangs = with(&cluster, |cluster| {
        let leader = cluster.leader("locks")?;
        cluster.node(leader).pause()?;
        cluster.leader_but("locks", leader)?;
        Ok(leader)
    })
    .await;
    // With the old leader's connections hanging.
    load.all_are_served(SERVED).await;
    with(&cluster, move |cluster| {
        cluster.node(hangs).resume()?;
        cluster.wait_until_in_sync("locks", &[0, 1, 2])
    })
    .await;
    load.all_are_served(SERVED).await;

    with(&cluster, |cluster| {
        cluster.nodes().iter().try_for_each(|node| {
            node.stop()?;
            node.restart()?;
            cluster.wait_until_in_sync("locks", &[0, 1, 2])
        })
    })
    .await;
    load.join(client(&url).await);
    load.all_are_served(SERVED).await;

    assert!(held.is_held(), "{:?}", held.loss());
    held.release().await.unwrap();
    load.end(300).await;
}

/// A client that hears nothing any more, although what it says arrives: its holder loses by its deadline, and no one else does.
async fn is_cut_off(cluster: &KafkaCluster, load: &Load, cut: &LockClient, other: &LockClient) {
    let proxies = || cluster.nodes().iter().flat_map(KafkaServer::proxies);
    let mine = load.asks("cut");
    let held = cut.lock("cut").unwrap().exclusive().ttl(load::TTL).acquire().await.unwrap();
    mine.granted(&held);
    let untouched = other.lock("other").unwrap().exclusive().ttl(load::TTL).acquire().await.unwrap();
    proxies().for_each(|proxy| proxy.drop_replies(true));
    let (theirs, lock) = (load.asks("cut"), other.lock("cut").unwrap());
    let waiting = tokio::spawn(async move {
        let next = lock.exclusive().ttl(load::TTL).wait(TTL).acquire().await.unwrap();
        theirs.granted(&next);
        (theirs, next)
    });
    assert!(mine.believes(&held));
    assert_eq!(timeout(TTL, held.lost()).await.expect("by its deadline"), Loss::Expired);
    assert!(!mine.believes(&held));
    // Its last renewal may have arrived just before.
    let (theirs, next) = timeout(3 * load::TTL, waiting).await.expect("it is let in").unwrap();
    proxies().for_each(|proxy| proxy.drop_replies(false));
    proxies().for_each(Proxy::sever);
    theirs.release(next).await.unwrap();
    assert!(untouched.is_held(), "{:?}", untouched.loss());
    untouched.release().await.unwrap();
}
