//! The client's clock: monotonic, obedient to tokio's paused time, and counting the time that the machine slept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::time::Instant;

/// A moment on a [`Clock`], in nanoseconds since that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime(u64);

impl LocalTime {
    pub(crate) const NEVER: LocalTime = LocalTime(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> LocalTime {
        LocalTime(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> LocalTime {
        LocalTime(self.0.saturating_add(nanos(duration)))
    }

    /// When a lease of this length, asked for at this moment, is renewed: after a third of it, or up to a tenth sooner, so
    /// that the renewals of many do not come at once.
    pub(crate) fn renewal_due(self, lease: Duration) -> LocalTime {
        let third = nanos(lease) / 3;
        let sooner = (third / 10 / 1024).saturating_mul(fastrand::u64(0..1024));
        LocalTime(self.0.saturating_add(third - sooner))
    }

    /// How long from `now` until this moment; zero when it is past.
    #[must_use]
    pub fn remaining(self, now: LocalTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }
}

/// What is subtracted from an answered lease, for all that the two clocks may do to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// One part in this many is given away to drift; 0 for none.
    pub(crate) drift_divisor: u64,
    pub(crate) margin: Duration,
}

impl Allowance {
    /// The deadline of a lease of which `left` remained when the server answered a request sent at `sent`.
    pub(crate) fn deadline(self, sent: LocalTime, left: Duration) -> LocalTime {
        let left = nanos(left);
        let drift = left.checked_div(self.drift_divisor).unwrap_or(0);
        LocalTime(sent.0.saturating_add((left - drift).saturating_sub(nanos(self.margin))))
    }
}

/// The clock that a client counts its leases on: tokio's, which a test may pause, and the time that the machine was suspended.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Whether the server's leases go on while this machine is suspended.
    counts_sleep: bool,
    /// BOOTTIME - MONOTONIC when the client was made.
    asleep_at_start: u64,
    /// How long the machine has been asleep since then, as last looked at.
    asleep: AtomicU64,
}

/// Differences below this come from reading two clocks one after the other.
const SLACK_NANOS: u64 = 1_000_000;

impl Clock {
    /// A clock that begins now. A server inside this process is suspended with it: then sleep does not count.
    #[must_use]
    pub fn new(counts_sleep: bool) -> Clock {
        let (start, asleep_at_start) = (Instant::now(), surely_suspended_nanos());
        Clock { start, counts_sleep, asleep_at_start, asleep: AtomicU64::new(0) }
    }

    /// Now, with a fresh look at how long the machine has slept: for every decision whether a deadline has passed.
    pub fn now(&self) -> LocalTime {
        if !self.counts_sleep {
            return self.coarse();
        }
        let asleep = suspended_nanos().saturating_sub(self.asleep_at_start);
        let known = self.asleep.load(Ordering::Relaxed);
        if asleep > known + SLACK_NANOS {
            let asleep = surely_suspended_nanos().saturating_sub(self.asleep_at_start);
            self.asleep.fetch_max(asleep, Ordering::Relaxed);
        }
        self.coarse()
    }

    /// Now, with the last known sleep: one clock read. It may lag behind [`now`](Clock::now), so it is right for the
    /// moment that a request is sent, where earlier is the safe side.
    pub fn coarse(&self) -> LocalTime {
        LocalTime(nanos(self.start.elapsed()).saturating_add(self.asleep.load(Ordering::Relaxed)))
    }

    /// The moment on tokio's clock at which a timer for `at` must fire.
    pub(crate) fn timer(&self, at: LocalTime) -> Instant {
        // About 30 years: what tokio itself takes for "far in the future".
        const FAR: u64 = 30 * 365 * 24 * 3600 * 1_000_000_000;
        let mut from_start = at.0.saturating_sub(self.asleep.load(Ordering::Relaxed));
        if from_start > FAR {
            // Far from now: a timer that is far from the start may be past, and would fire again and again.
            from_start = from_start.min(nanos(self.start.elapsed()).saturating_add(FAR));
        }
        self.start + Duration::from_nanos(from_start)
    }
}

/// A process that is stopped between the two readings takes that for sleep, and would not see as much real sleep later;
/// of three, the smallest was stopped least.
fn surely_suspended_nanos() -> u64 {
    (0..3).map(|_| suspended_nanos()).min().unwrap_or(0)
}

fn suspended_nanos() -> u64 {
    let of = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(tv_nsec.unsigned_abs())
    };
    let monotonic = of(ClockId::Monotonic);
    of(ClockId::Boottime).saturating_sub(monotonic)
}

fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_gives_away_drift_and_margin_and_never_underflows() {
        let allowance = Allowance { drift_divisor: 100, margin: Duration::from_millis(2) };
        let sent = LocalTime::from_nanos(5_000_000_000);
        let deadline = allowance.deadline(sent, Duration::from_secs(10));
        assert_eq!(deadline.remaining(sent), Duration::from_millis(9_898));
        assert_eq!(allowance.deadline(sent, Duration::from_millis(1)), sent);
        assert!(allowance.deadline(sent, Duration::MAX).remaining(sent) > crate::lease::MAX_TTL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_paused_time() {
        let clock = Clock::new(true);
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().remaining(before), Duration::from_secs(3600));
    }
}
