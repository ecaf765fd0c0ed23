//! How often and when a request is sent again after the server could not be reached.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first delay is at most this.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// No delay is longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// How often a release asks a server that is away.
const TRIES: usize = 3;

/// How often more an acquire without a wait budget asks, and how long it pauses at least: what is short is ridden out.
const MORE_TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Exponential delays with full jitter, as in Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
#[derive(Debug)]
pub(crate) struct Retry {
    longest: ExponentialBackoff,
    least: Duration,
}

impl Retry {
    /// For as long as the caller's own budget lasts.
    pub(crate) fn within_budget() -> Retry {
        Retry { longest: builder().without_max_times().build(), least: Duration::ZERO }
    }

    /// For an acquire without a budget: three more times, a second or two apart.
    pub(crate) fn patiently() -> Retry {
        let longest = builder().with_min_delay(LONGEST_DELAY).with_max_times(MORE_TRIES).build();
        Retry { longest, least: PAUSE }
    }

    /// For a release, which goes on in the background anyway.
    pub(crate) fn few_times() -> Retry {
        Retry { longest: builder().with_max_times(TRIES - 1).build(), least: Duration::ZERO }
    }

    /// How long to wait before the next try; `None` when it is time to give up.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        let longest = self.longest.next()?;
        Some(self.least + longest.saturating_sub(self.least).mul_f64(fastrand::f64()))
    }
}

fn builder() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(FIRST_DELAY).with_max_delay(LONGEST_DELAY).with_factor(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(mut retry: Retry) -> (usize, Duration) {
        std::iter::from_fn(|| retry.next_delay())
            .fold((0, Duration::ZERO), |(tries, total), delay| (tries + 1, total + delay))
    }

    #[test]
    fn an_acquire_without_a_budget_rides_out_three_seconds() {
        let (tries, patience) = total(Retry::patiently());
        assert_eq!(tries, 3);
        assert!((Duration::from_secs(3)..=Duration::from_secs(6)).contains(&patience), "{patience:?}");
    }

    #[test]
    fn a_release_is_tried_three_times() {
        let (more, patience) = total(Retry::few_times());
        assert_eq!(more, 2);
        assert!(patience <= Duration::from_secs(1), "{patience:?}");
    }

    #[test]
    fn delays_grow_to_a_bound_and_do_not_end() {
        let mut retry = Retry::within_budget();
        assert!((0..1_000).all(|_| retry.next_delay().is_some_and(|delay| delay <= LONGEST_DELAY)));
    }
}
