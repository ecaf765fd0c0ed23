//! The client on the memory backend, under a paused clock.

use std::time::Duration;

use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{BreakTarget, ErrorKind, LockClient, Loss, Mode, Renew};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// S4: the second waits until the first lets go, and is handed the lock.
#[tokio::test(start_paused = true)]
async fn a_release_hands_over() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let first = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(async move { b.lock("k").unwrap().exclusive().acquire().await });
    tokio::task::yield_now().await;
    let token = first.token();
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert!(second.token() > token);
    assert!(second.is_held());
}

/// S9: a guard outlives its ttl many times over, also one that was handed over on a waiter's lease.
#[tokio::test(start_paused = true)]
async fn a_guard_is_renewed_for_a_day() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let first = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(async move {
        let guard = b.lock("k").unwrap().exclusive().acquire().await.unwrap();
        (b, guard)
    });
    tokio::time::sleep(secs(3600)).await;
    assert!(first.is_held());
    drop(first);
    let (_b, second) = waiting.await.unwrap();
    tokio::time::sleep(secs(24 * 3600)).await;
    assert!(second.is_held());
}

/// S20: the error of a wait that is over says who is in the way.
#[tokio::test(start_paused = true)]
async fn a_timeout_names_the_holder() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let _guard = lock.exclusive().owner("web-3").note("nightly").acquire().await.unwrap();
    for wait in [secs(5), Duration::ZERO] {
        let error = lock.shared().wait(wait).acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("blocked by exclusive holder web-3 (note \"nightly\""), "{text}");
    }
    assert!(lock.inspect().await.unwrap().waiters.is_empty());
}

/// S18: dropped futures and guards leave nothing behind.
#[tokio::test(start_paused = true)]
async fn dropping_leaves_nothing() {
    let server = MemoryServer::new();
    let locks = LockClient::new(server.client());
    let lock = locks.lock("k").unwrap();
    let guard = lock.exclusive().acquire().await.unwrap();
    let waiting = tokio::time::timeout(secs(1), lock.exclusive().acquire()).await;
    assert!(waiting.is_err());
    assert!(lock.inspect().await.unwrap().waiters.is_empty());
    drop(guard);
    assert!(lock.inspect().await.unwrap().is_free());
    assert_eq!(server.keys_kept(), 0);
}

/// S11, S15: a broken holder learns it at once.
#[tokio::test(start_paused = true)]
async fn a_broken_holder_is_told() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let guard = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let broken = b.lock("k").unwrap().break_claims(BreakTarget::Token(guard.token())).await.unwrap();
    assert_eq!(broken.len(), 1);
    assert_eq!(guard.lost().await, Loss::Broken);
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// S10: a holder that cannot renew is lost no later than its deadline, and its successor comes after that.
#[tokio::test(start_paused = true)]
async fn a_partitioned_holder_is_lost_by_its_deadline() {
    let server = MemoryServer::new();
    let (backend, faults) = server.client_with_faults();
    let (a, b) = (LockClient::new(backend), LockClient::new(server.client()));
    let guard = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    faults.partition(true);
    let next = tokio::spawn(async move { b.lock("k").unwrap().exclusive().acquire().await.map(|_| ()) });
    assert_eq!(guard.lost().await, Loss::Expired);
    assert!(!next.is_finished(), "the lease outlasts the holder's own deadline");
    next.await.unwrap().unwrap();
}

/// S17: an upgrade waits for the other readers, and nobody joins past it.
#[tokio::test(start_paused = true)]
async fn an_upgrade_waits_ahead_of_the_queue() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let (one, other) = (lock.shared().acquire().await.unwrap(), lock.shared().acquire().await.unwrap());
    let token = one.token();
    let upgrade = tokio::spawn(one.upgrade());
    tokio::task::yield_now().await;
    assert!(lock.shared().try_acquire().await.unwrap().is_none());
    let refused = other.upgrade().await.unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::WouldDeadlock);
    refused.into_guard().release().await.unwrap();
    let upgraded = upgrade.await.unwrap().unwrap();
    assert!(upgraded.token() > token);
    let shared = upgraded.downgrade().await.unwrap();
    assert!(lock.shared().try_acquire().await.unwrap().is_some());
    assert!(shared.is_held());
}

/// S17: an upgrade that is not granted in time leaves the shared guard as it was.
#[tokio::test(start_paused = true)]
async fn an_upgrade_that_times_out_gives_the_guard_back() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let (one, _other) = (lock.shared().acquire().await.unwrap(), lock.shared().acquire().await.unwrap());
    let error = one.upgrade_within(secs(100)).await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Timeout);
    let one = error.into_guard();
    assert!(one.is_held());
    assert!(lock.shared().try_acquire().await.unwrap().is_some(), "the waiting upgrade was withdrawn");
}

/// S16: the same owner takes its place over, and the old guard is lost.
#[tokio::test(start_paused = true)]
async fn taking_over_ends_the_old_guard() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let old = lock.exclusive().owner("job").acquire().await.unwrap();
    let new = lock.exclusive().owner("job").take_over().acquire().await.unwrap();
    assert_eq!(old.lost().await, Loss::TakenOver);
    assert!(new.token() > old.token());
}

/// S9: a lease that is renewed by hand gets its whole ttl at the hand-over, once, and then runs out.
#[tokio::test(start_paused = true)]
async fn a_manual_lease_runs_out() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let first = lock.exclusive().acquire().await.unwrap();
    let waiting = {
        let lock = lock.clone();
        tokio::spawn(async move { lock.exclusive().renew(Renew::Manual).ttl(secs(60)).acquire().await })
    };
    tokio::time::sleep(secs(5)).await;
    first.release().await.unwrap();
    let mut guard = waiting.await.unwrap().unwrap();
    assert!(guard.remaining() > secs(59));
    assert!(!guard.renew_if_below(secs(30)).await.unwrap());
    tokio::time::sleep(secs(40)).await;
    assert!(guard.renew_if_below(secs(30)).await.unwrap());
    tokio::time::sleep(secs(61)).await;
    assert!(!guard.is_held());
    assert_eq!(guard.renew().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// A stuck holder does not keep the lock beyond `max_hold`.
#[tokio::test(start_paused = true)]
async fn max_hold_caps_renewal() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let guard = lock.exclusive().max_hold(secs(100)).acquire().await.unwrap();
    tokio::time::sleep(secs(99)).await;
    assert!(guard.is_held());
    tokio::time::sleep(secs(2)).await;
    assert!(!guard.is_held());
    assert!(lock.exclusive().try_acquire().await.unwrap().is_some());
}

/// A detached claim goes on without its guard and is resumed as itself.
#[tokio::test(start_paused = true)]
async fn a_detached_claim_is_resumed() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let guard = a.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let token = guard.token();
    let detached = guard.detach().unwrap();
    tokio::time::sleep(secs(20)).await;
    let resumed = b.resume(&detached).await.unwrap();
    assert_eq!(resumed.token(), token);
    tokio::time::sleep(secs(100)).await;
    assert!(resumed.is_held());
    resumed.release().await.unwrap();
    assert_eq!(b.resume(&detached).await.unwrap_err().kind(), ErrorKind::Lost);
}

/// S15: a resumed claim is told of its end, not the handle that it came from.
#[tokio::test(start_paused = true)]
async fn a_resumed_claim_is_told_of_a_break() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let detached = a.lock("k").unwrap().exclusive().acquire().await.unwrap().detach().unwrap();
    let resumed = b.resume(&detached).await.unwrap();
    a.lock("k").unwrap().break_claims(BreakTarget::All).await.unwrap();
    assert!(!resumed.is_held());
    assert_eq!(resumed.lost().await, Loss::Broken);
}

/// `run` drops its work when the lock is lost, and lets go when it is done.
#[tokio::test(start_paused = true)]
async fn run_cancels_on_loss() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let token = lock.shared().run(async |guard| guard.token()).await.unwrap();
    assert!(token.get() > 0);
    assert!(lock.inspect().await.unwrap().is_free());
    let work = lock.exclusive().run(async |_| std::future::pending::<()>().await);
    let breaker = async {
        tokio::time::sleep(secs(1)).await;
        lock.break_claims(BreakTarget::All).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(work, breaker);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Lost);
}

/// Waiting for a free lock does not keep it.
#[tokio::test(start_paused = true)]
async fn wait_free_waits_and_lets_go() {
    let locks = LockClient::new(MemoryBackend::new());
    let lock = locks.lock("k").unwrap();
    let guard = lock.exclusive().acquire().await.unwrap();
    assert!(!lock.wait_free(Mode::Shared, secs(1)).await.unwrap());
    let (free, ()) = tokio::join!(lock.wait_free(Mode::Exclusive, secs(10)), async {
        tokio::time::sleep(secs(1)).await;
        guard.release().await.unwrap();
    });
    assert!(free.unwrap());
    assert!(lock.inspect().await.unwrap().is_free());
}

/// S19: a server that is away is `Unavailable` in bounded time; one that comes back within the wait is ridden out.
#[tokio::test(start_paused = true)]
async fn unavailability_is_ridden_out_within_the_wait() {
    let (backend, faults) = MemoryServer::new().client_with_faults();
    let locks = LockClient::new(backend);
    let lock = locks.lock("k").unwrap();
    faults.fail_next(3);
    assert!(lock.exclusive().wait(secs(60)).acquire().await.is_ok());
    faults.fail_next(1000);
    assert_eq!(lock.exclusive().acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(lock.exclusive().try_acquire().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// S2, S18: an acquire whose answer was lost leaves no ghost.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_no_ghost() {
    let (backend, faults) = MemoryServer::new().client_with_faults();
    let locks = LockClient::new(backend);
    let lock = locks.lock("k").unwrap();
    faults.lose_replies(1);
    let guard = lock.exclusive().wait(secs(10)).acquire().await.unwrap();
    assert_eq!(lock.inspect().await.unwrap().holders.len(), 1);
    guard.release().await.unwrap();
    faults.lose_replies(1);
    assert!(lock.exclusive().try_acquire().await.is_err() || lock.inspect().await.unwrap().is_free());
    tokio::time::sleep(secs(1)).await;
    assert!(lock.inspect().await.unwrap().is_free());
}

/// Closing ends waiting acquires, and what is held.
#[tokio::test(start_paused = true)]
async fn close_ends_everything() {
    let server = MemoryServer::new();
    let (a, b) = (LockClient::new(server.client()), LockClient::new(server.client()));
    let lock = a.lock("k").unwrap();
    let guard = lock.exclusive().acquire().await.unwrap();
    let waiting = {
        let lock = lock.clone();
        tokio::spawn(async move { lock.exclusive().acquire().await })
    };
    tokio::task::yield_now().await;
    a.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(guard.lost().await, Loss::Closed);
    assert!(b.lock("k").unwrap().exclusive().try_acquire().await.unwrap().is_some());
    assert_eq!(lock.shared().try_acquire().await.unwrap_err().kind(), ErrorKind::Closed);
}
