//! What the server tells this client without being asked, and who wants to know.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lockcore::{Claim, ClaimId, Ending, News};

use crate::reply::{Line, lines};

const SHARDS: usize = 64;

/// The claims of this client that wait or are held: their bells are rung when the server's messages come.
///
/// A claim is here from before its first request, since its grant may arrive before the answer does. It leaves with its
/// release, and when the server says that it has ended. What is forgotten in neither way is swept: the table holds no
/// claim alive.
#[derive(Debug)]
pub(crate) struct Registry {
    shards: [Shard; SHARDS],
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { shards: std::array::from_fn(|_| Shard::default()) }
    }
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Table>);

impl Default for Shard {
    fn default() -> Shard {
        Shard(Mutex::new(Table { claims: HashMap::default(), sweep_at: SWEEP_MIN }))
    }
}

#[derive(Debug)]
struct Table {
    claims: HashMap<ClaimId, Weak<Claim>, BuildHasherDefault<IdHasher>>,
    /// The number of entries at which dead ones are swept.
    sweep_at: usize,
}

const SWEEP_MIN: usize = 64;

/// Claim ids are random already.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, bits: u128) {
        self.0 = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    }
}

impl Registry {
    /// Puts the claim in; it stays until it is removed or dropped by everybody else.
    pub(crate) fn add(&self, claim: &Arc<Claim>) {
        let mut table = self.table(claim.id());
        if table.claims.len() >= table.sweep_at {
            table.claims.retain(|_, claim| claim.strong_count() > 0);
            table.sweep_at = SWEEP_MIN.max(2 * table.claims.len());
        }
        table.claims.insert(claim.id(), Arc::downgrade(claim));
    }

    pub(crate) fn remove(&self, id: ClaimId) {
        self.table(id).claims.remove(&id);
    }

    /// Reads a message and rings the bells that it is for. A grant that is not believed yet is a reason to ask.
    pub(crate) fn dispatch(&self, message: &[u8], believed: bool) {
        for line in lines(message) {
            match line {
                Line::Granted(id, fence) if believed => self.tell(id, News::Granted(fence)),
                Line::Granted(id, _) => self.tell(id, News::Look),
                Line::Expired(id) => self.ended(id, Ending::Expired),
                Line::Broken(id) => self.ended(id, Ending::Broken),
                Line::TakenOver(id) => self.ended(id, Ending::TakenOver),
            }
        }
    }

    /// Tells every claim to look for itself: messages may have been missed.
    pub(crate) fn everybody_look(&self) {
        for shard in &self.shards {
            let claims: Vec<Arc<Claim>> = lock(&shard.0).claims.values().filter_map(Weak::upgrade).collect();
            for claim in claims {
                claim.ring(News::Look);
            }
        }
    }

    /// How many claims are known.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.0).claims.len()).sum()
    }

    fn tell(&self, id: ClaimId, news: News) {
        let claim = self.table(id).claims.get(&id).and_then(Weak::upgrade);
        if let Some(claim) = claim {
            claim.ring(news);
        }
    }

    fn ended(&self, id: ClaimId, ending: Ending) {
        let claim = self.table(id).claims.remove(&id).and_then(|claim| claim.upgrade());
        if let Some(claim) = claim {
            claim.ring(News::Ended(ending));
        }
    }

    fn table(&self, id: ClaimId) -> MutexGuard<'_, Table> {
        let shard = usize::try_from(id.to_bits() >> 122).unwrap_or_default();
        lock(&self.shards[shard % SHARDS].0)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
