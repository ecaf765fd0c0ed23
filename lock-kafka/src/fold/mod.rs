//! The replica of one partition: what the records lead to, one after the other.
//!
//! Nothing but the log goes in: offsets, stamps and bytes. No clock, no randomness, no order of a hash table decides
//! anything, so all who read the same records have the same state.

mod image;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lockcore::state::{Effect, LockState, Moment, Refusal};
use lockcore::{Attempt, ClaimId, ClaimInfo, Key, Queue, Released, Snapshot};

use crate::checkpoint::{Checkpoint, Hash};
use crate::clock::LogClock;
use crate::errors::Halt;
use crate::leases::Lease;
use crate::log::Entry;
use crate::record::{Id, Read, Record};
use crate::sessions::Sessions;
use crate::what::{Convert, Genesis, Join, Named, Renew, What};

/// The state of one partition before offset `next`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    genesis: Option<Genesis>,
    next: u64,
    clock: LogClock,
    last_token: u64,
    counted: u64,
    sessions: Sessions,
    locks: BTreeMap<Key, LockState>,
    claims: HashMap<ClaimId, Tracked>,
    /// The hashes found at the last multiples of `checkpoint_every`. Not part of the state.
    hashes: VecDeque<(u64, Hash)>,
    /// The last checkpoints that agreed with them.
    agreed: VecDeque<u64>,
}

/// How many hashes are kept to compare with late checkpoints.
const HASHES: usize = 64;

#[derive(Clone, Debug)]
struct Tracked {
    key: Key,
    lease: Lease,
}

/// What a record did.
#[derive(Debug)]
pub(crate) struct Folded {
    /// Whose record it is; `None` if it was skipped.
    pub(crate) by: Option<(Id, u64)>,
    pub(crate) answer: Answer,
    pub(crate) effects: Vec<Effect>,
    /// Claims whose lease was set or suspected, and those that are gone.
    pub(crate) touched: Vec<ClaimId>,
    /// The state before this record, if a checkpoint may be taken there.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// What its writer is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It did not count: nothing has happened.
    NotCounted,
    /// It counted, and there is nothing more to say.
    Noted,
    Attempt(Attempt),
    Renewed(Vec<Result<Renewed, Refusal>>),
    Converted(Result<Attempt, Refusal>),
    Released(Released),
    Broken(Vec<ClaimInfo>),
    /// The lock that it was to look at.
    Seen(Snapshot),
    /// The claims whose leases were ended.
    Lapsed(Vec<ClaimId>),
    /// The claims whose holders are asked for a sign of life.
    Suspected(Vec<ClaimId>),
}

/// A renewed lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewed {
    pub(crate) lease: lockcore::Lease,
    /// Whether it was set by this record; a late copy of an older renewal sets nothing.
    pub(crate) set: bool,
}

impl Replica {
    /// Applies the next record.
    ///
    /// # Errors
    /// A [`Halt`]: nothing is to be applied any more.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Folded, Halt> {
        self.apply_read(entry.offset, entry.stamp, &Record::decode(&entry.bytes)?)
    }

    /// Applies a record that was decoded before.
    pub(crate) fn apply_read(&mut self, offset: u64, stamp: u64, read: &Read) -> Result<Folded, Halt> {
        let mut folded = Folded {
            by: None,
            answer: Answer::NotCounted,
            effects: Vec::new(),
            touched: Vec::new(),
            checkpoint: self.look_back(offset),
        };
        self.next = offset + 1;
        if let Some(genesis) = &self.genesis {
            self.clock.tick(stamp, genesis.step_us);
        }
        if let Read::Record(record) = read {
            folded.by = Some((record.session, record.seq));
            folded.answer = self.obey(offset, stamp, record, &mut folded)?;
        }
        Ok(folded)
    }

    fn obey(
        &mut self,
        offset: u64,
        stamp: u64,
        record: &Record,
        folded: &mut Folded,
    ) -> Result<Answer, Halt> {
        let (session, seq) = (record.session, record.seq);
        let Some(genesis) = self.genesis.clone() else {
            if let What::Genesis(genesis) = &record.what {
                self.genesis = Some(genesis.clone());
                self.clock = LogClock::from(stamp);
                return Ok(Answer::Noted);
            }
            return Ok(Answer::NotCounted);
        };
        let window = genesis.window;
        let counts = match &record.what {
            What::Genesis(_) => false,
            // What was copied from another log is not said in this one.
            What::Open { end, incarnation, partition } => {
                (*incarnation, *partition) == (genesis.incarnation, genesis.partition)
                    && self.sessions.open(session, seq, *end, offset, window)
            }
            What::Close
            | What::Acquire(_)
            | What::Heartbeat { .. }
            | What::Convert(_)
            | What::Release(_)
            | What::Break(_)
            | What::Expire { .. }
            | What::Suspect { .. }
            | What::Alive { .. }
            | What::Checkpoint(_)
            | What::Barrier => self.sessions.admit(session, seq, offset, window),
        };
        if !counts {
            return Ok(Answer::NotCounted);
        }
        Ok(match &record.what {
            What::Genesis(_) | What::Open { .. } | What::Barrier => Answer::Noted,
            What::Close => {
                self.sessions.close(session, window);
                Answer::Noted
            }
            What::Acquire(join) => Answer::Attempt(self.join(offset, join, folded)),
            What::Heartbeat { renew } => {
                Answer::Renewed(renew.iter().map(|renew| self.renew(offset, renew, folded)).collect())
            }
            What::Convert(Convert { identifier, claim, mode, order }) => {
                Answer::Converted(self.on(identifier, folded, |state, now, effects| {
                    state.convert(now, *claim, *mode, *order, effects)
                }))
            }
            What::Release(let_go) => {
                let released = self.on(&let_go.identifier, folded, |state, now, effects| {
                    state.release(now, let_go.claim, let_go.answered, let_go.only_waiting, effects)
                });
                if released == Released::Released {
                    self.untrack(let_go.claim, folded);
                }
                Answer::Released(released)
            }
            What::Break(of) => {
                let target = of.target.clone().into();
                let broken = self.on(&of.identifier, folded, |state, now, effects| {
                    state.break_claims(now, &target, effects)
                });
                Answer::Broken(broken)
            }
            What::Expire { leases, unanswered } => {
                Answer::Lapsed(self.lapse(leases, unanswered, &genesis, folded))
            }
            What::Suspect { leases } => {
                let asked: Vec<ClaimId> =
                    leases.iter().filter_map(|named| self.suspect(*named, &genesis)).collect();
                folded.touched.extend(&asked);
                Answer::Suspected(asked)
            }
            What::Alive { claims } => {
                for claim in claims {
                    if let Some(tracked) = self.claims.get_mut(claim)
                        && tracked.lease.suspected.take().is_some()
                    {
                        folded.touched.push(*claim);
                    }
                }
                Answer::Noted
            }
            What::Checkpoint(part) => {
                self.compare(offset, session, part, &genesis)?;
                Answer::Noted
            }
        })
    }

    fn join(&mut self, offset: u64, join: &Join, folded: &mut Folded) -> Attempt {
        // An id names one claim, on one key.
        if self.claims.get(&join.claim).is_some_and(|tracked| tracked.key != join.identifier) {
            return Attempt::Gone;
        }
        let claim = Arc::new(join.to_claim());
        let queue = if join.only_try { Queue::Never } else { Queue::Join };
        let attempt = self
            .on(&join.identifier, folded, |state, now, effects| state.acquire(now, &claim, queue, effects));
        if matches!(attempt, Attempt::Granted(_) | Attempt::Queued(_)) {
            self.lease_set(offset, &join.identifier, join.claim, folded);
        }
        attempt
    }

    fn renew(&mut self, offset: u64, renew: &Renew, folded: &mut Folded) -> Result<Renewed, Refusal> {
        let key = self.claims.get(&renew.claim).map(|tracked| tracked.key.clone()).ok_or(Refusal::Lost)?;
        let ttl = Duration::from_micros(renew.ttl_us);
        let (lease, set) = self.on(&key, folded, |state, now, effects| {
            let set = state.term(renew.claim).is_some_and(|term| renew.order >= term.renewed);
            (state.renew(now, renew.claim, ttl, renew.order, effects), set)
        });
        let lease = lease?;
        if set {
            self.lease_set(offset, &key, renew.claim, folded);
        }
        Ok(Renewed { lease, set })
    }

    /// Ends those of the leases that may end; which those are. All of one key end together: none of them is handed to another.
    fn lapse(
        &mut self,
        waited_for: &[Named],
        unanswered: &[Named],
        genesis: &Genesis,
        folded: &mut Folded,
    ) -> Vec<ClaimId> {
        let mut ending: BTreeMap<Key, Vec<ClaimId>> = BTreeMap::new();
        let waited = waited_for.iter().map(|named| (named, true));
        for (Named { claim, lease }, waited) in waited.chain(unanswered.iter().map(|named| (named, false))) {
            let Some(Tracked { key, lease: known }) = self.claims.get(claim) else { continue };
            let term = self.locks.get(key).and_then(|state| state.term(*claim));
            let by_clock = waited && term.is_some_and(|term| self.clock.now >= term.expires);
            let may_end = by_clock || known.is_over_unanswered(&self.clock, genesis);
            if term.is_some() && known.offset == *lease && may_end {
                ending.entry(key.clone()).or_default().push(*claim);
            }
        }
        for (key, ids) in &ending {
            self.on(key, folded, |state, now, effects| state.lapse(now, ids, effects));
        }
        ending.into_values().flatten().collect()
    }

    /// Notes that a holder is asked for a sign of life; the first time that it is asked counts.
    fn suspect(&mut self, Named { claim, lease }: Named, genesis: &Genesis) -> Option<ClaimId> {
        let (now, stamp) = (self.clock.now, self.clock.stamp);
        let known = &mut self.claims.get_mut(&claim)?.lease;
        let is_asked =
            known.offset == lease && known.suspected.is_none() && known.is_over_by_stamps(stamp, genesis);
        if is_asked {
            known.suspected = Some(now);
        }
        is_asked.then_some(claim)
    }

    /// Runs one command on the lock of `key`.
    fn on<T>(
        &mut self,
        key: &Key,
        folded: &mut Folded,
        command: impl FnOnce(&mut LockState, Moment, &mut Vec<Effect>) -> T,
    ) -> T {
        let before = folded.effects.len();
        let new = || LockState::default().expiring_by_command();
        let state = self.locks.entry(key.clone()).or_insert_with(new);
        // The next token is above all tokens of the partition, and not below the broker's clock: it grows as well over what
        // the log may lose.
        state.raise_token(self.last_token.max(self.clock.stamp.saturating_sub(1)));
        let answer = command(state, self.clock.now, &mut folded.effects);
        self.last_token = state.last_token();
        if state.is_idle() {
            self.locks.remove(key);
        }
        let ended = folded.effects[before..].iter().filter_map(|effect| match effect {
            Effect::Ended { claim, .. } => Some(claim.id()),
            Effect::Granted { .. } => None,
        });
        for id in ended.collect::<Vec<_>>() {
            self.untrack(id, folded);
        }
        answer
    }

    /// From this record on its lease counts: what was answered is what was promised.
    fn lease_set(&mut self, offset: u64, key: &Key, id: ClaimId, folded: &mut Folded) {
        let Some(term) = self.locks.get(key).and_then(|state| state.term(id)) else { return };
        let left = term.expires.since(self.clock.now);
        let length_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        let lease = Lease { offset, stamp: self.clock.stamp, length_us, suspected: None };
        self.claims.insert(id, Tracked { key: key.clone(), lease });
        folded.touched.push(id);
    }

    fn untrack(&mut self, id: ClaimId, folded: &mut Folded) {
        self.claims.remove(&id);
        folded.touched.push(id);
    }
}
