//! Attacks on the client: replies that are late or lost, news that are stale, drops at bad moments, odd times.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod converting;
mod deadlines;
mod letting_go;
mod memory;
mod renewing;
mod scripted;
mod storm;
mod waiting;

use std::time::Duration;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
