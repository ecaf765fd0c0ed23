//! Brokers whose wall clocks are set under load: leases are not believed to be over by that, and tokens grow.

use std::sync::Arc;
use std::time::Duration;

use lockcore::LockClient;
use testbed::KafkaCluster;
use tokio::time::{sleep, timeout};

use crate::cluster::{SERVED, brokers, client, turn, with};
use crate::load::Load;

const TTL: Duration = Duration::from_secs(60);

/// Sets the clock of whoever leads the topic, in seconds ahead of the others.
async fn set_leader(cluster: &Arc<KafkaCluster>, seconds: i64) {
    with(cluster, move |cluster| cluster.node(cluster.leader("locks")?).set_clock_ahead(seconds)).await;
}

async fn token(client: &LockClient) -> u64 {
    let guard = client.lock("token").unwrap().exclusive().acquire().await.unwrap();
    guard.token().get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_are_inside_while_the_brokers_clocks_are_set() {
    let _turn = turn().await;
    let cluster = Arc::new(brokers().own_clock().start_cluster().unwrap());
    let url = cluster.url("locks");
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(client(&url).await);
    }
    let steady = client(&url).await;
    let held = steady.lock("steady").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let waiting = clients[0].lock("steady").unwrap().exclusive().wait(10 * TTL);
    let load = Load::start(clients);
    let waiting = tokio::spawn(waiting.acquire());
    while steady.lock("steady").unwrap().inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    load.all_are_served(SERVED).await;

    let mut tokens = vec![token(&steady).await];
    // By less than the margin, and by far more than margin and lease.
    for seconds in [3, 600] {
        set_leader(&cluster, seconds).await;
        load.all_are_served(SERVED).await;
        assert!(held.is_held(), "{seconds}: {:?}", held.loss());
        tokens.push(token(&steady).await);
    }
    assert!(tokens[2] > tokens[1] + 590_000_000, "the leader's clock was not set: {tokens:?}");
    // From one whose clock is ahead to one whose clock is right, and back.
    let ahead = with(&cluster, |cluster| cluster.leader("locks")).await;
    for to in [(ahead + 1) % 3, ahead, (ahead + 2) % 3, ahead] {
        with(&cluster, move |cluster| cluster.move_leader("locks", to)).await;
        load.all_are_served(SERVED).await;
        assert!(held.is_held(), "node {to}: {:?}", held.loss());
        tokens.push(token(&steady).await);
    }
    // To before all that was written. The controllers may then stand still for as long: nobody is elected any more.
    set_leader(&cluster, -600).await;
    load.all_are_served(SERVED).await;
    assert!(held.is_held(), "{:?}", held.loss());
    tokens.push(token(&steady).await);
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    assert!(!waiting.is_finished(), "somebody else is inside");
    let token = held.token();
    held.release().await.unwrap();
    let next = timeout(SERVED, waiting).await.expect("it is told").unwrap().unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
    load.end(300).await;
}
