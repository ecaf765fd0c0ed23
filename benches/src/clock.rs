//! The clocks of a measurement.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of wall time since some moment.
pub(crate) fn nanos() -> u64 {
    of(ClockId::Monotonic)
}

/// Nanoseconds of CPU that all threads of this process have used.
pub(crate) fn cpu_nanos() -> u64 {
    of(ClockId::ProcessCPUTime)
}

/// Seconds between two of the moments above.
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    float(to.saturating_sub(from)) / 1e9
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures of a measurement have fewer than 53 bits that matter"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

fn of(clock: ClockId) -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
    tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(tv_nsec.unsigned_abs())
}
