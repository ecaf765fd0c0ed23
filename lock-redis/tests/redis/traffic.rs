//! What goes over the wire: as few requests and messages as there can be.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{LockBackend, LockClient, Mode, Released, Renewal};
use testbed::RedisServer;
use tokio::time::Instant;

use crate::bench::{TTL, calls, claim, connect, granted, queued, release, reset};

#[tokio::test]
async fn one_request_each_for_acquire_and_release() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    for mode in [Mode::Exclusive, Mode::Shared] {
        let warm = claim("a", mode);
        granted(&backend, &warm).await;
        release(&backend, &warm).await.unwrap();
        reset(&server);
        for _ in 0..50 {
            let one = claim("a", mode);
            granted(&backend, &one).await;
            assert_eq!(release(&backend, &one).await.unwrap(), Released::Released);
        }
        let calls = calls(&server);
        assert_eq!(calls["evalsha"], 100, "{calls:?}");
        assert_eq!(calls["time"], 100, "{calls:?}");
        // Nothing else comes from this client; inside a script there are three calls.
        let others = calls.keys().filter(|name| !name.starts_with("config") && !name.starts_with("info"));
        assert_eq!(others.collect::<Vec<_>>(), ["evalsha", "get", "setrange", "time"]);
    }
}

#[tokio::test]
async fn a_hand_over_costs_one_message_however_many_wait() {
    for waiters in [1, 8, 64] {
        let server = RedisServer::start().unwrap();
        let backend = connect(&server).await;
        let mut line = vec![claim("a", Mode::Exclusive)];
        granted(&backend, &line[0]).await;
        for _ in 0..waiters {
            line.push(claim("a", Mode::Exclusive));
            queued(&backend, &line[line.len() - 1]).await;
        }
        reset(&server);
        for one in &line[..waiters] {
            assert_eq!(release(&backend, one).await.unwrap(), Released::Released);
        }
        let calls = calls(&server);
        let waiters = i64::try_from(waiters).unwrap();
        assert_eq!((calls["evalsha"], calls["publish"]), (waiters, waiters), "{calls:?}");
        let inside: i64 = calls.values().sum::<i64>() - calls["evalsha"];
        assert!(inside <= 12 * waiters, "{inside} calls for {waiters} hand-overs: {calls:?}");
    }
}

#[tokio::test]
async fn readers_who_wait_together_are_told_together() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let writer = claim("a", Mode::Exclusive);
    granted(&backend, &writer).await;
    for _ in 0..20 {
        queued(&backend, &claim("a", Mode::Shared)).await;
    }
    reset(&server);
    release(&backend, &writer).await.unwrap();
    assert_eq!(calls(&server)["publish"], 1, "one message for each client");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_are_woken_by_the_message_and_not_by_polling() {
    let server = RedisServer::start().unwrap();
    let clients = [LockClient::new(connect(&server).await), LockClient::new(connect(&server).await)];
    let mut held = Some(clients[0].lock("a").unwrap().exclusive().acquire().await.unwrap());
    for round in 0..40 {
        let lock = clients[round % 2].lock("a").unwrap();
        let waiter = tokio::spawn(async move { lock.exclusive().acquire().await.unwrap() });
        let lock = clients[0].lock("a").unwrap();
        while lock.inspect().await.unwrap().waiters.is_empty() {}
        let start = Instant::now();
        held.take().unwrap().release().await.unwrap();
        held = Some(waiter.await.unwrap());
        assert!(start.elapsed() < Duration::from_secs(1), "a poll would take 3 s: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn many_renewals_are_few_writes() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let mut claims = Vec::new();
    for n in 0..1200 {
        let one = claim(&format!("k{n}"), Mode::Exclusive);
        granted(&backend, &one).await;
        claims.push(one);
    }
    let renewals =
        |order| claims.iter().map(|claim| Renewal { claim: claim.clone(), ttl: TTL, order }).collect();
    reset(&server);
    let before = server.info("total_reads_processed").unwrap().parse::<i64>().unwrap();
    let renewed = Arc::clone(&backend).renew(renewals(1)).await;
    assert!(renewed.iter().all(|lease| lease.as_ref().unwrap().left == TTL));
    let reads = server.info("total_reads_processed").unwrap().parse::<i64>().unwrap() - before;
    assert_eq!(calls(&server)["evalsha"], 1200);
    assert!(reads < 100, "1200 renewals took {reads} reads of the server");
}
