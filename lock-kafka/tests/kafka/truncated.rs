//! A log of two replicas that loses its end, because a leader without it is elected: nobody goes on by guessing.

use std::sync::Arc;
use std::time::Duration;

use lock_kafka::Halt;
use lockcore::{ErrorKind, LockClient};
use testbed::{KafkaServer, Proxy};
use tokio::time::{Instant, sleep, timeout};

use crate::SOON;
use crate::cluster::{brokers, client, turn, with};
use crate::lost::halt;

const TTL: Duration = Duration::from_secs(60);

/// The client reads no further, and says why; what it asks before it has noticed may still be answered.
async fn halts(client: &LockClient) {
    let error = async {
        loop {
            match client.lock("any").unwrap().exclusive().try_acquire().await {
                Err(error) if error.kind() == ErrorKind::Conflict => return error,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let error = timeout(5 * SOON, error).await.expect("it notices");
    assert_eq!(halt(&error), Some(&Halt::Truncated), "{error}");
}

/// One who has read what was lost is there all the time, another is away until the log is longer than it was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_the_end_of_the_log_ends_what_was_held_in_it() {
    let _turn = turn().await;
    let cluster = Arc::new(brokers().proxies(1).start_cluster().unwrap());
    let url = cluster.url("locks");
    let here = client(&format!("{url}?replication=2")).await;
    let away = client(&cluster.url_through(0, "locks")).await;
    let before = away.lock("before").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    let (leader, follower) = with(&cluster, |cluster| {
        let leader = cluster.leader("locks")?;
        let follower = cluster.replicas("locks")?.into_iter().find(|replica| *replica != leader);
        let follower = follower.ok_or(std::io::ErrorKind::NotFound)?;
        cluster.node(follower).kill()?;
        cluster.wait_until_in_sync("locks", &[leader])?;
        Ok((leader, follower))
    })
    .await;
    // Only one broker has this.
    let held = away.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    assert_eq!(here.lock("k").unwrap().inspect().await.unwrap().holders.len(), 1);
    let proxies = || cluster.nodes().iter().flat_map(KafkaServer::proxies);
    proxies().for_each(|proxy| proxy.stall(true));
    with(&cluster, move |cluster| {
        cluster.node(leader).kill()?;
        cluster.node(follower).restart()?;
        cluster.elect_uncleanly("locks", follower)
    })
    .await;

    let new = client(&url).await;
    let next = new.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
    assert!(next.token() > held.token(), "the brokers' clocks have gone on");
    for _ in 0..50 {
        new.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    halts(&here).await;
    proxies().for_each(|proxy| proxy.stall(false));
    proxies().for_each(Proxy::sever);
    let start = Instant::now();
    timeout(5 * SOON, held.lost()).await.expect("who was away notices");
    println!("noticed after {:?}", start.elapsed());
    timeout(SOON, before.lost()).await.expect("nothing is known of it any more");
    halts(&away).await;
    assert!(next.is_held());
    next.release().await.unwrap();
}
