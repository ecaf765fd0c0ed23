//! The server: lock states in shards, each behind a mutex that is never held over an await.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use lockcore::state::{Effect, LockState, Moment};
use lockcore::{ClaimId, Key, KeyPrefix, News};
use tokio::time::Instant;

use crate::backend::MemoryBackend;
use crate::faults::{Faults, Muted};

/// With 64 shards two hot keys in one shard were seen to halve both; with 256 that is rare.
const SHARDS: usize = 256;

/// A server of locks in this process. Its clients contend with each other as if they were on machines of their own.
#[derive(Clone)]
pub struct MemoryServer(Arc<Inner>);

pub(crate) struct Inner {
    shards: Vec<Shard>,
    start: Instant,
    start_micros: u64,
    /// Claims that no news reach because their client is partitioned off; looked at only when there is any.
    muted: Muted,
    any_muted: AtomicBool,
}

// A cache line pair each: two threads on different shards must not share one.
#[repr(align(128))]
#[derive(Default)]
struct Shard(Mutex<Locks>);

#[derive(Default)]
struct Locks {
    states: HashMap<Key, LockState, BuildHasherDefault<KeyHasher>>,
    /// No smaller than any token of a key that is no longer in `states`.
    last_token: u64,
}

/// Keys bring their hash along.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Default for MemoryServer {
    fn default() -> MemoryServer {
        MemoryServer::new()
    }
}

impl MemoryServer {
    /// A server on which nothing is locked.
    #[must_use]
    pub fn new() -> MemoryServer {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        MemoryServer(Arc::new(Inner {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            start: Instant::now(),
            start_micros: u64::try_from(since_epoch.as_micros()).unwrap_or(0),
            muted: Muted::default(),
            any_muted: AtomicBool::new(false),
        }))
    }

    /// A new client of this server.
    #[must_use]
    pub fn client(&self) -> Arc<MemoryBackend> {
        Arc::new(MemoryBackend::of(self.0.clone(), None))
    }

    /// A new client of this server, and the handle that makes its requests fail, get lost or hang.
    #[must_use]
    pub fn client_with_faults(&self) -> (Arc<MemoryBackend>, Faults) {
        let faults = Faults::new(self.0.clone());
        (Arc::new(MemoryBackend::of(self.0.clone(), Some(faults.clone()))), faults)
    }

    /// Ends every lease on `key` now, as if the ttl had passed.
    pub fn expire(&self, key: &Key) {
        self.0.apply(key, |state, _, effects| {
            if let Some(last) = state.last_expiry() {
                state.expire(last, effects);
            }
        });
    }

    /// Loses all state, as a server that restarts empty does. Nobody is told; only tokens go on growing, by the clock.
    pub fn forget(&self) {
        for shard in &self.0.shards {
            *shard.lock() = Locks::default();
        }
    }

    /// How many keys take up room: those that are held, waited for, or have ended claims to remember.
    #[must_use]
    pub fn keys_kept(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().states.len()).sum()
    }
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").field("keys_kept", &self.keys_kept()).finish()
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Locks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Locks {
    fn apply<T>(
        &mut self,
        key: &Key,
        now: impl FnOnce() -> Moment,
        command: impl FnOnce(&mut LockState, Moment, &mut Vec<Effect>) -> T,
        effects: &mut Vec<Effect>,
    ) -> T {
        // Read under the mutex, so that each key's time only goes forward.
        let now = now();
        if let Some(state) = self.states.get_mut(key) {
            let answer = command(state, now, effects);
            if state.is_idle() {
                self.last_token = self.last_token.max(state.last_token());
                self.states.remove(key);
            }
            return answer;
        }
        if self.states.len() == self.states.capacity() {
            self.make_room(now, effects);
        }
        // In its place: moving a state costs as much as the command.
        let state = self.states.entry(key.clone()).or_insert_with(|| LockState::after_token(self.last_token));
        let answer = command(state, now, effects);
        if state.is_idle() {
            self.states.remove(key);
        }
        answer
    }

    /// Room for one more key. Before the table grows, keys of which everything has expired are let go.
    fn make_room(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let capacity = self.states.capacity();
        let last_token = &mut self.last_token;
        self.states.retain(|_, state| {
            state.expire(now, effects);
            let keep = !state.is_idle();
            if !keep {
                *last_token = (*last_token).max(state.last_token());
            }
            keep
        });
        // Most are in use: without more room than for one key the next ones would search them all again.
        if self.states.len() > capacity / 2 {
            self.states.reserve(capacity);
        }
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Moment {
        Moment::from_micros(self.start_micros).after(self.start.elapsed())
    }

    /// Runs one command on the lock of `key`, and delivers its effects after the mutex is free again.
    pub(crate) fn apply<T>(
        &self,
        key: &Key,
        command: impl FnOnce(&mut LockState, Moment, &mut Vec<Effect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let shard = usize::try_from(key.hash_code() >> 56).unwrap_or(0) % SHARDS;
        let answer = self.shards[shard].lock().apply(key, || self.now(), command, &mut effects);
        self.deliver(effects);
        answer
    }

    /// The keys of one shard under a prefix.
    pub(crate) fn keys(&self, shard: usize, prefix: &KeyPrefix) -> Option<Vec<Key>> {
        let mut effects = Vec::new();
        let mut locks = self.shards.get(shard)?.lock();
        let now = self.now();
        let in_use = locks.states.iter_mut().filter_map(|(key, state)| {
            if !prefix.begins(key) {
                return None;
            }
            state.expire(now, &mut effects);
            state.is_in_use().then(|| key.clone())
        });
        let keys = in_use.collect();
        drop(locks);
        self.deliver(effects);
        Some(keys)
    }

    pub(crate) fn mute(&self, ids: &[ClaimId], muted: bool) {
        let any = self.muted.set(ids, muted);
        self.any_muted.store(any, Ordering::Release);
    }

    fn deliver(&self, effects: Vec<Effect>) {
        for effect in effects {
            let (claim, news) = match effect {
                Effect::Granted { claim, fence } => (claim, News::Granted(fence)),
                Effect::Ended { claim, ending } => (claim, News::Ended(ending)),
            };
            if !(self.any_muted.load(Ordering::Acquire) && self.muted.contains(claim.id())) {
                claim.ring(news);
            }
        }
    }
}

/// A lease in this process is never shorter than this.
pub(crate) const MIN_TTL: Duration = Duration::from_millis(1);
