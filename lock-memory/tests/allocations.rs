//! What an uncontended lock costs: the one figure of a benchmark that is the same on every machine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use lock_memory::MemoryBackend;
use lockcore::{Lock, LockClient};

/// The claim; the two requests and the vectors of the second; the lock's state on the server: six. One is spare.
const AT_MOST: u64 = 7;

/// Enough that whatever grows once has grown.
const WARM_UP: usize = 1000;

async fn cycle(lock: &Lock) {
    lock.exclusive().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn an_uncontended_cycle_allocates_little_and_leaves_nothing() {
    let lock = LockClient::new(MemoryBackend::new()).lock("k").unwrap();
    for _ in 0..WARM_UP {
        cycle(&lock).await;
    }
    // The task's budget is used up by now and then: only a cycle that is not interrupted counts.
    tokio::task::yield_now().await;
    let mut done = Poll::Pending;
    let seen = allocation_counter::measure(|| {
        done = pin!(cycle(&lock)).poll(&mut Context::from_waker(Waker::noop()));
    });
    assert!(done.is_ready(), "nobody else wants the lock");
    assert!(seen.count_total <= AT_MOST, "at most {AT_MOST} allocations a cycle: {seen:?}");
    assert_eq!(seen.count_current, 0, "nothing is left behind: {seen:?}");
}
