//! One acquisition, from its first request to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bell::{Bell, News};
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::lease::check_ttl;
use crate::mode::Mode;
use crate::tenure::Tenure;

/// The lease of a waiter unless the claim says otherwise; never longer than the claim's ttl.
pub const DEFAULT_WAITER_TTL: Duration = Duration::from_secs(10);

/// The longest owner or note in bytes of UTF-8.
pub const MAX_LABEL_BYTES: usize = 1024;

/// Names one claim: 128 random bits, made by the client before its first request.
///
/// Nothing is ever identified by client, session, connection or key alone, so two tasks of one program never share
/// a lock by accident, and a late request of an old claim never touches a newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimId(#[serde(with = "hex_id")] u128);

#[cfg(feature = "test-util")]
std::thread_local!(static SEEDED: std::cell::RefCell<Option<fastrand::Rng>> = const { std::cell::RefCell::new(None) });

impl ClaimId {
    /// A new id that nobody else has.
    #[must_use]
    pub fn random() -> ClaimId {
        #[cfg(feature = "test-util")]
        if let Some(bits) = SEEDED.with_borrow_mut(|seeded| Some(seeded.as_mut()?.u128(..))) {
            return ClaimId(bits);
        }
        ClaimId(rand::random())
    }

    /// Lets the ids that this thread makes from now on follow from a seed, so that a simulation can be played again. Others may
    /// have the same ones: this is for tests alone.
    #[cfg(feature = "test-util")]
    pub fn seed(seed: u64) {
        SEEDED.set(Some(fastrand::Rng::with_seed(seed)));
    }

    /// The id of these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> ClaimId {
        ClaimId(bits)
    }

    /// The id as a number.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ClaimId {
    type Err = Error;

    fn from_str(text: &str) -> Result<ClaimId, Error> {
        let bits = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        bits.map(ClaimId).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("a claim id has 32 hexadecimal digits: {text:?}"))
        })
    }
}

mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bits: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// One acquisition: what it asks for, and what is known of it here.
///
/// A backend sees a claim as an `Arc<Claim>` from its first request to its last, and tells it news by
/// [`ring`](Claim::ring).
pub struct Claim {
    key: Key,
    mode: Mode,
    id: ClaimId,
    owner: Option<Arc<str>>,
    note: Option<Arc<str>>,
    ttl: Duration,
    waiter_ttl: Duration,
    take_over: bool,
    kept: bool,
    bell: Bell,
    unanswered: AtomicBool,
    pub(crate) tenure: Tenure,
}

impl Claim {
    /// A claim on `key` with a new id, without owner or note.
    #[must_use]
    pub fn new(key: Key, mode: Mode, ttl: Duration) -> Claim {
        Claim {
            key,
            mode,
            id: ClaimId::random(),
            owner: None,
            note: None,
            ttl,
            waiter_ttl: ttl.min(DEFAULT_WAITER_TTL),
            take_over: false,
            kept: false,
            bell: Bell::default(),
            unanswered: AtomicBool::new(false),
            tenure: Tenure::default(),
        }
    }

    /// A claim of these values, made in its place: the builder's steps would move it each time.
    #[expect(clippy::too_many_arguments, reason = "a struct of them would be moved like the claim itself")]
    pub(crate) fn assemble(
        key: Key,
        mode: Mode,
        ttl: Duration,
        waiter_ttl: Duration,
        owner: Option<Arc<str>>,
        note: Option<Arc<str>>,
        take_over: bool,
        kept: bool,
    ) -> Arc<Claim> {
        Arc::new(Claim {
            key,
            mode,
            id: ClaimId::random(),
            owner,
            note,
            ttl,
            waiter_ttl: waiter_ttl.min(ttl),
            take_over,
            kept,
            bell: Bell::default(),
            unanswered: AtomicBool::new(false),
            tenure: Tenure::default(),
        })
    }

    /// The same claim with this id: to resume one, or to replay a scenario.
    #[must_use]
    pub fn with_id(mut self, id: ClaimId) -> Claim {
        self.id = id;
        self
    }

    /// The same claim with this lease; its waiter's lease is set anew.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Claim {
        self.ttl = ttl;
        self.waiter_ttl = ttl.min(DEFAULT_WAITER_TTL);
        self
    }

    /// The same claim in the name of `owner`.
    #[must_use]
    pub fn with_owner(mut self, owner: Option<Arc<str>>) -> Claim {
        self.owner = owner;
        self
    }

    /// The same claim with a note for whoever inspects the lock.
    #[must_use]
    pub fn with_note(mut self, note: Option<Arc<str>>) -> Claim {
        self.note = note;
        self
    }

    /// The same claim with this lease while it waits; never longer than the ttl.
    #[must_use]
    pub fn with_waiter_ttl(mut self, waiter_ttl: Duration) -> Claim {
        self.waiter_ttl = waiter_ttl.min(self.ttl);
        self
    }

    /// The same claim, ending its owner's other claims on the key when it joins.
    #[must_use]
    pub fn taking_over(mut self, take_over: bool) -> Claim {
        self.take_over = take_over;
        self
    }

    /// The same claim, renewed to its whole ttl again and again until it is released.
    #[must_use]
    pub fn keeping(mut self, kept: bool) -> Claim {
        self.kept = kept;
        self
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// `InvalidArgument` that names the value and its bound.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        check_ttl(self.ttl)?;
        if self.waiter_ttl.is_zero() {
            return refuse("a waiter's lease must be longer than zero".into());
        }
        for (name, label) in [("owner", &self.owner), ("note", &self.note)] {
            if let Some(length) = label.as_ref().map(|label| label.len()).filter(|&n| n > MAX_LABEL_BYTES) {
                return refuse(format!("the {name} has at most {MAX_LABEL_BYTES} bytes, not {length}"));
            }
        }
        if self.owner.as_deref() == Some("") {
            return refuse("the owner must not be empty; leave it out instead".into());
        }
        if self.take_over && self.owner.is_none() {
            return refuse("taking over needs an owner to take over from".into());
        }
        Ok(())
    }

    /// The key that is claimed.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The mode that was asked for first; a conversion does not change it here.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The claim's name.
    #[must_use]
    pub fn id(&self) -> ClaimId {
        self.id
    }

    /// In whose name it is made, if in anybody's.
    #[must_use]
    pub fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// The note for whoever inspects the lock.
    #[must_use]
    pub fn note(&self) -> Option<&Arc<str>> {
        self.note.as_ref()
    }

    /// How long its lease is when a request of it is granted at once or renews it.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long its lease is when a request of it finds it waiting, or handed over meanwhile.
    #[must_use]
    pub fn waiter_ttl(&self) -> Duration {
        self.waiter_ttl
    }

    /// Whether it ends its owner's other claims on the key.
    #[must_use]
    pub fn take_over(&self) -> bool {
        self.take_over
    }

    /// Whether the client renews it to its whole ttl until it lets go: a backend may then put it on a lease that it shares
    /// with others of the same length.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.kept
    }

    /// Tells the claim news: called by the backend that learned it, from any thread. It neither blocks nor panics.
    pub fn ring(&self, news: News) {
        self.bell.ring(news);
        if let News::Ended(ending) = news {
            self.tenure.lose(ending.into());
        }
        self.bell.wake();
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Whether a request of it may still be under way to the server, so that its id must be remembered there.
    pub(crate) fn is_answered(&self) -> bool {
        !self.unanswered.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_unanswered(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn deadline(&self) -> LocalTime {
        self.tenure.deadline()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("mode", &self.mode)
            .field("owner", &self.owner)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
