//! The locks that others wait for, as this client last saw them.
//!
//! By that a release lets the next claim in with the same write, and an acquire knows that it will have to wait. It may be out
//! of date: whatever is decided by it is guarded by what it was read as.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{ClaimId, Holders, Key};

use crate::clock::Moment;
use crate::record::Place;
use crate::token;
use crate::view::{Seen, View};

/// Of how many locks at most; when there are more, all are forgotten.
const MOST: usize = 4096;

/// How long a lock on which others were seen is expected to be used by others.
const WARM: Duration = Duration::from_secs(1);

/// What was seen of each lock.
#[derive(Debug, Default)]
pub(crate) struct Fronts(Mutex<HashMap<Key, Front>>);

#[derive(Debug)]
struct Front {
    view: Arc<View>,
    /// When others were last seen.
    shared_at: Moment,
}

impl Fronts {
    /// How a lock was last seen that others use.
    pub(crate) fn of(&self, key: &Key) -> Option<Arc<View>> {
        self.fronts().get(key).map(|front| front.view.clone())
    }

    /// Notes how a lock was seen, unless it was seen later. One that is free for a while is forgotten.
    pub(crate) fn saw(&self, key: &Key, view: View) {
        let mut fronts = self.fronts();
        let known = fronts.get(key);
        if known.is_some_and(|known| known.view.revision > view.revision) {
            return;
        }
        let now = Moment::now();
        let is_free = view.complete && view.claims.is_empty();
        let shared_at = if is_free { known.map(|known| known.shared_at) } else { Some(now) };
        let Some(shared_at) = shared_at.filter(|&at| now.since(at) < WARM) else {
            fronts.remove(key);
            return;
        };
        if fronts.len() >= MOST && !fronts.contains_key(key) {
            fronts.clear();
        }
        fronts.insert(key.clone(), Front { view: Arc::new(view), shared_at });
    }

    fn fronts(&self) -> MutexGuard<'_, HashMap<Key, Front>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Who is let in when this claim goes, which holds alone by now: all who come in beside each other, in their order.
    ///
    /// Whoever was ahead of it has gone since, or it would not be alone; and who comes stands behind all that were read, or
    /// leaves a marker.
    pub(crate) fn heirs(&self, id: ClaimId) -> Vec<Seen> {
        let Some(own) = self.find(id).filter(|_| !self.out_of_turn) else { return Vec::new() };
        let behind = Place { at: own.place().at.saturating_add(1), ..own.place() };
        let heirs = self.admitted(Holders::default(), behind, token::MOST);
        heirs.into_iter().filter_map(|at| self.claims.get(at).cloned()).collect()
    }

    /// One who waits: as long as it is there and unchanged, nobody who joins now is next.
    pub(crate) fn hindmost(&self) -> Option<&Seen> {
        self.claims.iter().filter(|seen| !seen.is_granted()).max_by_key(|seen| seen.place())
    }
}
