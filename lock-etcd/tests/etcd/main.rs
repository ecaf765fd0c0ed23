//! What is etcd's own, on a real server.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod outside;
mod traffic;
mod wrong;

use std::sync::Arc;
use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{Attempt, Claim, Key, Lease, LockBackend, Mode, Queue, Release, Released, Renewal, Result};
use testbed::EtcdServer;

async fn connect(server: &EtcdServer) -> Arc<EtcdBackend> {
    EtcdBackend::connect(&server.url()).await.unwrap()
}

/// A client of the server without locks.
async fn raw(server: &EtcdServer) -> etcd_client::Client {
    etcd_client::Client::connect([server.addr().to_string()], None).await.unwrap()
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
