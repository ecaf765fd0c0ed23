//! A lock as it was read at one revision, and who may hold next: [`LockState`](lockcore::state::LockState)'s rules over keys.

use std::num::NonZeroU32;

use lockcore::{Claim, ClaimId, Error, ErrorKind, Fence, FencingToken, Holders, Mode, Result, admits};

use crate::keys::{Kind, Names};
use crate::record::{Grant, Place, Record};
use crate::token::{MOST, token};
use crate::txn::KeyValue;

/// One claim as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: ClaimId,
    pub(crate) name: String,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) lease: i64,
    pub(crate) record: Record,
}

impl Seen {
    /// Reads a claim's key.
    ///
    /// # Errors
    /// `Conflict` for data that is not ours.
    pub(crate) fn read(names: &Names, kv: &KeyValue) -> Result<Seen> {
        let parsed = names.kind(&kv.key).zip(Record::decode(&kv.value));
        let Some((_, record)) = parsed else {
            let name = String::from_utf8_lossy(&kv.key);
            return Err(Error::new(ErrorKind::Conflict, format!("{name} holds data that is not ours")));
        };
        Ok(Seen {
            id: record.id,
            name: String::from_utf8_lossy(&kv.key).into_owned(),
            created: kv.created,
            modified: kv.modified,
            lease: kv.lease,
            record,
        })
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.record.granted.is_some()
    }

    /// The token of a holder.
    pub(crate) fn token(&self) -> Option<u64> {
        let grant = self.record.granted?;
        Some(if grant.token == 0 { token(self.modified, grant.nth) } else { grant.token })
    }

    /// The floor of a holder, if what was written tells it.
    fn floor(&self) -> Option<u64> {
        match self.record.granted? {
            Grant { floor: 0, nth: 0, .. } => None,
            Grant { floor: 0, nth, .. } => self.token().map(|token| token.saturating_sub(nth)),
            Grant { floor, .. } => Some(floor),
        }
    }

    /// Where it stands in the queue.
    pub(crate) fn place(&self) -> Place {
        match self.record.place {
            None => Place { rank: 1, at: self.created },
            Some(Place { rank, at: 0 }) => Place { rank, at: self.created },
            Some(place) => place,
        }
    }

    /// The record as it must be written again when the grant is older than that write.
    pub(crate) fn settled_record(&self) -> Record {
        let mut record = self.record.clone();
        if let (Some(grant), Some(token)) = (&mut record.granted, self.token()) {
            grant.token = token;
        }
        record
    }
}

/// All claims of a lock, or the oldest of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: i64,
    /// In the order of their creation, if not all of them are there.
    pub(crate) claims: Vec<Seen>,
    /// Whether some stand out of turn.
    pub(crate) out_of_turn: bool,
    /// Whether these are all.
    pub(crate) complete: bool,
}

/// Who may be granted next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The claim at this position.
    Grant(usize),
    Nobody,
    /// Too few claims were read to tell.
    Unknown,
}

/// How a new claim joins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Holders first, then waiters in the order of service.
    pub(crate) replaced: Vec<Seen>,
    pub(crate) place: Option<Place>,
    pub(crate) granted: bool,
    /// The holder beside whom it joins that has the smallest token.
    pub(crate) oldest: Option<Seen>,
}

impl Plan {
    /// The smallest token beside that of the new claim; zero when it is alone.
    pub(crate) fn floor(&self) -> u64 {
        self.oldest.as_ref().and_then(Seen::token).unwrap_or(0)
    }
}

impl View {
    /// Reads the keys of [`Names::everything`]; markers only count.
    ///
    /// # Errors
    /// `Conflict` for data that is not ours.
    pub(crate) fn read(names: &Names, revision: i64, kvs: &[KeyValue], complete: bool) -> Result<View> {
        let mut view = View { revision, complete, ..View::default() };
        for kv in kvs {
            if names.kind(&kv.key) == Some(Kind::Marker) {
                view.out_of_turn = true;
            } else {
                view.claims.push(Seen::read(names, kv)?);
            }
        }
        Ok(view)
    }

    pub(crate) fn find(&self, id: ClaimId) -> Option<&Seen> {
        self.claims.iter().find(|seen| seen.id == id)
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = &Seen> {
        self.claims.iter().filter(|seen| seen.is_granted())
    }

    /// The waiters, in the order of service.
    pub(crate) fn waiters(&self) -> Vec<&Seen> {
        let mut waiters: Vec<&Seen> = self.claims.iter().filter(|seen| !seen.is_granted()).collect();
        waiters.sort_by_key(|seen| seen.place());
        waiters
    }

    /// Whether any claim is exclusive, holder or waiter.
    pub(crate) fn has_exclusive(&self) -> bool {
        self.claims.iter().any(|seen| seen.record.mode.is_exclusive())
    }

    /// The holder that waits to become exclusive.
    pub(crate) fn upgrading(&self) -> Option<usize> {
        self.claims.iter().position(|seen| seen.is_granted() && seen.record.upgrading)
    }

    /// The holder with the smallest token.
    ///
    /// A grant beside it is guarded by its last write: if it went, somebody who conflicts may have come and gone since, of whom
    /// no guard sees anything, and the floor would be below a token that is stale.
    pub(crate) fn oldest(&self) -> Option<&Seen> {
        self.holders().min_by_key(|seen| seen.token())
    }

    /// The smallest token among the holders; zero when there are none.
    pub(crate) fn floor(&self) -> u64 {
        self.oldest().and_then(Seen::token).unwrap_or(0)
    }

    /// The claim that is granted next, if any may be.
    ///
    /// That nobody who conflicts is ahead stays true whatever others do, unless they write a marker: hence the guard of the
    /// grant.
    pub(crate) fn next(&self) -> Next {
        let unclear =
            |seen: &Seen| matches!(seen.record.mode, Mode::Permit { .. }) || seen.record.place.is_some();
        if !self.complete && (self.out_of_turn || self.claims.iter().any(unclear)) {
            return Next::Unknown;
        }
        if let Some(upgrading) = self.upgrading() {
            return if self.holders().count() == 1 { Next::Grant(upgrading) } else { Next::Nobody };
        }
        let waiters = self.claims.iter().enumerate().filter(|(_, seen)| !seen.is_granted());
        match waiters.min_by_key(|(_, seen)| seen.place()) {
            Some((at, seen)) if admits(self.summary(None), seen.record.mode) => {
                // The floor is the smallest token of all readers, some of whom may have gone past those who wait.
                if self.complete || seen.record.mode.is_exclusive() { Next::Grant(at) } else { Next::Unknown }
            }
            Some(_) => Next::Nobody,
            None if self.complete => Next::Nobody,
            None => Next::Unknown,
        }
    }

    /// The claim at this position, which is next, and those behind it that come in beside it and each other: at most so many,
    /// in their order.
    pub(crate) fn together(&self, first: usize, most: usize) -> Vec<usize> {
        let Some(seen) = self.claims.get(first).filter(|seen| !seen.is_granted()) else { return vec![first] };
        self.admitted(self.summary(None), seen.place(), most)
    }

    /// The waiters from this place on that may hold beside the holders and each other: at most so many, in their order.
    pub(crate) fn admitted(&self, mut holders: Holders, from: Place, most: usize) -> Vec<usize> {
        let waits = |(_, seen): &(usize, &Seen)| !seen.is_granted() && seen.place() >= from;
        let mut waiters: Vec<(usize, &Seen)> = self.claims.iter().enumerate().filter(waits).collect();
        waiters.sort_by_key(|(_, seen)| seen.place());
        let may = |(_, seen): &(usize, &Seen)| {
            let may = admits(holders, seen.record.mode);
            add(&mut holders, seen.record.mode);
            may
        };
        waiters.into_iter().take(most.min(MOST)).take_while(may).map(|(at, _)| at).collect()
    }

    /// What the holders look like, without those of an owner.
    fn summary(&self, without: Option<&str>) -> Holders {
        let mut summary = Holders::default();
        for seen in self.holders().filter(|seen| !is_owners(seen, without)) {
            add(&mut summary, seen.record.mode);
        }
        summary
    }

    /// How a claim that is not here yet joins: where it stands, whom it replaces, and whether it may hold at once.
    pub(crate) fn plan(&self, claim: &Claim) -> Plan {
        let owner = claim.owner().map(|owner| &**owner).filter(|_| claim.take_over());
        let mut replaced: Vec<Seen> =
            self.claims.iter().filter(|seen| is_owners(seen, owner)).cloned().collect();
        replaced.sort_by_key(|seen| (!seen.is_granted(), seen.place()));
        let place = if replaced.iter().any(Seen::is_granted) {
            Some(Place { rank: 0, at: 0 })
        } else {
            replaced.iter().map(Seen::place).min()
        };
        // A new key is created after all others.
        let stands = match place {
            None => Place { rank: 1, at: i64::MAX },
            Some(Place { rank, at: 0 }) => Place { rank, at: i64::MAX },
            Some(place) => place,
        };
        let stay = || self.claims.iter().filter(|seen| !is_owners(seen, owner));
        let anybody_ahead = stay().any(|seen| !seen.is_granted() && seen.place() < stands);
        let upgrading = stay().any(|seen| seen.is_granted() && seen.record.upgrading);
        let granted = !anybody_ahead && !upgrading && admits(self.summary(owner), claim.mode());
        let oldest = stay().filter(|seen| seen.is_granted()).min_by_key(|seen| seen.token()).cloned();
        Plan { replaced, place, granted, oldest }
    }

    /// Notes that the claim at this position was granted by the write of `revision`.
    pub(crate) fn grant(&mut self, at: usize, record: Record, revision: i64) {
        if let Some(seen) = self.claims.get_mut(at) {
            seen.record = record;
            seen.modified = revision;
        }
    }

    /// The fence of a holder; as it was granted, as far as that is known.
    pub(crate) fn fence(&self, seen: &Seen) -> Option<Fence> {
        let token = FencingToken::new(seen.token()?)?;
        let floor = match seen.floor().and_then(FencingToken::new) {
            Some(floor) => floor,
            None if seen.record.mode.is_exclusive() => token,
            None => FencingToken::new(self.floor()).unwrap_or(token),
        };
        Some(Fence { token, floor: floor.min(token) })
    }
}

fn add(summary: &mut Holders, mode: Mode) {
    summary.count += 1;
    summary.exclusive |= mode.is_exclusive();
    if let Mode::Permit { at_most } = mode {
        let smallest = summary.smallest_bound.map_or(at_most, |bound: NonZeroU32| bound.min(at_most));
        summary.smallest_bound = Some(smallest);
    }
}

fn is_owners(seen: &Seen, owner: Option<&str>) -> bool {
    owner.is_some() && seen.record.owner.as_deref() == owner
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use lockcore::Key;

    use super::*;

    /// `S5` a shared holder created at 5, `x7` a waiting exclusive claim, `P3.9` a permit of three; `!` upgrades.
    pub(crate) fn view(text: &str) -> View {
        let claims = text.split_whitespace().map(seen).collect();
        View { revision: 100, claims, out_of_turn: false, complete: true }
    }

    fn seen(text: &str) -> Seen {
        let (word, upgrading) = text.strip_suffix('!').map_or((text, false), |word| (word, true));
        let (letter, rest) = word.split_at(1);
        let (bound, at) = rest.split_once('.').unwrap_or(("1", rest));
        let mode = match letter.to_ascii_lowercase().as_str() {
            "s" => Mode::Shared,
            "x" => Mode::Exclusive,
            _ => Mode::Permit { at_most: bound.parse().unwrap() },
        };
        let created: i64 = at.parse().unwrap();
        let claim = Claim::new(Key::new("k").unwrap(), mode, Duration::from_secs(9))
            .with_owner(Some(Arc::from(format!("o{created}"))));
        let mut record = Record::new(&claim, "c", Duration::from_secs(9));
        if letter.chars().all(char::is_uppercase) {
            record = record.granted(0, 0);
        }
        record.upgrading = upgrading;
        let id = ClaimId::from_bits(u128::from(created.unsigned_abs()));
        Seen { id, name: String::new(), created, modified: created, lease: 1, record }
    }

    fn next(text: &str) -> Option<i64> {
        let view = view(text);
        match view.next() {
            Next::Grant(at) => Some(view.claims[at].created),
            Next::Nobody => None,
            Next::Unknown => panic!("{text}"),
        }
    }

    #[test]
    fn the_first_in_the_queue_is_next_if_the_holders_admit_it() {
        assert_eq!(next(""), None);
        assert_eq!(next("x9 x5 s7"), Some(5));
        assert_eq!(next("X1 s7"), None);
        assert_eq!(next("S1 s7 x5"), None, "a reader behind a writer waits behind it");
        assert_eq!(next("S1 s5 x7"), Some(5));
        assert_eq!(next("P3.1 P9.2 s4"), Some(4));
        assert_eq!(next("P3.1 P9.2 S3 s4"), None);
    }

    #[test]
    fn an_upgrade_waits_for_the_other_holders_and_nobody_joins_past_it() {
        assert_eq!(next("S1! S2 s3"), None);
        assert_eq!(next("S1! x3"), Some(1));
    }

    #[test]
    fn all_who_may_hold_together_come_in_together() {
        let together = |text: &str, most: usize| {
            let view = view(text);
            let Next::Grant(first) = view.next() else { panic!("{text}") };
            let all = view.together(first, most);
            all.into_iter().map(|at| view.claims[at].created).collect::<Vec<_>>()
        };
        assert_eq!(together("S1 s7 s5 x8 s9", 9), [5, 7]);
        assert_eq!(together("s5 s7 s6", 2), [5, 6]);
        assert_eq!(together("x5 s7", 9), [5]);
        assert_eq!(together("S1! s7", 9), [1], "an upgrade");
        assert_eq!(together("S1 P4.2 s5 s7 s8", 9), [5, 7], "there are four at most");
        assert_eq!(together("S1 s5 p3.6 s7", 9), [5, 6]);
    }

    #[test]
    fn a_part_of_the_claims_is_enough_only_when_it_is() {
        let part = |text: &str, out_of_turn| {
            let view = View { complete: false, out_of_turn, ..view(text) };
            view.next()
        };
        assert_eq!(part("x5 x6", false), Next::Grant(0));
        assert_eq!(part("X5 x6", false), Next::Nobody);
        assert_eq!(part("S5 S6", false), Next::Unknown, "the first waiter was not read");
        assert_eq!(part("x5 x6", true), Next::Unknown);
        assert_eq!(part("S5 s6", false), Next::Unknown, "who else holds decides on the floor");
        assert_eq!(part("P2.5 s6", false), Next::Unknown);
    }

    #[test]
    fn a_take_over_stands_in_place_of_what_it_replaces() {
        let claim = |owner: &str, mode| {
            Claim::new(Key::new("k").unwrap(), mode, Duration::from_secs(9))
                .with_owner(Some(owner.into()))
                .taking_over(true)
        };
        let plan = view("X1 x5").plan(&claim("o1", Mode::Exclusive));
        assert!(plan.granted && plan.replaced.len() == 1);
        assert_eq!(plan.place, Some(Place { rank: 0, at: 0 }));
        let plan = view("X1 x5 x7").plan(&claim("o5", Mode::Exclusive));
        assert_eq!((plan.granted, plan.place), (false, Some(Place { rank: 1, at: 5 })));
        let plan = view("S1 S2 x7").plan(&claim("o1", Mode::Exclusive));
        assert!(!plan.granted, "another reader holds");
        let plan = view("S1 S2 x7").plan(&claim("o1", Mode::Shared));
        assert!(plan.granted && plan.floor() == 200, "ahead of the queue");
        let plan = view("S1! S2").plan(&claim("nobody", Mode::Shared));
        assert!(!plan.granted && plan.place.is_none(), "an upgrade waits");
    }
}
