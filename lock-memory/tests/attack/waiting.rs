//! Waiting, against servers that answer oddly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{Attempt, Ending, Error, ErrorKind, Lease, LockBackend, LockClient, News, Queued, Renew};
use tokio::time::{sleep, timeout};

use crate::scripted::{Scripted, fence, script};
use crate::{millis, secs};

/// S16: a waiter that was taken over, and was not told, does not take over in turn.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_taken_over_evicts_nobody() {
    let server = MemoryServer::new();
    let (backend, faults) = server.client_with_faults();
    let (a, b) = (LockClient::new(backend), LockClient::new(server.client()));
    let holder = b.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let old = tokio::spawn(a.lock("k").unwrap().exclusive().owner("job").take_over().acquire());
    sleep(secs(1)).await;
    faults.partition(true);
    let new = tokio::spawn(b.lock("k").unwrap().exclusive().owner("job").take_over().acquire());
    sleep(secs(1)).await;
    faults.partition(false);
    sleep(secs(1)).await;
    holder.release().await.unwrap();
    let new = new.await.unwrap().unwrap();
    sleep(secs(60)).await;
    assert!(new.is_held(), "the older claim took it back");
    assert!(!old.is_finished());
    new.release().await.unwrap();
    assert!(old.await.unwrap().unwrap().is_held());
}

/// A server that says "ask again now" is not asked in a busy loop.
#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_spin() {
    for left in [secs(10), Duration::ZERO] {
        let requests = Arc::new(AtomicUsize::new(0));
        let mut backend = Scripted::new(MemoryBackend::new());
        backend.acquire = {
            let requests = requests.clone();
            Some(script(move |_, _| {
                requests.fetch_add(1, Ordering::Relaxed);
                let recheck = (!left.is_zero()).then_some(Duration::ZERO);
                async move { Ok(Attempt::Queued(Queued { left, recheck })) }
            }))
        };
        let error =
            backend.client().lock("k").unwrap().exclusive().wait(secs(1)).acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(requests.load(Ordering::Relaxed) < 1100);
    }
}

/// A server whose grants always come later than their leases allow is not asked for ever.
#[tokio::test(start_paused = true)]
async fn grants_that_come_too_late_end() {
    let mut backend = Scripted::new(MemoryBackend::new());
    backend.acquire =
        Some(script(async |_, _| Ok(Attempt::Granted(Lease { fence: fence(), left: Duration::ZERO }))));
    let locks = backend.client();
    let lock = locks.lock("k").unwrap();
    assert_eq!(lock.exclusive().acquire().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(lock.exclusive().wait(secs(5)).acquire().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(lock.exclusive().try_acquire().await.unwrap_err().kind(), ErrorKind::Timeout);
}

/// S9: the one renewal at a hand-over, of a lease that its user renews, is tried again too.
#[tokio::test(start_paused = true)]
async fn a_hand_over_survives_one_lost_answer() {
    let server = MemoryServer::new();
    let failed = AtomicBool::new(false);
    let mut backend = Scripted::new(server.client());
    backend.renew = Some(script(move |memory: Arc<MemoryBackend>, renewal| {
        let fails = !failed.swap(true, Ordering::Relaxed);
        async move {
            let answer = memory.renew(vec![renewal]).await.remove(0);
            if fails { Err(Error::new(ErrorKind::Indeterminate, "lost")) } else { answer }
        }
    }));
    let (a, b) = (LockClient::new(server.client()), backend.client());
    let first = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let manual = b.lock("k").unwrap().exclusive().renew(Renew::Manual).ttl(secs(60)).wait(secs(60));
    let waiting = tokio::spawn(manual.acquire());
    sleep(secs(5)).await;
    first.release().await.unwrap();
    assert!(waiting.await.unwrap().unwrap().remaining() > secs(58));
}

/// A claim that ended before its grant was read has ended.
#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_granted_and_broken_is_told() {
    let mut backend = Scripted::new(MemoryBackend::new());
    backend.acquire = Some(script(async |_, (claim, _): (Arc<lockcore::Claim>, _)| {
        claim.ring(News::Granted(fence()));
        claim.ring(News::Ended(Ending::Broken));
        Ok(Attempt::Queued(Queued { left: secs(10), recheck: None }))
    }));
    let error = backend.client().lock("k").unwrap().exclusive().acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
}

/// A waiter's lease of zero would end before every heartbeat.
#[tokio::test(start_paused = true)]
async fn a_waiters_lease_of_zero_is_refused() {
    let locks = LockClient::builder(MemoryBackend::new()).waiter_ttl(Duration::ZERO).build();
    let error = locks.lock("k").unwrap().exclusive().wait(millis(10)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// S9: the heartbeats of a waiter go on when the runtime ends on which the client's tasks ran.
#[test]
fn a_waiter_outlives_the_runtime_of_the_tasks() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let waiter_ttl = Duration::from_millis(300);
    let server = MemoryServer::new();
    let holder = LockClient::new(server.client()).lock("k").unwrap();
    let locks = LockClient::builder(server.client()).waiter_ttl(waiter_ttl).build();
    let lock = locks.lock("k").unwrap();
    let other = locks.lock("other").unwrap();
    let once = async { other.exclusive().acquire().await.unwrap().release().await.unwrap() };
    first.block_on(once);
    second.block_on(async {
        let held = holder.exclusive().acquire().await.unwrap();
        let waiting = tokio::spawn(async move { lock.exclusive().acquire().await });
        let queued = async || holder.inspect().await.unwrap().waiters.first().map(|waiter| waiter.id);
        let id = loop {
            tokio::task::yield_now().await;
            if let Some(id) = queued().await {
                break id;
            }
        };
        first.shutdown_background();
        sleep(3 * waiter_ttl).await;
        assert_eq!(queued().await, Some(id), "its lease ran out");
        held.release().await.unwrap();
        assert!(waiting.await.unwrap().unwrap().is_held());
    });
}

/// S19: who is queued and set itself no limit holds out for as long as its place is kept, and no longer.
#[tokio::test(start_paused = true)]
async fn a_waiter_outlasts_a_server_that_is_away() {
    let server = MemoryServer::new();
    let (backend, faults) = server.client_with_faults();
    let (a, b) = (LockClient::new(backend), LockClient::new(server.client()));
    let holder = b.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(a.lock("k").unwrap().exclusive().acquire());
    sleep(millis(10)).await;
    // Its heartbeat after 3.3 s, and more tries after that than somebody has who is not queued.
    faults.fail_next(4);
    sleep(secs(8)).await;
    holder.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    guard.release().await.unwrap();

    let holder = b.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(a.lock("k").unwrap().exclusive().acquire());
    sleep(millis(10)).await;
    faults.partition(true);
    let error = timeout(secs(20), waiting).await.expect("it gives up").unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Indeterminate), "{error}");
    holder.release().await.unwrap();
}
