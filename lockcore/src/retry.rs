//! How often and when a request is sent again after the server could not be reached.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first delay is at most this.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// No delay is longer than this.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// How often an acquire without a wait budget asks a server that is away.
const TRIES_WITHOUT_BUDGET: usize = 3;

/// Exponential delays with full jitter, as in Brooker, "Exponential Backoff And Jitter" (AWS, 2015).
#[derive(Debug)]
pub(crate) struct Retry(ExponentialBackoff);

impl Retry {
    /// For as long as the caller's own budget lasts.
    pub(crate) fn within_budget() -> Retry {
        Retry(builder().without_max_times().build())
    }

    /// For callers that gave no budget.
    pub(crate) fn few_times() -> Retry {
        Retry(builder().with_max_times(TRIES_WITHOUT_BUDGET - 1).build())
    }

    /// How long to wait before the next try; `None` when it is time to give up.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        self.0.next().map(|longest| longest.mul_f64(fastrand::f64()))
    }
}

fn builder() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(FIRST_DELAY).with_max_delay(LONGEST_DELAY).with_factor(2.0)
}
