//! The claims of this client that wait or hold: what is known of their keys, and whose bells are rung.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lockcore::{Claim, ClaimId, Ending, Fence, Key, News};

use crate::clock::Moment;
use crate::keys::{Kind, Names};
use crate::leases::Lease;
use crate::slots::{Slot, Slots};

const SHARDS: usize = 16;

/// What the client knows of one of its claims.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    claim: Weak<Claim>,
    pub(crate) key: Key,
    pub(crate) name: String,
    /// What its name is made of; `None` when another client made it.
    pub(crate) slot: Option<Slot>,
    /// How many requests that make or delete its key by the name alone were not answered.
    unanswered: u32,
    /// The write that let it in as the only holder, if it is known to have been that.
    pub(crate) alone_by: Option<i64>,
    pub(crate) standing: Standing,
    /// The revision of the last write of its key that is known; a later one wins.
    pub(crate) modified: i64,
    pub(crate) lease: Arc<Lease>,
    /// When its own requests let its lease end, as far as this client knows. It is later than what any guard counts on.
    pub(crate) expires: Moment,
    /// The number of the last renewal.
    pub(crate) renewed: u64,
    /// A move to another lease was not answered, and may come yet: only another write keeps it out.
    pub(crate) moving: bool,
    /// The other lease that it may lie on: if it must wait, while its first acquire is under way; later, if it is moved.
    pub(crate) waiting: Option<Arc<Lease>>,
}

impl Own {
    fn new(claim: &Arc<Claim>, name: String, lease: Arc<Lease>) -> Own {
        Own {
            claim: Arc::downgrade(claim),
            key: claim.key().clone(),
            name,
            slot: None,
            unanswered: 0,
            alone_by: None,
            standing: Standing::Joining,
            modified: 0,
            expires: Moment::now().plus(lease.ttl),
            lease,
            renewed: 0,
            moving: false,
            waiting: None,
        }
    }

    /// Whether it holds alone, by the last write of its key that is known.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone_by == Some(self.modified)
    }

    /// What is left at `now` of what its own requests have earned it. On a shared lease that may be less than what is left of
    /// the lease: the claim is taken out later than this, never sooner.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        self.lease.left(now).min(self.expires.since(now))
    }
}

/// How the claim stands, as last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its first acquire was not answered yet.
    Joining,
    Queued,
    Granted(Fence),
}

/// The table of them.
///
/// A claim is here from before its first request, since its grant may be told before that is answered. It leaves when the
/// server is known not to have it any more.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The name under which the client hears of its claims, and which theirs begin with.
    session: String,
    slots: Slots,
    shards: [Mutex<HashMap<ClaimId, Own>>; SHARDS],
}

impl Registry {
    pub(crate) fn new(session: String) -> Registry {
        Registry { session, slots: Slots::default(), shards: Default::default() }
    }

    pub(crate) fn get(&self, id: ClaimId) -> Option<Own> {
        self.shard(id).get(&id).cloned()
    }

    pub(crate) fn knows(&self, id: ClaimId) -> bool {
        self.shard(id).contains_key(&id)
    }

    /// Puts in a claim whose first acquire goes out now; the name of its key.
    pub(crate) fn join(
        &self,
        claim: &Arc<Claim>,
        names: &Names,
        lease: Arc<Lease>,
        waiting: Arc<Lease>,
    ) -> String {
        let slot = self.slots.take(claim.key());
        let name = names.of(Kind::of(claim.mode()), &self.session, slot);
        let own = Own {
            slot: Some(slot),
            standing: Standing::Joining,
            waiting: Some(waiting),
            ..Own::new(claim, name.clone(), lease)
        };
        self.shard(claim.id()).insert(claim.id(), own);
        name
    }

    /// Puts in a claim that another client made.
    pub(crate) fn adopt(
        &self,
        claim: &Arc<Claim>,
        name: String,
        modified: i64,
        fence: Fence,
        lease: Arc<Lease>,
    ) {
        let own = Own { standing: Standing::Granted(fence), modified, ..Own::new(claim, name, lease) };
        self.shard(claim.id()).insert(claim.id(), own);
    }

    /// Changes what is known of a claim, if anything is.
    pub(crate) fn update(&self, id: ClaimId, change: impl FnOnce(&mut Own)) {
        if let Some(own) = self.shard(id).get_mut(&id) {
            change(own);
        }
    }

    /// Its bell is from now on that of this handle: somebody resumed it.
    pub(crate) fn listen(&self, claim: &Arc<Claim>) {
        self.update(claim.id(), |own| {
            if own.claim.as_ptr() != Arc::as_ptr(claim) {
                own.claim = Arc::downgrade(claim);
            }
        });
    }

    /// Notes how the claim stands by the write of this revision, unless something later is known.
    pub(crate) fn stands(&self, id: ClaimId, standing: Standing, modified: i64) {
        self.update(id, |own| {
            // A grant that is read again has the floor that it was told with.
            let told = matches!(own.standing, Standing::Granted(_));
            if modified > own.modified || (modified == own.modified && !told) {
                own.modified = modified;
                own.standing = standing;
            }
        });
    }

    /// Notes that a request of the claim's own has set its lease.
    pub(crate) fn lives_on(&self, id: ClaimId, lease: &Arc<Lease>) {
        let expires = Moment::now().plus(lease.ttl);
        self.update(id, |own| own.expires = own.expires.max(expires));
    }

    /// A request is to go out that makes or deletes the claim's key by its name alone. `false` when the name is not the claim's
    /// any more, and may be another one's.
    pub(crate) fn asks_by_name(&self, id: ClaimId, name: &str) -> bool {
        let mut shard = self.shard(id);
        let own = shard.get_mut(&id).filter(|own| own.slot.is_some() && own.name == name);
        own.map(|own| own.unanswered = own.unanswered.saturating_add(1)).is_some()
    }

    /// It was answered, and nothing of it can come any more.
    pub(crate) fn told_by_name(&self, id: ClaimId, name: &str) {
        self.update(id, |own| {
            if own.name == name {
                own.unanswered = own.unanswered.saturating_sub(1);
            }
        });
    }

    /// Forgets a claim of which something may still come, or of which that is not looked into.
    pub(crate) fn remove(&self, id: ClaimId) -> Option<Own> {
        let own = self.shard(id).remove(&id)?;
        if let Some(slot) = own.slot {
            self.slots.spoil(&own.key, slot);
        }
        Some(own)
    }

    /// Forgets a claim whose key is surely not there. Its name is used again, if all that could make or delete it was answered.
    pub(crate) fn vacate(&self, id: ClaimId) -> Option<Own> {
        let own = self.shard(id).remove(&id)?;
        match own.slot {
            Some(slot) if own.unanswered == 0 => self.slots.free(&own.key, slot),
            Some(slot) => self.slots.spoil(&own.key, slot),
            None => {}
        }
        Some(own)
    }

    /// The claim was granted by the write of this revision: tells whoever waits.
    pub(crate) fn granted(&self, id: ClaimId, fence: Fence, modified: i64) {
        self.stands(id, Standing::Granted(fence), modified);
        // News of a grant may be late: the key was deleted by hand since, and the claim has joined again.
        let claim = self
            .shard(id)
            .get(&id)
            .filter(|own| own.modified <= modified)
            .and_then(|own| own.claim.upgrade());
        if let Some(claim) = claim {
            self.is_alone_by(&claim, modified);
            claim.ring(News::Granted(fence));
        }
    }

    /// The write of this revision let a claim in, in the mode that it joined with, or alone.
    pub(crate) fn is_alone_by(&self, claim: &Claim, modified: i64) {
        if claim.mode().is_exclusive() {
            self.update(claim.id(), |own| own.alone_by = Some(modified));
        }
    }

    /// The server let the claim go: tells whoever holds it.
    pub(crate) fn ended(&self, id: ClaimId, ending: Ending) {
        let claim = self.remove(id).and_then(|own| own.claim.upgrade());
        if let Some(claim) = claim {
            claim.ring(News::Ended(ending));
        }
    }

    /// The lease is not there any more, and neither is what lay on it: tells whoever waits or holds. That these claims have ended
    /// is remembered nowhere yet, so they stay known. Whoever joins just now is told by the answer.
    pub(crate) fn lease_ended(&self, lease: &Lease) {
        let lies_there = |own: &&Own| own.lease.id == lease.id && own.standing != Standing::Joining;
        for shard in &self.shards {
            let claims: Vec<Arc<Claim>> =
                lock(shard).values().filter(lies_there).filter_map(|own| own.claim.upgrade()).collect();
            for claim in claims {
                claim.ring(News::Ended(Ending::Expired));
            }
        }
    }

    /// Tells whoever has a claim that it has ended, unless its time is not over any more; whether it is. It stays known.
    pub(crate) fn expire(&self, id: ClaimId, by: Duration) -> bool {
        let Some(own) = self.get(id).filter(|own| own.expires.plus(by) <= Moment::now()) else {
            return false;
        };
        if let Some(claim) = own.claim.upgrade() {
            claim.ring(News::Ended(Ending::Expired));
        }
        true
    }

    /// Tells every claim to look for itself: news may have been missed.
    pub(crate) fn everybody_look(&self) {
        for shard in &self.shards {
            let claims: Vec<Arc<Claim>> =
                lock(shard).values().filter_map(|own| own.claim.upgrade()).collect();
            for claim in claims {
                claim.ring(News::Look);
            }
        }
    }

    /// The claims whose own requests have let their leases end this long ago. Of those on a lease of their own, whose end the
    /// server sees to, only the ones that nobody has any more, and they are forgotten.
    pub(crate) fn overdue(&self, by: Duration) -> Vec<(ClaimId, Own)> {
        let now = Moment::now();
        let mut overdue = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|&id, own| {
                if own.expires.plus(by) > now {
                    return true;
                }
                if own.lease.shared {
                    overdue.push((id, own.clone()));
                    return true;
                }
                let stays = own.claim.strong_count() > 0;
                if let Some(slot) = own.slot.filter(|_| !stays) {
                    self.slots.spoil(&own.key, slot);
                }
                stays
            });
        }
        overdue
    }

    /// Whether a claim lies on this lease.
    pub(crate) fn uses(&self, lease: &Lease) -> bool {
        let is_it = |own: &Own| {
            own.lease.id == lease.id || own.waiting.as_ref().is_some_and(|waiting| waiting.id == lease.id)
        };
        self.shards.iter().any(|shard| lock(shard).values().any(is_it))
    }

    /// How many claims are known.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, id: ClaimId) -> MutexGuard<'_, HashMap<ClaimId, Own>> {
        let shard = usize::try_from(id.to_bits() >> 124).unwrap_or_default();
        lock(&self.shards[shard % SHARDS])
    }
}

fn lock(shard: &Mutex<HashMap<ClaimId, Own>>) -> MutexGuard<'_, HashMap<ClaimId, Own>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
