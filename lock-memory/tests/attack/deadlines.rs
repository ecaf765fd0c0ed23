//! Until when a guard may be believed.

use std::sync::Arc;

use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{Attempt, Lease, LockBackend, LockClient, Loss, MAX_TTL, Renew};
use tokio::time::{advance, sleep};

use crate::scripted::{Scripted, fence, script};
use crate::{millis, secs};

/// S10: the server counts in microseconds; what it rounds away must not let two in.
#[tokio::test(start_paused = true)]
async fn rounding_does_not_let_two_in() {
    let server = MemoryServer::new();
    let (backend, faults) = server.client_with_faults();
    let (a, b) = (LockClient::new(backend), LockClient::new(server.client()));
    let nanos = std::time::Duration::from_nanos;
    advance(nanos(900)).await;
    let guard =
        a.lock("k").unwrap().exclusive().ttl(millis(10)).renew(Renew::Manual).acquire().await.unwrap();
    faults.partition(true);
    advance(nanos(9_999_200)).await;
    let next = b.lock("k").unwrap().exclusive().try_acquire().await.unwrap();
    assert!(!(next.is_some() && guard.is_held()), "two are inside");
}

/// S10, S11: an answer that comes after the deadline does not bring the guard back.
#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_bring_a_lost_guard_back() {
    let mut backend = Scripted::new(MemoryBackend::new());
    backend.renew = Some(script(async |memory: Arc<MemoryBackend>, renewal| {
        let answer = memory.renew(vec![renewal]).await.remove(0);
        sleep(millis(2500)).await;
        answer
    }));
    let locks = LockClient::builder(Arc::new(backend)).request_timeout(secs(10)).build();
    let guard = locks.lock("k").unwrap().exclusive().ttl(secs(3)).acquire().await.unwrap();
    sleep(millis(3550)).await;
    assert!(!guard.is_held(), "its deadline passed after 3 s, and the first answer came after 3.4 s");
    assert_eq!(guard.lost().await, Loss::Expired);
}

/// A guard that is renewed for less goes on being renewed, in time for the shorter lease.
#[tokio::test(start_paused = true)]
async fn renewing_for_less_keeps_the_guard() {
    let (backend, faults) = MemoryServer::new().client_with_faults();
    let locks = LockClient::new(backend);
    let mut guard = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    guard.renew_for(secs(3)).await.unwrap();
    sleep(secs(60)).await;
    assert!(guard.is_held());
    guard.renew_for(secs(30)).await.unwrap();
    faults.lose_replies(1);
    guard.renew_for(secs(3)).await.unwrap_err();
    sleep(secs(60)).await;
    assert!(guard.is_held(), "nor is it lost when the answer was");
}

/// A lease may be longer than asked for: that of a server that rounds up.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_rounded_up_is_renewed() {
    let mut backend = Scripted::new(MemoryBackend::new());
    let lease = Lease { fence: fence(), left: secs(60) };
    backend.acquire = Some(script(move |_, _| async move { Ok(Attempt::Granted(lease)) }));
    backend.renew = Some(script(move |_, _| async move { Ok(lease) }));
    let locks = backend.client();
    let guard = locks.lock("k").unwrap().exclusive().ttl(secs(10)).acquire().await.unwrap();
    sleep(secs(600)).await;
    assert!(guard.is_held());
}

/// The longest lease can be waited out.
#[tokio::test(start_paused = true)]
async fn a_hundred_years_pass() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let guard = lock.exclusive().ttl(MAX_TTL).renew(Renew::Manual).acquire().await.unwrap();
    assert_eq!(guard.lost().await, Loss::Expired);
    assert!(lock.exclusive().wait(secs(60)).acquire().await.is_ok());
}

/// Waits and leases of any length are as good as endless; none panics.
#[tokio::test(start_paused = true)]
async fn no_duration_is_too_long_or_too_short() {
    let server = MemoryServer::new();
    let backend = server.client();
    let locks = LockClient::builder(backend).request_timeout(std::time::Duration::MAX).build();
    let lock = locks.lock("k").unwrap();
    lock.exclusive().ttl(std::time::Duration::from_nanos(1)).acquire().await.map(drop).unwrap();
    let held = lock.exclusive().ttl(millis(10)).acquire().await.unwrap();
    let waiting = lock.exclusive().wait(secs(u64::MAX)).max_hold(std::time::Duration::MAX);
    let waiting = tokio::spawn(waiting.acquire());
    sleep(secs(1)).await;
    assert!(held.is_held());
    held.release().await.unwrap();
    let mut next = waiting.await.unwrap().unwrap();
    assert!(!next.renew_if_below(std::time::Duration::ZERO).await.unwrap());
    assert!(next.renew_if_below(std::time::Duration::MAX).await.unwrap());
    next.ensure(std::time::Duration::MAX).unwrap_err();
    assert!(!lock.wait_free(lockcore::Mode::Shared, millis(5)).await.unwrap());
}
