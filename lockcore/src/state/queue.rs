//! The order in which the waiters of one key are served.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::claim::ClaimId;

/// A waiter's place in the queue. A claim that took over from a holder stands ahead of all that arrived in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub(super) rank: Rank,
    pub(super) arrival: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rank {
    TookOverHolder,
    Arrived,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    places: BTreeMap<Place, ClaimId>,
    pub(super) arrivals: u64,
}

impl Queue {
    /// A place behind everybody of this rank.
    pub(super) fn next_place(&mut self, rank: Rank) -> Place {
        self.arrivals += 1;
        Place { rank, arrival: self.arrivals }
    }

    pub(super) fn insert(&mut self, place: Place, id: ClaimId) {
        self.places.insert(place, id);
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.places.remove(&place);
    }

    pub(super) fn first(&self) -> Option<ClaimId> {
        self.places.first_key_value().map(|(_, &id)| id)
    }

    /// Whether somebody stands ahead of `place`.
    pub(super) fn anybody_ahead_of(&self, place: Place) -> bool {
        self.places.first_key_value().is_some_and(|(&first, _)| first < place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ClaimId> {
        self.places.values().copied()
    }
}
