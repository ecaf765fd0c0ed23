//! Waiting for a condition, with a bound.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to start, to stop or to answer: far beyond what an overloaded machine needs, since a
/// server that has *died* is noticed at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `check` again and again until it gives a value, at most for `bound`.
///
/// `what` completes the sentence "waited 5s in vain for …".
///
/// # Errors
/// `TimedOut` when the bound has passed; an error of `check` at once, as it is.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let mut asked = 0;
/// let answer = testbed::wait_for("the third question", Duration::from_secs(5), || {
///     asked += 1;
///     Ok((asked == 3).then_some("yes"))
/// });
/// assert_eq!(answer.unwrap(), "yes");
/// ```
pub fn wait_for<T>(
    what: &str,
    bound: Duration,
    mut check: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<T> {
    let start = now();
    // Short at first, as most conditions come true within milliseconds; then gentler on the machine.
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        if now().duration_since(start) >= bound {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("waited {bound:?} in vain for {what}"),
            ));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "real processes live in real time, whatever clock a test has paused"
)]
fn now() -> Instant {
    Instant::now()
}
