//! What is measured in one process: ours, and what the same price buys elsewhere.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockable::LockPool;
use lockcore::{Lock, Mode};
use tokio::sync::{OwnedMutexGuard, RwLock};

use crate::Result;
use crate::worker::{Contender, Worker};

/// One worker's lock of ours.
pub(crate) struct Ours(pub(crate) Lock);

impl Contender for Ours {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        if mode.is_exclusive() {
            let guard = self.0.exclusive().acquire().await?;
            let fence = guard.fence();
            worker.granted(fence.token.get(), fence.floor.get());
            worker.hold().await;
            worker.leaves();
            guard.release().await?;
        } else {
            let guard = self.0.shared().acquire().await?;
            let fence = guard.fence();
            worker.granted(fence.token.get(), fence.floor.get());
            worker.hold().await;
            worker.leaves();
            guard.release().await?;
        }
        worker.has_left();
        Ok(())
    }
}

/// The floor: `tokio::sync::RwLock`, without keys, leases, tokens or a queue that can be left.
pub(crate) struct Bare(pub(crate) Arc<RwLock<()>>);

impl Contender for Bare {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        if mode.is_exclusive() {
            let guard = self.0.write().await;
            worker.granted(0, 0);
            worker.hold().await;
            worker.leaves();
            drop(guard);
        } else {
            let guard = self.0.read().await;
            worker.granted(0, 0);
            worker.hold().await;
            worker.leaves();
            drop(guard);
        }
        worker.has_left();
        Ok(())
    }
}

type Keyed = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// 64 maps from keys to tokio mutexes, emptied as keys become idle: what many write by hand.
pub(crate) struct Maps {
    hasher: RandomState,
    maps: Vec<Map>,
}

#[derive(Default)]
#[repr(align(128))]
struct Map(Mutex<Keyed>);

impl Maps {
    pub(crate) fn new() -> Arc<Maps> {
        let maps = (0..64).map(|_| Map::default()).collect();
        Arc::new(Maps { hasher: RandomState::new(), maps })
    }

    fn of(&self, key: &str) -> MutexGuard<'_, Keyed> {
        let map = usize::try_from(self.hasher.hash_one(key) >> 58).unwrap_or(0);
        self.maps[map].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let mutex = self.of(key).entry(key.to_owned()).or_default().clone();
        mutex.lock_owned().await
    }

    fn unlock(&self, key: &str, guard: OwnedMutexGuard<()>) {
        let mut map = self.of(key);
        drop(guard);
        if map.get(key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            map.remove(key);
        }
    }
}

/// One worker of [`Maps`].
pub(crate) struct OfMaps {
    pub(crate) maps: Arc<Maps>,
    pub(crate) key: String,
}

impl Contender for OfMaps {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let guard = self.maps.lock(&self.key).await;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        self.maps.unlock(&self.key, guard);
        worker.has_left();
        Ok(())
    }
}

/// One worker of the `lockable` crate.
pub(crate) struct Lockable {
    pub(crate) pool: Arc<LockPool<String>>,
    pub(crate) key: String,
}

impl Contender for Lockable {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let guard = self.pool.async_lock(self.key.clone()).await;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        drop(guard);
        worker.has_left();
        Ok(())
    }
}
