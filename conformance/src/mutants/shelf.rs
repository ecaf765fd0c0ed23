//! The locks of a twin: one state per key, and what a mutant must know besides to be wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::state::{Effect, LockState, Moment};
use lockcore::{Claim, ClaimId, FencingToken, Key, KeyPrefix};
use tokio::time::Instant;

/// All locks of one server.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    locks: HashMap<Key, Lock>,
    start: Instant,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { locks: HashMap::new(), start: Instant::now() }
    }
}

/// One lock, as the server sees it.
#[derive(Debug, Default)]
pub(super) struct Lock {
    pub(super) state: LockState,
    pub(super) effects: Vec<Effect>,
    /// When the last command was, for mutants whose clock stands still.
    pub(super) last: Option<Moment>,
    /// Claims as their clients made them, by id.
    pub(super) claims: HashMap<ClaimId, Arc<Claim>>,
    /// Claims that the server ended.
    pub(super) ended: Vec<ClaimId>,
    /// Under which name a claim that was revived is known.
    pub(super) alias: HashMap<ClaimId, Arc<Claim>>,
    /// Tokens as they are told, where they differ.
    pub(super) told: HashMap<ClaimId, FencingToken>,
}

impl Shelf {
    /// Runs one command on the lock of `key` at this moment.
    pub(super) fn with<T>(&self, key: &Key, command: impl FnOnce(&mut Lock, Moment) -> T) -> T {
        let mut inner = self.inner();
        let now = Moment::from_micros(1_000_000).after(inner.start.elapsed());
        command(inner.locks.entry(key.clone()).or_default(), now)
    }

    pub(super) fn keys(&self, prefix: &KeyPrefix) -> Vec<Key> {
        let inner = self.inner();
        let used = inner.locks.iter().filter(|(key, lock)| prefix.begins(key) && lock.state.is_in_use());
        used.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn keys_kept(&self) -> usize {
        self.inner().locks.values().filter(|lock| !lock.state.is_idle()).count()
    }

    pub(super) fn clear(&self) {
        self.inner().locks.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
