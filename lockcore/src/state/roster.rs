//! The claims of one key that hold, or that wait: found by id, owner, token, and earliest expiry.
//!
//! A few claims are searched in a row, which is fastest and costs one allocation. Above that an index is kept, so that
//! each command stays within a logarithm however many there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::claim::{Claim, ClaimId};
use crate::mode::{Holders, Mode};
use crate::state::Moment;
use crate::state::queue::Place;
use crate::token::{Fence, FencingToken};

/// How many claims are searched in a row.
const SMALL: usize = 32;

/// One claim of a key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The claim's id, here so that a search need not look into every claim.
    pub(super) id: ClaimId,
    pub(super) claim: Arc<Claim>,
    pub(super) mode: Mode,
    /// When it joined, or was granted.
    pub(super) since: Moment,
    pub(super) expires: Moment,
    /// The number of the last renewal that counted.
    pub(super) renewed: u64,
    /// The number of the last conversion that counted. A renewal meanwhile must not make a repeated conversion stale:
    /// that would be answered as granted though its first copy was lost.
    pub(super) converted: u64,
    pub(super) standing: Standing,
}

/// Granted with a fence, or queued at a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    Granted(Fence),
    Queued(Place),
}

impl Entry {
    pub(super) fn token(&self) -> Option<FencingToken> {
        match self.standing {
            Standing::Granted(fence) => Some(fence.token),
            Standing::Queued(_) => None,
        }
    }

    fn bound(&self) -> Option<NonZeroU32> {
        match self.mode {
            Mode::Permit { at_most } => Some(at_most),
            Mode::Exclusive | Mode::Shared => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    entries: Vec<Entry>,
    /// No lease ends sooner. It may be too early after a renewal or a removal: looked at again when it has come.
    all_last_until: Moment,
    index: Option<Box<Index>>,
}

/// Positions by id, and ids by everything else that is asked for.
#[derive(Clone, Debug, Default)]
struct Index {
    by_id: HashMap<ClaimId, usize>,
    by_expiry: BTreeSet<(Moment, ClaimId)>,
    by_token: BTreeMap<FencingToken, ClaimId>,
    by_owner: BTreeMap<Arc<str>, BTreeSet<ClaimId>>,
    bounds: BTreeMap<NonZeroU32, usize>,
}

impl Index {
    fn add(&mut self, entry: &Entry, position: usize) {
        self.by_id.insert(entry.id, position);
        self.by_expiry.insert((entry.expires, entry.id));
        if let Some(token) = entry.token() {
            self.by_token.insert(token, entry.id);
        }
        if let Some(owner) = entry.claim.owner() {
            self.by_owner.entry(owner.clone()).or_default().insert(entry.id);
        }
        if let Some(bound) = entry.bound() {
            *self.bounds.entry(bound).or_default() += 1;
        }
    }

    fn remove(&mut self, entry: &Entry) {
        self.by_id.remove(&entry.id);
        self.by_expiry.remove(&(entry.expires, entry.id));
        if let Some(token) = entry.token() {
            self.by_token.remove(&token);
        }
        if let Some(owner) = entry.claim.owner()
            && let Some(ids) = self.by_owner.get_mut(owner)
        {
            ids.remove(&entry.id);
            if ids.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        if let Some(bound) = entry.bound()
            && let Some(count) = self.bounds.get_mut(&bound)
        {
            *count -= 1;
            if *count == 0 {
                self.bounds.remove(&bound);
            }
        }
    }
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn get(&self, id: ClaimId) -> Option<&Entry> {
        self.position(id).map(|position| &self.entries[position])
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if let Some(index) = &mut self.index {
            index.add(&entry, self.entries.len());
        }
        self.all_last_until =
            if self.is_empty() { entry.expires } else { self.all_last_until.min(entry.expires) };
        self.entries.push(entry);
        if self.index.is_none() && self.entries.len() > SMALL {
            let mut index = Box::<Index>::default();
            for (position, entry) in self.entries.iter().enumerate() {
                index.add(entry, position);
            }
            self.index = Some(index);
        }
    }

    pub(super) fn remove(&mut self, id: ClaimId) -> Option<Entry> {
        let position = self.position(id)?;
        let removed = self.entries.swap_remove(position);
        if let Some(index) = &mut self.index {
            index.remove(&removed);
            if let Some(moved) = self.entries.get(position) {
                index.by_id.insert(moved.id, position);
            }
        }
        // Half of the limit, so that a count around it does not build and drop the index in turn.
        if self.entries.len() <= SMALL / 2 {
            self.index = None;
        }
        Some(removed)
    }

    /// Changes one entry; `None` when there is no such claim.
    pub(super) fn update<T>(&mut self, id: ClaimId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let position = self.position(id)?;
        let entry = &mut self.entries[position];
        if let Some(index) = &mut self.index {
            index.remove(entry);
        }
        let answer = change(entry);
        if let Some(index) = &mut self.index {
            index.add(entry, position);
        }
        self.all_last_until = self.all_last_until.min(entry.expires);
        Some(answer)
    }

    /// The claim whose lease ends first, if it has ended by `now`.
    pub(super) fn first_expired(&mut self, now: Moment) -> Option<ClaimId> {
        if now < self.all_last_until {
            return None;
        }
        let (expires, id) = self.earliest_expiry()?;
        self.all_last_until = expires;
        (expires <= now).then_some(id)
    }

    pub(super) fn earliest_expiry(&self) -> Option<(Moment, ClaimId)> {
        match &self.index {
            Some(index) => index.by_expiry.first().copied(),
            None => self.entries.iter().map(|entry| (entry.expires, entry.id)).min(),
        }
    }

    pub(super) fn smallest_token(&self) -> Option<FencingToken> {
        match &self.index {
            Some(index) => index.by_token.first_key_value().map(|(&token, _)| token),
            None => self.entries.iter().filter_map(Entry::token).min(),
        }
    }

    pub(super) fn by_token(&self, token: FencingToken) -> Option<ClaimId> {
        match &self.index {
            Some(index) => index.by_token.get(&token).copied(),
            None => self.entries.iter().find(|entry| entry.token() == Some(token)).map(|entry| entry.id),
        }
    }

    pub(super) fn by_owner(&self, owner: &str) -> Vec<ClaimId> {
        if let Some(index) = &self.index {
            return index.by_owner.get(owner).into_iter().flatten().copied().collect();
        }
        let is_owners = |entry: &&Entry| entry.claim.owner().is_some_and(|each| &**each == owner);
        self.entries.iter().filter(is_owners).map(|entry| entry.id).collect()
    }

    pub(super) fn summary(&self) -> Holders {
        let smallest_bound = match &self.index {
            Some(index) => index.bounds.first_key_value().map(|(&bound, _)| bound),
            None => self.entries.iter().filter_map(Entry::bound).min(),
        };
        let exclusive = self.entries.len() == 1 && self.entries[0].mode.is_exclusive();
        Holders { count: self.entries.len(), exclusive, smallest_bound }
    }

    fn position(&self, id: ClaimId) -> Option<usize> {
        match &self.index {
            Some(index) => index.by_id.get(&id).copied(),
            None => self.entries.iter().position(|entry| entry.id == id),
        }
    }
}
