//! The claims of this client that wait or hold in one partition: whose bells are rung, and until when they count on what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Claim, ClaimId, Key, LocalTime};

/// A claim of this client.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) claim: Arc<Claim>,
    /// Until when its last answered request lets it count on its lease, from before that was sent; time that the machine
    /// sleeps counts.
    pub(crate) until: Option<LocalTime>,
}

/// The table of them. A claim is here from before its first request until the log is known not to have it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    own: HashMap<ClaimId, Own>,
    /// How many there are of each key.
    keys: HashMap<Key, usize>,
}

impl Registry {
    /// Adds a claim, or takes another handle of one that is there.
    pub(crate) fn add(&mut self, claim: &Arc<Claim>) {
        if let Some(own) = self.own.get_mut(&claim.id()) {
            own.claim = claim.clone();
            return;
        }
        *self.keys.entry(claim.key().clone()).or_default() += 1;
        self.own.insert(claim.id(), Own { claim: claim.clone(), until: None });
    }

    pub(crate) fn remove(&mut self, id: ClaimId) -> Option<Arc<Claim>> {
        let own = self.own.remove(&id)?;
        if let Some(count) = self.keys.get_mut(own.claim.key()) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(own.claim.key());
            }
        }
        Some(own.claim)
    }

    pub(crate) fn claim(&self, id: ClaimId) -> Option<&Arc<Claim>> {
        self.own.get(&id).map(|own| &own.claim)
    }

    pub(crate) fn ids(&self) -> Vec<ClaimId> {
        self.own.keys().copied().collect()
    }

    /// Whether an answer said that the log has it.
    pub(crate) fn was_there(&self, id: ClaimId) -> bool {
        self.own.get(&id).is_some_and(|own| own.until.is_some())
    }

    /// Whether one of them is about this key.
    pub(crate) fn cares_for(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }

    /// The lease was set by a request that was sent at `sent`.
    pub(crate) fn lease_set(&mut self, id: ClaimId, sent: LocalTime, left: Duration) {
        if let Some(own) = self.own.get_mut(&id) {
            own.until = Some(sent.plus(left));
        }
    }

    /// How much of its lease a claim can surely count on at `now`. The log's clock may be behind, so what it says is left counts
    /// only from the record that set the lease.
    pub(crate) fn sure_left(&self, id: ClaimId, now: LocalTime) -> Duration {
        let until = self.own.get(&id).and_then(|own| own.until);
        until.map_or(Duration::ZERO, |until| until.remaining(now))
    }
}
