//! The clock of the log: what the brokers' wall clocks can be believed of.

use std::time::Duration;

use lockcore::state::Moment;
use serde::{Deserialize, Serialize};

/// Counts from the genesis record on, and only forward.
///
/// From one record to the next it goes on by what the stamps differ, but not back, and by no more than the genesis record
/// allows. So a broker whose clock is set forward takes it one such step ahead and no further. While nothing is written, it
/// falls behind: leases get longer then, never shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogClock {
    pub(crate) now: Moment,
    /// The stamp of the last record.
    pub(crate) stamp: u64,
}

impl LogClock {
    pub(crate) fn from(stamp: u64) -> LogClock {
        LogClock { now: Moment::default(), stamp }
    }

    pub(crate) fn tick(&mut self, stamp: u64, step_us: u64) {
        let passed = stamp.saturating_sub(self.stamp).min(step_us);
        self.now = self.now.after(Duration::from_micros(passed));
        self.stamp = stamp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_by_small_steps_only() {
        let mut clock = LogClock::from(1_000);
        let mut tick = |stamp| {
            clock.tick(stamp, 10);
            clock.now.as_micros()
        };
        assert_eq!([1_004, 1_004, 990, 993, 5_000, 1_004, 1_005].map(&mut tick), [4, 4, 4, 7, 17, 17, 18]);
    }
}
