//! What a backend can promise: stated, so that asking for more is an error and never a silent downgrade.

use std::time::Duration;

/// How a waiter learns that it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The server tells it. A lost message costs one slow poll.
    Push,
    /// It asks again and again.
    Poll,
}

/// Under which circumstances tokens go on growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStrength {
    /// Always: the server's durable order makes them.
    Strict,
    /// As long as the server keeps its state; when it loses that, as long as its clock has not gone back.
    ClockOverLoss,
}

/// Whose clock a lease runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseClock {
    /// The tokio clock of the client's own process: there is no drift to allow for, and both stand still together.
    Own,
    /// The server's wall clock: a step forward expires leases early, which tokens cover.
    ServerWall,
    /// A monotonic clock of the server.
    ServerMonotonic,
}

/// What one client of a backend can do, as far as a caller must know.
///
/// The conformance suite checks each promise that is made here: a backend that overstates itself fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each one is a promise of its own that the suite checks")]
pub struct Capabilities {
    /// The backend's name, as errors and logs give it.
    pub backend: &'static str,
    /// Claims are granted in the order in which they arrived at the server.
    pub fair: bool,
    /// How a waiter learns of its grant.
    pub wake: Wake,
    /// Guards can be upgraded and downgraded.
    pub convert: bool,
    /// Permits (a bounded number of holders) work.
    pub permits: bool,
    /// Keys can be listed.
    pub list: bool,
    /// How far the growth of tokens can be relied on.
    pub tokens: TokenStrength,
    /// Whose clock leases run on.
    pub clock: LeaseClock,
    /// The shortest lease; a shorter ttl is rounded up to it.
    pub min_ttl: Duration,
    /// Leases are a multiple of this, rounded up.
    pub ttl_step: Duration,
    /// A granted lock outlives the loss of one server.
    pub survives_failover: bool,
}
