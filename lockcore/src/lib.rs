//! What a lock is: its semantics as a pure state machine, the trait that a backend implements, and the client that
//! users hold.
//!
//! Users meet this crate through `fencelock`, which re-exports it. Whoever writes a backend implements
//! [`LockBackend`] and runs the `lock-conformance` suite against it.

mod acquire;
mod backend;
mod bell;
mod capability;
mod claim;
mod client;
mod clock;
mod convert;
mod detach;
mod error;
mod guard;
mod held;
mod inspect;
mod key;
mod lease;
mod lock;
mod mode;
mod pursuit;
mod reaper;
mod registry;
mod renewal;
mod request;
mod retry;
pub mod state;
mod tenure;
mod token;
mod wanted;

pub use self::acquire::{Acquire, Renew};
pub use self::backend::{
    Attempt, BreakTarget, Conversion, FORGET_AFTER, LockBackend, Queue, Queued, Release, Released, Renewal,
};
pub use self::bell::{Ending, News};
pub use self::capability::{Capabilities, LeaseClock, TokenStrength, Wake};
pub use self::claim::{Claim, ClaimId, DEFAULT_WAITER_TTL, MAX_LABEL_BYTES};
pub use self::client::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_TTL, LockClient, LockClientBuilder};
pub use self::clock::{Clock, LocalTime};
pub use self::convert::ConvertError;
pub use self::detach::DetachedClaim;
pub use self::error::{Error, ErrorKind, Result};
pub use self::guard::{Any, Exclusive, LockGuard, LockMode, Permit, Shared};
pub use self::inspect::{ClaimInfo, Page, PageToken, Snapshot};
pub use self::key::{Key, KeyPrefix, MAX_KEY_BYTES};
pub use self::lease::{Lease, MAX_TTL};
pub use self::lock::Lock;
pub use self::mode::{Holders, Mode, admits};
pub use self::tenure::Loss;
pub use self::token::{Fence, FenceGate, Fenced, FencingToken};
