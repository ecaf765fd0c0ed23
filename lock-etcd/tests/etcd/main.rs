//! What is etcd's own, on a real server.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod attack;
mod late;
mod lost;
mod members;
mod names;
mod outside;
mod tls;
mod traffic;
mod unavailable;
mod users;
mod wrong;

use std::sync::Arc;
use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{
    Attempt, Claim, Error, Key, Lease, LockBackend, Mode, Queue, Release, Released, Renewal, Result,
};
use testbed::EtcdServer;

const SOON: Duration = Duration::from_secs(2);

/// Why a connection is refused, which is told in time.
async fn refused(url: &str) -> Error {
    let connecting = EtcdBackend::builder(url).connect_timeout(SOON).request_timeout(SOON).connect();
    let outcome = tokio::time::timeout(2 * SOON, connecting).await.expect("it ends");
    outcome.expect_err("it is refused")
}

/// Waits until `done` says so.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(10 * SOON, waited).await.unwrap_or_else(|_| panic!("still not: {what}"));
}

async fn connect(server: &EtcdServer) -> Arc<EtcdBackend> {
    EtcdBackend::connect(&server.url()).await.unwrap()
}

/// A client of the server without locks.
async fn raw(server: &EtcdServer) -> etcd_client::Client {
    etcd_client::Client::connect([server.addr().to_string()], None).await.unwrap()
}

/// The same as a user.
async fn raw_as(server: &EtcdServer, user: &str, password: &str) -> etcd_client::Client {
    let options = etcd_client::ConnectOptions::new().with_user(user, password);
    etcd_client::Client::connect([server.addr().to_string()], Some(options)).await.unwrap()
}

/// The key of a claim on `lock`, such as `lock/k`.
async fn key_of(raw: &mut etcd_client::Client, lock: &str, claim: &Claim) -> etcd_client::KeyValue {
    let all = Some(etcd_client::GetOptions::new().with_prefix());
    let found = raw.get(format!("{lock}/~"), all).await.unwrap();
    let id = claim.id().to_string();
    found.kvs().iter().find(|kv| kv.value_str().unwrap().contains(&id)).unwrap().clone()
}

/// A claim as a client makes it that renews.
fn kept(key: &str, mode: Mode, ttl: Duration) -> Arc<Claim> {
    Arc::new(Claim::new(Key::new(key).unwrap(), mode, ttl).with_waiter_ttl(ttl).keeping(true))
}

async fn join(backend: &Arc<EtcdBackend>, claim: &Arc<Claim>) -> Attempt {
    backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap()
}

async fn renew(backend: &Arc<EtcdBackend>, claim: &Arc<Claim>, order: u64) -> Result<Lease> {
    let renewal = Renewal { claim: claim.clone(), ttl: claim.ttl(), order };
    backend.clone().renew(vec![renewal]).await.pop().unwrap()
}

async fn release(backend: &Arc<EtcdBackend>, claim: &Arc<Claim>) -> Released {
    let release = Release { claim: claim.clone(), answered: true, only_waiting: false };
    backend.clone().release(vec![release]).await.pop().unwrap().unwrap()
}
