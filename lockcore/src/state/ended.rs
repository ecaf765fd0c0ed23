//! Ids of ended claims of which a request may still be under way.

use std::collections::{BTreeMap, VecDeque};

use crate::backend::FORGET_AFTER;
use crate::claim::ClaimId;
use crate::state::Moment;

/// Remembers ids for [`FORGET_AFTER`]; a late acquire of one of them is answered `Gone`.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    until: BTreeMap<ClaimId, Moment>,
    /// In the order in which they are forgotten, as long as the clock does not go back. An id that was remembered again
    /// stands here again.
    due: VecDeque<(Moment, ClaimId)>,
}

impl Ended {
    pub(super) fn remember(&mut self, id: ClaimId, now: Moment) {
        let until = now.after(FORGET_AFTER);
        if self.until.get(&id).is_none_or(|&known| known < until) {
            self.until.insert(id, until);
            self.due.push_back((until, id));
        }
    }

    pub(super) fn contains(&self, id: ClaimId) -> bool {
        self.until.contains_key(&id)
    }

    pub(super) fn forget_old(&mut self, now: Moment) {
        while self.due.front().is_some_and(|&(until, _)| until <= now) {
            if let Some((until, id)) = self.due.pop_front()
                && self.until.get(&id) == Some(&until)
            {
                self.until.remove(&id);
            }
        }
    }

    /// The ids, and until when each is remembered, in the order in which they are forgotten.
    pub(super) fn listed(&self) -> Vec<(Moment, ClaimId)> {
        let mut listed: Vec<_> = self.until.iter().map(|(&id, &until)| (until, id)).collect();
        listed.sort_unstable();
        listed
    }

    pub(super) fn of(listed: Vec<(Moment, ClaimId)>) -> Ended {
        Ended { until: listed.iter().map(|&(until, id)| (id, until)).collect(), due: listed.into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}
