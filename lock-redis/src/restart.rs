//! `restart_grace`: after a start of the server nothing is granted until nobody can still believe to hold what it forgot.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lockcore::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::checks::field;
use crate::errors::Trouble;

/// The server counts its uptime between two moments that were cut to whole seconds: it may be less by this.
const UPTIME_STEP: Duration = Duration::from_secs(1);

/// Until when the server may not have grants believed, as far as its last connections tell.
///
/// Whoever held before the start has a lease of at most `grace`, so it is over that long after the start, whatever the
/// server remembers. The server's own uptime says when that is, to all clients alike: nothing has to be stored.
#[derive(Debug)]
pub(crate) struct RestartGrace {
    grace: Duration,
    ends: Mutex<Option<Instant>>,
}

impl RestartGrace {
    pub(crate) fn new(grace: Duration) -> RestartGrace {
        RestartGrace { grace, ends: Mutex::new(None) }
    }

    /// Takes in when the server started, from the `INFO` of a new connection, before anything else is asked on it.
    pub(crate) fn look(&self, info: &str, address: &str) -> Result<(), Trouble> {
        let uptime = field(info, "uptime_in_seconds").parse::<i64>().map_err(|_| {
            let message = format!("{address} does not say its uptime_in_seconds, which restart_grace needs");
            Trouble::new(ErrorKind::Unsupported, message)
        })?;
        // Negative when the server's clock was put back: as if it had started just now.
        let surely_up = Duration::from_secs(u64::try_from(uptime).unwrap_or(0)).saturating_sub(UPTIME_STEP);
        let ends = Instant::now().checked_add(self.grace.saturating_sub(surely_up));
        let mut known = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        // An attempt to connect that was overtaken by a restart must not undo what a later one has seen.
        *known = ends.max(*known);
        Ok(())
    }

    /// How long grants are not believed yet; `None` when it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        let ends = *self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.and_then(|ends| ends.checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Refuses a grant while the grace lasts.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(left) = self.left() else { return Ok(()) };
        let (grace, seconds) = (self.grace, left.as_secs() + 1);
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the server was started a short while ago and may have forgotten who holds what: \
                 nothing is granted for another {seconds}s (restart_grace={grace:?})"
            ),
        ))
    }

    /// Refuses a lease that could outlast the grace.
    pub(crate) fn check_ttl(&self, ttl: Duration) -> Result<()> {
        if ttl <= self.grace {
            return Ok(());
        }
        let grace = self.grace;
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "a ttl of {ttl:?} is longer than restart_grace={grace:?}, and could be believed in after a restart: \
                 shorten the ttl, or make restart_grace longer for all clients"
            ),
        ))
    }

    /// The lease that a renewal may ask for. Refusing it instead would cost its holder the lock.
    pub(crate) fn cap(&self, ttl: Duration) -> Duration {
        ttl.min(self.grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(restart: &RestartGrace, uptime: &str) -> Option<Duration> {
        restart.look(&format!("uptime_in_seconds:{uptime}\r\n"), "here:1").unwrap();
        restart.left()
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_counts_from_the_start_of_the_server() {
        let second = Duration::from_secs(1);
        for (uptime, expected) in [
            ("0", Some(30)),
            ("1", Some(30)),
            ("11", Some(20)),
            ("31", None),
            ("999999", None),
            ("-7", Some(30)),
        ] {
            let restart = RestartGrace::new(30 * second);
            assert_eq!(left(&restart, uptime), expected.map(Duration::from_secs), "{uptime}");
        }
        let restart = RestartGrace::new(30 * second);
        left(&restart, "11");
        tokio::time::advance(15 * second).await;
        assert_eq!(left(&restart, "500"), Some(5 * second), "a late look of before undoes nothing");
        let error = restart.check().unwrap_err();
        assert!(error.is_retryable() && error.message().contains("another 6s"), "{error}");
        tokio::time::advance(5 * second).await;
        restart.check().unwrap();
        assert_eq!(restart.look("", "here:1").unwrap_err().kind, ErrorKind::Unsupported);
    }
}
