//! That nothing waits where nothing needs to.

use testbed::KafkaServer;
use tokio::time::{Duration, Instant};

use crate::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_free_is_had_in_milliseconds() {
    let server = KafkaServer::start().unwrap();
    let start = Instant::now();
    let locks = client(&server).await;
    let connected = start.elapsed();
    let lock = locks.lock("k").unwrap();
    let mut all = Vec::new();
    for _ in 0..500 {
        let start = Instant::now();
        lock.exclusive().acquire().await.unwrap().release().await.unwrap();
        all.push(start.elapsed());
    }
    // The broker has to warm up.
    let warm = &mut all[100..];
    warm.sort();
    let median = warm[warm.len() / 2];
    println!("connected in {connected:?}; acquire and release: median {median:?}, slowest {:?}", warm.last());
    // Two records that are written and read; anything that lingers or is asked for late costs more each time.
    assert!(median < Duration::from_millis(10), "{warm:?}");
}
