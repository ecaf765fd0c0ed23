//! The claims that one write grants, in their order.

use lockcore::Mode;

use crate::core::Core;
use crate::errors::Trouble;
use crate::news::{self, Messages};
use crate::record::Record;
use crate::token;
use crate::txn::{Compare, TxnOp, rewrite, unchanged};
use crate::view::Seen;

/// Claims that are to hold together from one write on.
pub(crate) struct Grants {
    /// As they were read, and what is written of them.
    pub(crate) claims: Vec<(Seen, Record)>,
    /// The smallest token beside theirs; zero when nobody else holds.
    floor: u64,
}

impl Grants {
    pub(crate) fn new(claims: impl IntoIterator<Item = Seen>, floor: u64) -> Grants {
        let granted = |(nth, seen): (u64, Seen)| {
            let mut record = seen.record.clone();
            if seen.is_granted() {
                record.mode = Mode::Exclusive;
                record.upgrading = false;
            }
            (seen, record.granted(nth, floor))
        };
        Grants { claims: (0..).zip(claims).map(granted).collect(), floor }
    }

    /// Whether they leave no room for others.
    pub(crate) fn exclude(&self) -> bool {
        self.claims.iter().any(|(_, record)| record.mode.is_exclusive())
    }

    /// That none was released, broken, converted or granted since it was read.
    pub(crate) fn guard(&self) -> impl Iterator<Item = Compare> {
        self.claims.iter().map(|(seen, _)| unchanged(&seen.name, seen.modified))
    }
}

impl Core {
    /// The writes that grant these claims: their values, and messages to their clients. Their leases stay what they are.
    pub(crate) async fn granting(&self, grants: &Grants) -> Result<Vec<TxnOp>, Trouble> {
        let mut messages = Messages::default();
        let mut writes = Vec::with_capacity(2 * grants.claims.len() + 2);
        for (nth, (seen, record)) in (0..).zip(&grants.claims) {
            writes.push(rewrite(seen.name.as_str(), record.encode()));
            if seen.record.client != self.session {
                messages.add(&seen.record.client, &news::granted(seen.id, nth, grants.floor));
            }
        }
        if !messages.is_empty() {
            let memory = self.leases.memory().await?;
            writes.extend(messages.writes(&self.keys, memory));
        }
        Ok(writes)
    }

    /// Tells those of this client that the write of `revision` granted them.
    pub(crate) fn tell_granted(&self, grants: &Grants, revision: i64) {
        for (nth, (seen, _)) in (0..).zip(&grants.claims) {
            if seen.record.client == self.session {
                self.registry.granted(seen.id, token::fence(revision, nth, grants.floor), revision);
            }
        }
    }
}
