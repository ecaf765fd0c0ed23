//! The clock that leases are counted on: it goes on while the machine sleeps, as the server's does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment on this machine's boot-time clock, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Moment {
        // Simulated clients live in paused time.
        #[cfg(test)]
        if let Some(simulated) = crate::sim::now() {
            return simulated;
        }
        let time = clock_gettime(ClockId::Boottime);
        Moment(
            time.tv_sec
                .unsigned_abs()
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec.unsigned_abs()),
        )
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long since `earlier`; zero when that lies ahead.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Microseconds of the wall clock since 1970: for what people read, never for a decision.
pub(crate) fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
