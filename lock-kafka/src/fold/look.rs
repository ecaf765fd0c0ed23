//! What can be asked of a replica.

use std::time::Duration;

use lockcore::{ClaimId, Key, KeyPrefix, Snapshot};

use super::Replica;
use crate::checkpoint::Progress;
use crate::keeper::Patience;
use crate::leases::Lease;
use crate::record::Id;
use crate::what::Genesis;

impl Replica {
    pub(crate) fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// The offset of the record that is applied next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Who holds the lock of `key` and who waits.
    pub(crate) fn inspect(&self, key: &Key) -> Snapshot {
        let nobody = Snapshot { holders: Vec::new(), waiters: Vec::new() };
        // A copy, because looking removes what has expired; here nothing does by itself.
        self.locks.get(key).map_or(nobody, |state| state.clone().inspect(self.clock.now, &mut Vec::new()))
    }

    /// The keys under a prefix that somebody holds or waits for.
    pub(crate) fn keys(&self, prefix: &KeyPrefix) -> Vec<Key> {
        let listed = self.locks.iter().filter(|(key, state)| prefix.begins(key) && state.is_in_use());
        listed.map(|(key, _)| key.clone()).collect()
    }

    /// The lease of a claim that holds or waits.
    pub(crate) fn lease(&self, id: ClaimId) -> Option<&Lease> {
        self.claims.get(&id).map(|tracked| &tracked.lease)
    }

    pub(crate) fn key_of(&self, id: ClaimId) -> Option<&Key> {
        self.claims.get(&id).map(|tracked| &tracked.key)
    }

    /// Whether a checkpoint of this offset or a later one has counted.
    pub(crate) fn has_counted(&self, at_offset: u64) -> bool {
        at_offset <= self.counted
    }

    /// How far somebody has come with writing the checkpoint of this offset.
    pub(crate) fn progress(&self, at_offset: u64) -> Option<Progress> {
        self.sessions.progress(at_offset)
    }

    /// How long is waited before the brokers' clocks are believed.
    pub(crate) fn patience(&self) -> Patience {
        self.genesis.as_ref().map_or_else(Patience::default, |genesis| Patience {
            margin: Duration::from_micros(genesis.margin_us),
            grace: Duration::from_micros(genesis.grace_us),
        })
    }

    /// The claims on `key` that hold or wait.
    pub(crate) fn claims_on(&self, key: &Key) -> Vec<ClaimId> {
        let Snapshot { holders, waiters } = self.inspect(key);
        holders.into_iter().chain(waiters).map(|info| info.id).collect()
    }

    /// All claims that hold or wait.
    pub(crate) fn claims(&self) -> impl Iterator<Item = ClaimId> {
        self.claims.keys().copied()
    }

    /// Whether the brokers' clocks alone say that this lease is over.
    pub(crate) fn is_over_by_stamps(&self, lease: &Lease) -> bool {
        self.genesis.as_ref().is_some_and(|genesis| lease.is_over_by_stamps(self.clock.stamp, genesis))
    }

    /// For how many records a session may be silent.
    pub(crate) fn window(&self) -> u64 {
        self.genesis.as_ref().map_or(0, |genesis| genesis.window)
    }

    /// Whether this session can still be heard.
    pub(crate) fn knows(&self, session: Id) -> bool {
        self.sessions.is_open(session, self.next, self.window())
    }
}
