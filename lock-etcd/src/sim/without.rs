//! The protocol without one of its guards, to see that each is needed.

use super::store::Store;
use crate::txn::{Compare, Is, Txn, TxnOp};

/// A guard that is taken out of every transaction on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// That a claim's key is there is enough, whatever its last write was.
    ModRevision,
    /// Markers that are newer than what was read do not matter.
    Markers,
    /// What has ended may come back.
    Ended,
}

impl Without {
    pub(super) fn weaken(self, store: &Store, txn: &mut Txn) {
        txn.when.retain(|compare| !self.lets_pass(store, compare));
        for op in txn.then.iter_mut().chain(&mut txn.otherwise) {
            if let TxnOp::Txn(inner) = op {
                self.weaken(store, inner);
            }
        }
    }

    fn lets_pass(self, store: &Store, compare: &Compare) -> bool {
        match self {
            Without::ModRevision => {
                matches!(compare.is, Is::ModifiedAt(_)) && store.keys.contains_key(&compare.start)
            }
            Without::Markers => {
                matches!(compare.is, Is::ModifiedBefore(_)) && compare.start.ends_with("/~u/")
            }
            Without::Ended => compare.start.contains("/~d/"),
        }
    }
}
