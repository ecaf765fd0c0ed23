//! What is dropped, at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{ErrorKind, LeaseClock, LockBackend, LockClient};
use tokio::time::{sleep, timeout};

use crate::scripted::{Scripted, away, script};
use crate::{millis, secs};

/// S18: a waiter whose heartbeat was under way, and failed, when it was dropped is withdrawn all the same.
#[tokio::test(start_paused = true)]
async fn a_dropped_heartbeat_that_fails_leaves_no_waiter() {
    let server = MemoryServer::new();
    let broken = Arc::new(AtomicBool::new(false));
    let mut backend = Scripted::new(server.client());
    backend.acquire = {
        let broken = broken.clone();
        Some(script(move |memory: Arc<MemoryBackend>, (claim, queue)| {
            let broken = broken.load(Ordering::Relaxed);
            async move {
                if broken {
                    sleep(secs(1)).await;
                    return Err(away());
                }
                memory.acquire(claim, queue).await
            }
        }))
    };
    let (a, b) = (LockClient::new(server.client()), backend.client());
    let guard = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(b.lock("k").unwrap().exclusive().acquire());
    sleep(secs(3)).await;
    broken.store(true, Ordering::Relaxed);
    sleep(millis(500)).await;
    waiting.abort();
    sleep(secs(2)).await;
    assert!(a.lock("k").unwrap().inspect().await.unwrap().waiters.is_empty());
    guard.release().await.unwrap();
}

/// S18: a guard that outlives its runtime is dropped without a panic, though its backend needs one.
#[test]
fn a_guard_is_dropped_outside_of_a_runtime() {
    let mut backend = Scripted::new(MemoryBackend::new());
    backend.clock = LeaseClock::ServerMonotonic;
    backend.release = Some(script(async |memory: Arc<MemoryBackend>, release| {
        sleep(millis(1)).await;
        memory.release(vec![release]).await.remove(0)
    }));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let locks = backend.client();
    let lock = locks.lock("k").unwrap();
    let guard = first.block_on(lock.exclusive().acquire()).unwrap();
    drop(first);
    drop(guard);
    // What one runtime leaves undone the next one finds.
    let next = async { timeout(secs(1), lock.exclusive().acquire()).await.unwrap().map(drop) };
    second.block_on(next).unwrap();
}

/// Closing needs no runtime where the backend needs none.
#[test]
fn a_client_is_closed_outside_of_a_runtime() {
    let locks = LockClient::new(MemoryBackend::new());
    let mut closing = std::pin::pin!(locks.close());
    assert!(closing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

/// A claim that is resumed while its client closes is not held on.
#[tokio::test(start_paused = true)]
async fn close_ends_what_is_being_resumed() {
    let server = MemoryServer::new();
    let a = LockClient::new(server.client());
    let mut backend = Scripted::new(server.client());
    backend.renew = Some(script(async |memory: Arc<MemoryBackend>, renewal| {
        sleep(secs(1)).await;
        memory.renew(vec![renewal]).await.remove(0)
    }));
    let b = backend.client();
    let detached = a.lock("k").unwrap().exclusive().acquire().await.unwrap().detach().unwrap();
    let closing = async {
        sleep(millis(500)).await;
        b.close().await
    };
    let (resumed, closed) = tokio::join!(b.resume(&detached), closing);
    closed.unwrap();
    assert_eq!(resumed.unwrap_err().kind(), ErrorKind::Closed);
    assert!(a.lock("k").unwrap().inspect().await.unwrap().is_free());
}
