//! Time as the state machine sees it: an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on a backend's clock, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment this many microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Moment {
        Moment(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The moment `duration` later, rounded up to a microsecond.
    #[must_use]
    pub fn after(self, duration: Duration) -> Moment {
        let micros = u64::from(duration.subsec_nanos().div_ceil(1000));
        Moment(self.0.saturating_add(duration.as_secs().saturating_mul(1_000_000)).saturating_add(micros))
    }

    /// How long since `earlier`; zero when that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
