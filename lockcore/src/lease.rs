//! How long a holder may act.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::token::Fence;

/// The longest lease that can be asked for: one hundred years.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Whether a lease of this length can be asked for.
pub(crate) fn check_ttl(ttl: Duration) -> Result<()> {
    if ttl.is_zero() {
        return Err(Error::new(ErrorKind::InvalidArgument, "the ttl must be longer than zero"));
    }
    if ttl > MAX_TTL {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the ttl is at most 100 years, not {ttl:?}"),
        ));
    }
    Ok(())
}

/// A holder's lease as the server answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The grant's token and floor.
    pub fence: Fence,
    /// How much of the lease was left when the server carried out the request, rounded down to what it can tell.
    ///
    /// The client counts from before it sent the request, so its own deadline is never later than the server's.
    pub left: Duration,
}
