//! What can be said in the log: the records, without who says them.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{BreakTarget, Claim, ClaimId, FencingToken, Key, MAX_TTL, Mode, Queue};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Part;
use crate::record::Id;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum What {
    /// Begins the partition; only the first one counts.
    Genesis(Genesis),
    /// Begins a session. Its client saw the log end at `end`, and takes it for this partition of this topic.
    Open { end: u64, incarnation: Id, partition: u32 },
    /// Ends the session.
    Close,
    /// Joins a claim to its key; for one that waits, its heartbeat.
    Acquire(Join),
    /// Renews the leases of holders: one record for all claims of a client in this partition.
    Heartbeat { renew: Vec<Renew> },
    /// Converts a holder.
    Convert(Convert),
    /// Lets a claim go.
    Release(LetGo),
    /// Takes claims off a key.
    Break(Break),
    /// Proposes that leases are over: nobody has seen them set since the records at these offsets.
    Expire {
        /// Those for whose whole time the proposer has waited.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leases: Vec<Named>,
        /// Those whose holders were asked for a sign of life, and gave none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unanswered: Vec<Named>,
    },
    /// Asks the holders of these leases for a sign of life.
    Suspect { leases: Vec<Named> },
    /// The sign of life. It sets no lease.
    Alive { claims: Vec<ClaimId> },
    /// The state as it was before offset `at_offset`, or a part of it, for those who come later.
    Checkpoint(Part),
    /// Does nothing: whoever reads the state at its offset has read what was true during the call.
    Barrier,
}

/// What all who use a partition must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Genesis {
    /// Which topic of this name it is: made anew, it has another one.
    pub(crate) incarnation: Id,
    pub(crate) partitions: u32,
    /// Which of them this is, from 0: whoever mixed them up would look for a lock where the others do not.
    pub(crate) partition: u32,
    /// How far the clocks of two brokers may lie apart.
    pub(crate) margin_us: u64,
    /// How long the holder of a suspected lease has for its sign of life.
    pub(crate) grace_us: u64,
    /// The largest step of the log's clock from one record to the next.
    pub(crate) step_us: u64,
    /// Checkpoints are taken at the multiples of this offset.
    pub(crate) checkpoint_every: NonZeroU64,
    /// How many records a session may be silent, and its `Open` be late.
    pub(crate) window: u64,
}

/// A claim that joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Join {
    #[serde(with = "key_text")]
    pub(crate) identifier: Key,
    pub(crate) claim: ClaimId,
    pub(crate) mode: Mode,
    pub(crate) ttl_us: u64,
    pub(crate) waiter_ttl_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) take_over: bool,
    /// It does not queue: a try.
    #[serde(default, skip_serializing_if = "is_false", rename = "try")]
    pub(crate) only_try: bool,
}

/// One renewal of a heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Renew {
    pub(crate) claim: ClaimId,
    pub(crate) ttl_us: u64,
    pub(crate) order: u64,
}

/// The lease that the record at offset `lease` has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) claim: ClaimId,
    pub(crate) lease: u64,
}

/// A conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Convert {
    #[serde(with = "key_text")]
    pub(crate) identifier: Key,
    pub(crate) claim: ClaimId,
    pub(crate) mode: Mode,
    pub(crate) order: u64,
}

/// A release, or a withdrawal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LetGo {
    #[serde(with = "key_text")]
    pub(crate) identifier: Key,
    pub(crate) claim: ClaimId,
    pub(crate) answered: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) only_waiting: bool,
}

/// A break.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Break {
    #[serde(with = "key_text")]
    pub(crate) identifier: Key,
    pub(crate) target: Target,
}

/// [`BreakTarget`] as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    Claim(ClaimId),
    Token(FencingToken),
    Owner(Arc<str>),
    Holders,
    All,
}

impl What {
    pub(crate) fn is_in_bounds(&self) -> bool {
        let is_ttl = |us: u64| us > 0 && Duration::from_micros(us) <= MAX_TTL;
        match self {
            What::Acquire(join) => {
                is_ttl(join.ttl_us) && is_ttl(join.waiter_ttl_us) && join.to_claim().validate().is_ok()
            }
            What::Heartbeat { renew } => renew.iter().all(|renew| is_ttl(renew.ttl_us)),
            What::Genesis(genesis) => genesis.out_of_bounds().is_none(),
            What::Checkpoint(part) => part.number < part.of,
            What::Open { .. }
            | What::Close
            | What::Convert(_)
            | What::Release(_)
            | What::Break(_)
            | What::Expire { .. }
            | What::Suspect { .. }
            | What::Alive { .. }
            | What::Barrier => true,
        }
    }

    /// The key that it is about: the key of the message in Kafka.
    pub(crate) fn identifier(&self) -> Option<&Key> {
        match self {
            What::Acquire(Join { identifier, .. })
            | What::Convert(Convert { identifier, .. })
            | What::Release(LetGo { identifier, .. })
            | What::Break(Break { identifier, .. }) => Some(identifier),
            What::Genesis(_)
            | What::Open { .. }
            | What::Close
            | What::Heartbeat { .. }
            | What::Expire { .. }
            | What::Suspect { .. }
            | What::Alive { .. }
            | What::Checkpoint(_)
            | What::Barrier => None,
        }
    }
}

impl Genesis {
    /// What begins a session in this log.
    pub(crate) fn open(&self, end: u64) -> What {
        What::Open { end, incarnation: self.incarnation, partition: self.partition }
    }

    /// What no log can be used with, if it is so.
    pub(crate) fn out_of_bounds(&self) -> Option<&'static str> {
        const MILLISECOND: u64 = 1_000;
        const HOUR: u64 = 3_600_000_000;
        let is_time = |us: u64| (MILLISECOND..=HOUR).contains(&us);
        let wrong = [
            (is_time(self.margin_us), "margin: between 1 ms and 1 h"),
            (is_time(self.grace_us), "grace: between 1 ms and 1 h"),
            (is_time(self.step_us), "step: between 1 ms and 1 h"),
            (self.checkpoint_every.get() >= 8, "checkpoint_every: 8 records or more"),
            ((16..=1 << 40).contains(&self.window), "window: between 16 and 2^40 records"),
            (self.partition < self.partitions, "a partition that the topic does not have"),
        ];
        wrong.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what)
    }
}

impl Join {
    pub(crate) fn of(claim: &Claim, queue: Queue) -> Join {
        Join {
            identifier: claim.key().clone(),
            claim: claim.id(),
            mode: claim.mode(),
            ttl_us: micros(claim.ttl()),
            waiter_ttl_us: micros(claim.waiter_ttl()),
            owner: claim.owner().cloned(),
            note: claim.note().cloned(),
            take_over: claim.take_over(),
            only_try: queue == Queue::Never,
        }
    }

    pub(crate) fn to_claim(&self) -> Claim {
        let ttl = Duration::from_micros(self.ttl_us);
        Claim::new(self.identifier.clone(), self.mode, ttl)
            .with_id(self.claim)
            .with_waiter_ttl(Duration::from_micros(self.waiter_ttl_us))
            .with_owner(self.owner.clone())
            .with_note(self.note.clone())
            .taking_over(self.take_over)
    }
}

impl From<BreakTarget> for Target {
    fn from(target: BreakTarget) -> Target {
        match target {
            BreakTarget::Claim(id) => Target::Claim(id),
            BreakTarget::Token(token) => Target::Token(token),
            BreakTarget::Owner(owner) => Target::Owner(owner),
            BreakTarget::Holders => Target::Holders,
            BreakTarget::All => Target::All,
        }
    }
}

impl From<Target> for BreakTarget {
    fn from(target: Target) -> BreakTarget {
        match target {
            Target::Claim(id) => BreakTarget::Claim(id),
            Target::Token(token) => BreakTarget::Token(token),
            Target::Owner(owner) => BreakTarget::Owner(owner),
            Target::Holders => BreakTarget::Holders,
            Target::All => BreakTarget::All,
        }
    }
}

/// Whole microseconds, rounded up: a lease is never shorter than asked for.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

mod key_text {
    use lockcore::Key;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        Key::new(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn a_genesis_has_bounds() {
        const HOUR: u64 = 3_600_000_000;
        let usual = || Settings::default().genesis(Id::from_bits(1), 2);
        let every = |every: u64| every.try_into().unwrap();
        let right = [
            Genesis { margin_us: 1_000, grace_us: 1_000, step_us: 1_000, ..usual() },
            Genesis { margin_us: HOUR, grace_us: HOUR, step_us: HOUR, ..usual() },
            Genesis { checkpoint_every: every(8), window: 16, partition: 1, ..usual() },
            Genesis { window: 1 << 40, ..usual() },
        ];
        let wrong = [
            Genesis { margin_us: 999, ..usual() },
            Genesis { margin_us: HOUR + 1, ..usual() },
            Genesis { grace_us: 999, ..usual() },
            Genesis { grace_us: HOUR + 1, ..usual() },
            Genesis { step_us: 999, ..usual() },
            Genesis { step_us: HOUR + 1, ..usual() },
            Genesis { checkpoint_every: every(7), ..usual() },
            Genesis { window: 15, ..usual() },
            Genesis { window: (1 << 40) + 1, ..usual() },
            Genesis { partition: 2, ..usual() },
        ];
        for (all, may) in [(&right[..], true), (&wrong[..], false)] {
            for genesis in all {
                assert_eq!(genesis.out_of_bounds().is_none(), may, "{genesis:?}");
            }
        }
    }

    #[test]
    fn a_lease_is_never_shorter_than_asked_for() {
        assert_eq!(micros(Duration::from_nanos(1_001)), 2);
        assert_eq!(micros(Duration::MAX), u64::MAX);
    }
}
