//! The clock of leases: it counts the time that the machine was suspended, and so do the alarms set on it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A moment on `CLOCK_BOOTTIME`, in nanoseconds: the same for all processes of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const NEVER: Moment = Moment(u64::MAX);

    pub(crate) fn now() -> Moment {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
        Moment(tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(tv_nsec.unsigned_abs()))
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Moment {
        Moment(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn plus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }

    /// How long after `earlier` it is.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn minus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wakes a task at a [`Moment`].
///
/// Tokio's own timers stand still while the machine is suspended, and would let a child go on after it woke up.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    pub(crate) fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe, for descriptors that may lie; an OwnedFd does not"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Alarm(timer))
    }

    /// Waits until `at`. Dropping the future has no effect.
    pub(crate) async fn at(&self, at: Moment) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        while at > Moment::now() {
            // A zero would switch the timer off.
            let at = at.as_nanos().clamp(1, i64::MAX.unsigned_abs());
            let it_value = Timespec {
                tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at % 1_000_000_000).unwrap_or(0),
            };
            let setting = Itimerspec { it_interval: zero, it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &setting)?;
            // Setting the timer has cleared what an earlier one left, but tokio may not know: the loop looks again.
            self.0.readable().await?.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_when_it_is_time_and_not_before() {
        let alarm = Alarm::new().unwrap();
        for millis in [0, 5, 30, 1] {
            let at = Moment::now().plus(Duration::from_millis(millis));
            alarm.at(at).await.unwrap();
            assert!(Moment::now() >= at);
        }
        alarm.at(Moment::from_nanos(0)).await.unwrap();
    }

    #[tokio::test]
    async fn an_alarm_that_was_given_up_does_not_ring_for_the_next() {
        let alarm = Alarm::new().unwrap();
        let soon = Moment::now().plus(Duration::from_millis(5));
        assert!(tokio::time::timeout(Duration::from_millis(1), alarm.at(soon)).await.is_err());
        let later = Moment::now().plus(Duration::from_millis(40));
        alarm.at(later).await.unwrap();
        assert!(Moment::now() >= later);
        let never = tokio::time::timeout(Duration::from_millis(20), alarm.at(Moment::NEVER)).await;
        assert!(never.is_err());
    }
}
