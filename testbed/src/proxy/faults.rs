//! What is wrong with the network just now, and what it has seen.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

/// The faults in force.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "faults that are on or off independently of each other")]
pub(super) struct Faults {
    pub(super) stall: bool,
    pub(super) hold_requests: bool,
    pub(super) drop_requests: bool,
    pub(super) drop_replies: bool,
    pub(super) delay_requests: Duration,
    pub(super) delay_replies: Duration,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Requests,
    Replies,
}

/// What a [`Proxy`](crate::Proxy) has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections that have not ended.
    pub open: usize,
    /// Bytes that have arrived from clients, delivered or not.
    pub requests: u64,
    /// Bytes that have arrived from the server, delivered or not.
    pub replies: u64,
    /// Bytes of either side that were swallowed.
    pub swallowed: u64,
}

/// What all connections of a proxy share.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) faults: watch::Sender<Faults>,
    counters: watch::Sender<Counters>,
}

impl Network {
    pub(super) fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(change);
    }

    /// Waits until no connection is open.
    pub(super) async fn all_closed(&self) {
        // Fails only without a sender, and there is ours.
        let _ = self.counters.subscribe().wait_for(|counters| counters.open == 0).await;
    }

    /// Waits until bytes that arrived at `since` may go on, and tells whether they do (or are swallowed).
    pub(super) async fn gate(&self, direction: Direction, since: Instant) -> bool {
        let mut faults = self.faults.subscribe();
        loop {
            let now = *faults.borrow_and_update();
            let due = since + now.delay(direction);
            if now.holds(direction) {
                // Fails only without a sender, and there is ours.
                let _ = faults.changed().await;
            } else if due > Instant::now() {
                // A change may lengthen or shorten the delay.
                let _ = time::timeout_at(due, faults.changed()).await;
            } else {
                return !now.drops(direction);
            }
        }
    }
}

impl Faults {
    fn holds(&self, direction: Direction) -> bool {
        self.stall || (self.hold_requests && direction == Direction::Requests)
    }

    fn drops(&self, direction: Direction) -> bool {
        match direction {
            Direction::Requests => self.drop_requests,
            Direction::Replies => self.drop_replies,
        }
    }

    fn delay(&self, direction: Direction) -> Duration {
        match direction {
            Direction::Requests => self.delay_requests,
            Direction::Replies => self.delay_replies,
        }
    }
}
