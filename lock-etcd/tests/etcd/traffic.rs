//! What goes over the wire, by the server's own count.

use std::time::Duration;

use lockcore::{Attempt, Key, LockBackend, LockClient, Mode, Released};
use testbed::EtcdServer;

use crate::{connect, join, kept, release};

const TTL: Duration = Duration::from_secs(30);

fn requests(server: &EtcdServer) -> f64 {
    server.metric("grpc_server_started_total").unwrap()
}

fn raft_entries(server: &EtcdServer) -> f64 {
    server.metric("etcd_server_proposals_committed_total").unwrap()
}

#[tokio::test]
async fn one_request_each_for_acquire_and_release() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    for mode in [Mode::Exclusive, Mode::Shared] {
        let warm = kept("a", mode, TTL);
        join(&backend, &warm).await;
        release(&backend, &warm).await;
        let (requests_before, entries_before) = (requests(&server), raft_entries(&server));
        for _ in 0..50 {
            let one = kept("a", mode, TTL);
            assert!(matches!(join(&backend, &one).await, Attempt::Granted(_)));
            assert_eq!(release(&backend, &one).await, Released::Released);
        }
        assert!(requests(&server) - requests_before <= 101.0, "{mode}");
        assert!(raft_entries(&server) - entries_before <= 102.0, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_costs_three_requests_however_many_wait() {
    for workers in [2, 8, 32] {
        let server = EtcdServer::start().unwrap();
        let clients = [LockClient::new(connect(&server).await), LockClient::new(connect(&server).await)];
        for client in &clients {
            client.lock("warm").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
        }
        let before = requests(&server);
        let mut tasks = tokio::task::JoinSet::new();
        let turns = 240 / workers;
        for worker in 0..workers {
            let lock = clients[worker % 2].lock("k").unwrap();
            tasks.spawn(async move {
                for _ in 0..turns {
                    lock.exclusive().acquire().await.unwrap().release().await.unwrap();
                }
            });
        }
        let start = tokio::time::Instant::now();
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let grants = (turns * workers) as f64;
        let each = (requests(&server) - before) / grants;
        println!("{workers} workers: {each} requests for a grant, {:?} for all", start.elapsed());
        assert!(each <= 4.0, "{each} requests for each of {grants} grants to {workers} workers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_held_locks_cost_few_requests() {
    let server = EtcdServer::start().unwrap();
    let locks = LockClient::new(connect(&server).await);
    let mut guards = Vec::new();
    for key in 0..500 {
        let lock = locks.lock(format!("k{key}")).unwrap();
        guards.push(lock.exclusive().ttl(Duration::from_secs(6)).acquire().await.unwrap());
    }
    let before = requests(&server);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let spent = requests(&server) - before;
    println!("{spent} requests for 500 locks in 8 s");
    assert!(guards.iter().all(lockcore::LockGuard::is_held));
    assert!(spent < 120.0, "{spent} requests for 500 locks in 8 s");
}

#[tokio::test]
async fn an_inspection_asks_once_for_each_lease() {
    let server = EtcdServer::start().unwrap();
    let (one, other) = (connect(&server).await, connect(&server).await);
    for _ in 0..20 {
        join(&one, &kept("k", Mode::Shared, TTL)).await;
    }
    let before = requests(&server);
    let seen = other.inspect(Key::new("k").unwrap()).await.unwrap();
    assert_eq!(seen.holders.len(), 20);
    assert!(
        seen.holders
            .iter()
            .all(|holder| holder.left > TTL / 2 && holder.left <= TTL + Duration::from_secs(1))
    );
    assert!(requests(&server) - before <= 2.0, "{} requests", requests(&server) - before);
}
