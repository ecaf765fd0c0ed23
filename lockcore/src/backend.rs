//! What a server must be able to do to be a backend: the small interface for those who implement one.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::capability::Capabilities;
use crate::claim::{Claim, ClaimId};
use crate::error::Result;
use crate::inspect::{ClaimInfo, Page, PageToken, Snapshot};
use crate::key::{Key, KeyPrefix};
use crate::lease::Lease;
use crate::mode::Mode;
use crate::token::FencingToken;

/// A server that keeps locks, seen from one client of it.
///
/// The trait is minimal: no retries, no renewal, no waiting policy. All that is written once, in
/// [`LockClient`](crate::LockClient), and is the same for every backend. Whether an implementation is right is
/// what the `lock-conformance` suite tells.
///
/// # Contract
/// - **The claim id is the identity.** Every operation is idempotent per claim id and harmless when it arrives late
///   or twice. A claim that ended never comes back: while a copy of its acquire may be under way its id is
///   remembered (for [`FORGET_AFTER`]), and acquiring it answers [`Attempt::Gone`].
/// - **The server decides**, as [`LockState`](crate::state::LockState) does: who may hold, in which order, with
///   which token. Expired claims are removed before any other rule is applied.
/// - **Errors tell the truth.** `Unavailable` means that nothing happened on the server; `Indeterminate` that it may
///   have. Contention is a value, not an error.
/// - **Futures are `'static` and may outlive the call.** The client polls them where the caller waits, hands the
///   request of a dropped call to its reaper, and bounds each request in time by dropping it. A dropped request may
///   still be carried out by the server.
/// - **News are hints.** A backend that can push calls [`Claim::ring`] on the claims that were granted or ended. One
///   that cannot answers a short [`Queued::recheck`], and the client asks again.
/// - Nothing here blocks a thread, and nothing spawns on behalf of a caller.
#[async_trait]
pub trait LockBackend: Debug + Send + Sync + 'static {
    /// What this client can do here. It does not change.
    fn capabilities(&self) -> Capabilities;

    /// Joins the claim to its key: grants it, queues it, or says that it is busy. For a claim that waits already this
    /// is its heartbeat.
    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt>;

    /// Renews the leases of holders, each from now on. One answer for each renewal, in their order; `Lost` for a claim
    /// that is not a holder, even when its key is free.
    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>>;

    /// Where a request that renews many claims costs about as much as one that renews a single claim: the number of the
    /// group to which the claims on `key` belong. All that a client has of a group it renews together, many of them
    /// sooner than they are due. Of two groups one may be out of reach; they never share a request.
    ///
    /// `None`, unless a backend says otherwise: each is renewed when it is due.
    fn renewal_group(&self, _key: &Key) -> Option<usize> {
        None
    }

    /// Converts a holder between exclusive and shared or permit.
    ///
    /// An upgrade is granted at once, or waits ahead of the queue ([`Attempt::Queued`]; asking again is idempotent); it
    /// fails with `WouldDeadlock` while another one waits. Converting to the mode that is held withdraws a waiting
    /// upgrade. `Lost` for a claim that is not a holder.
    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt>;

    /// Lets go of claims, granted or queued. One answer for each, in their order.
    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>>;

    /// Takes claims off the key by force, and answers those that it removed.
    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>>;

    /// Who holds and who waits, as at some point during the call.
    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot>;

    /// The keys under a prefix that somebody holds or waits for, page by page in no particular order.
    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page>;

    /// Ends the connection. What is held stays until its lease runs out.
    async fn close(self: Arc<Self>) -> Result<()>;
}

/// How long a server remembers the id of an ended claim of which a request may still be under way.
pub const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Whether a claim that cannot be granted at once waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// It waits its turn.
    Join,
    /// It leaves at once: a try. It never overtakes those who wait either.
    Never,
}

/// What became of a request to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The claim is a holder.
    Granted(Lease),
    /// It waits.
    Queued(Queued),
    /// Others are in the way, and it did not want to wait.
    Busy,
    /// This id has ended and never comes back; nothing is said of why. A new claim may join at the tail.
    Gone,
}

/// A waiter's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// How much of the waiter's own lease is left.
    pub left: Duration,
    /// When asking again is worth it at the latest, for a waiter whose turn comes when a lease ahead runs out.
    pub recheck: Option<Duration>,
}

/// A request to renew one holder's lease.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// Whose lease.
    pub claim: Arc<Claim>,
    /// The lease from now on; it may be shorter than what is left.
    pub ttl: Duration,
    /// Numbers the renewals of one claim: one with a smaller number than the last changes nothing and answers what is
    /// left.
    pub order: u64,
}

/// A request to convert one holder.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Who converts.
    pub claim: Arc<Claim>,
    /// To which mode.
    pub to: Mode,
    /// Numbers the conversions of one claim, apart from its renewals: one with a smaller number than the last changes
    /// nothing and answers how the claim stands. Repeating a conversion repeats its number.
    pub order: u64,
}

/// A request to let one claim go.
#[derive(Clone, Debug)]
pub struct Release {
    /// Which claim.
    pub claim: Arc<Claim>,
    /// Whether every acquire of this claim was answered. If not, a copy may still be under way, and the server remembers
    /// the id.
    pub answered: bool,
    /// Let go only of a claim that still waits; a granted one stays and is answered as [`Released::Granted`].
    pub only_waiting: bool,
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The claim was held or queued until now.
    Released,
    /// It had ended before: whoever acted under it since did not hold the lock.
    NotHeld,
    /// It is granted, and only a waiting claim was to be let go.
    Granted(Lease),
}

/// Which claims to take off a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakTarget {
    /// The claim of this id.
    Claim(ClaimId),
    /// The holder with this token.
    Token(FencingToken),
    /// All claims of this owner, granted or queued.
    Owner(Arc<str>),
    /// All holders; the next waiters get their turn.
    Holders,
    /// All holders and all waiters.
    All,
}
