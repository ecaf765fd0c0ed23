//! Short names for what the tests do again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{
    Attempt, Claim, ErrorKind, Key, Lease, LockBackend, Mode, Queue, Queued, Release, Released, Result,
};
use testbed::{RedisServer, Reply};

pub(crate) const TTL: Duration = Duration::from_secs(30);

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn claim(text: &str, mode: Mode) -> Arc<Claim> {
    Arc::new(Claim::new(key(text), mode, TTL))
}

pub(crate) async fn connect(server: &RedisServer) -> Arc<RedisBackend> {
    RedisBackend::connect(&server.url()).await.unwrap()
}

pub(crate) async fn acquire(backend: &Arc<RedisBackend>, claim: &Arc<Claim>) -> Result<Attempt> {
    backend.clone().acquire(claim.clone(), Queue::Join).await
}

pub(crate) async fn granted(backend: &Arc<RedisBackend>, claim: &Arc<Claim>) -> Lease {
    match acquire(backend, claim).await.unwrap() {
        Attempt::Granted(lease) => lease,
        other => panic!("it should be granted: {other:?}"),
    }
}

pub(crate) async fn queued(backend: &Arc<RedisBackend>, claim: &Arc<Claim>) -> Queued {
    match acquire(backend, claim).await.unwrap() {
        Attempt::Queued(queued) => queued,
        other => panic!("it should wait: {other:?}"),
    }
}

pub(crate) async fn release(backend: &Arc<RedisBackend>, claim: &Arc<Claim>) -> Result<Released> {
    let release = Release { claim: claim.clone(), answered: true, only_waiting: false };
    backend.clone().release(vec![release]).await.remove(0)
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// All keys of the server.
pub(crate) fn keys(server: &RedisServer) -> Vec<String> {
    let Reply::List(keys) = server.command(&["KEYS", "*"]).unwrap() else { panic!("KEYS gives a list") };
    let mut keys: Vec<String> = keys.iter().map(|key| key.as_text().unwrap().to_owned()).collect();
    keys.sort();
    keys
}

/// How often each command was called, inside scripts too.
pub(crate) fn calls(server: &RedisServer) -> BTreeMap<String, i64> {
    let stats = server.command(&["INFO", "commandstats"]).unwrap();
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
    };
    stats.as_text().unwrap().lines().filter_map(count).collect()
}

pub(crate) fn reset(server: &RedisServer) {
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
}

/// Waits until `done` says so; fails after 10 s.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not: {what}");
}
