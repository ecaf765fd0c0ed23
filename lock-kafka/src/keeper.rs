//! When this client proposes that somebody's lease is over.
//!
//! Every client watches every lease of the partition, on its own clock and from when it read the record that set it: that is
//! later than any moment from which the holder counts. Those who wait for the key propose first, the others a while after
//! them, if the claim is still there.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lockcore::ClaimId;
use tokio::time::Instant;

use crate::leases::Lease;

/// A proposal that was not accepted is made again after this time, and then after twice as long.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(16);

/// Two clocks differ by at most one per cent: what a lease is longer for whoever waits for its end.
const DRIFT_DIVISOR: u32 = 100;
const MARGIN: Duration = Duration::from_millis(2);

/// Leases of one key that are over within this time end together.
const TOGETHER: Duration = Duration::from_millis(100);

/// Whoever does not wait for the key proposes this much later, at least and at most.
const STAGGER: std::ops::Range<u64> = 300..1500;

/// A lease as it is watched.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// The record that set it.
    offset: u64,
    /// When that was read, and how much later nobody counts on the lease any more.
    over: Instant,
    /// When the brokers' clocks say so as well, if they go as this one does.
    stamped: Instant,
    /// When its holder was seen to be asked for a sign of life.
    suspected: Option<Instant>,
    due: Instant,
    tries: u32,
}

/// How long is waited before the brokers' clocks are believed, as the genesis record has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// How far those clocks may lie apart.
    pub(crate) margin: Duration,
    /// How long a suspected holder has for its sign of life.
    pub(crate) grace: Duration,
}

/// All leases of a partition, by when there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    watched: HashMap<ClaimId, Watched>,
    by_due: BTreeSet<(Instant, ClaimId)>,
}

/// What to say of a lease that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposal {
    /// Its holder is here, and lives.
    Alive,
    /// It is over: its whole time was waited for.
    Expire,
    /// It is over: its holder does not answer.
    Silent,
    Suspect,
    /// It is over, and if the log does not say so, its holder is to be asked.
    Both,
    Nothing,
}

impl Keeper {
    /// A lease was set, suspected or ended: `None` if the claim is gone.
    pub(crate) fn sees(
        &mut self,
        id: ClaimId,
        lease: Option<&Lease>,
        patience: Patience,
        cares: bool,
        now: Instant,
    ) {
        let known = self.forget(id);
        let Some(lease) = lease else { return };
        let mut watched = known.filter(|known| known.offset == lease.offset).unwrap_or_else(|| {
            let length = Duration::from_micros(lease.length_us);
            let over = far(now, length + length / DRIFT_DIVISOR + MARGIN);
            let (stamped, due) = (over + patience.margin, over + stagger(cares));
            Watched { offset: lease.offset, over, stamped, suspected: None, due, tries: 0 }
        });
        match (lease.suspected, watched.suspected) {
            (None, _) => watched.suspected = None,
            (Some(_), None) => {
                watched.suspected = Some(now);
                let answered = now + patience.grace + MARGIN + stagger(cares);
                watched.due = if watched.over > now { watched.over.min(answered) } else { answered };
            }
            (Some(_), Some(_)) => {}
        }
        self.watch(id, watched);
    }

    /// Somebody here waits for this claim to end: looked at as soon as its lease is over, or now, if by the brokers' clocks it
    /// is already.
    pub(crate) fn hurry(&mut self, id: ClaimId, over_by_stamps: bool, now: Instant) {
        if let Some(&watched) = self.watched.get(&id).filter(|watched| watched.tries == 0) {
            let soonest = if over_by_stamps { now } else { watched.over };
            self.postpone(id, watched.due.min(soonest));
        }
    }

    /// When there is something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.by_due.first().map(|&(due, _)| due)
    }

    /// The first claim that is due.
    pub(crate) fn first_due(&self, now: Instant) -> Option<ClaimId> {
        self.by_due.first().filter(|&&(due, _)| due <= now).map(|&(_, id)| id)
    }

    /// Looks at it again later.
    pub(crate) fn postpone(&mut self, id: ClaimId, until: Instant) {
        if let Some(watched) = self.forget(id) {
            self.watch(id, Watched { due: until, ..watched });
        }
    }

    /// Until when the end of this lease is put off, because others of its key are over only a little later.
    pub(crate) fn together(&self, id: ClaimId, also: &[ClaimId], now: Instant) -> Option<Instant> {
        let over = self.watched.get(&id)?.over;
        let others = || also.iter().filter_map(|other| self.watched.get(other)).map(|other| other.over);
        // One to which another was put off ends with that, and is not put off to the next.
        let first = others().filter(|&other| other + TOGETHER >= over).min()?.min(over);
        let last = others().filter(|&other| other <= first + TOGETHER).max()?;
        (over <= now && last > now).then_some(last)
    }

    /// What is proposed now; then again after a while.
    pub(crate) fn propose(
        &mut self,
        id: ClaimId,
        over_by_stamps: bool,
        grace: Duration,
        now: Instant,
    ) -> Proposal {
        let Some(mut watched) = self.forget(id) else { return Proposal::Nothing };
        let waited = now >= watched.over;
        let over_by_stamps = over_by_stamps || now >= watched.stamped;
        let unanswered = watched.suspected.is_some_and(|asked| now >= asked + grace);
        // The clock of the log may be behind, if little was written; then the stamps are what may tell.
        let asks = over_by_stamps && watched.suspected.is_none() && (!waited || watched.tries > 0);
        watched.due = if waited || unanswered || asks {
            watched.tries += 1;
            let again = now + (AGAIN * 2_u32.saturating_pow(watched.tries.min(8) - 1)).min(LONGEST);
            if now < watched.stamped { again.min(watched.stamped) } else { again }
        } else {
            watched.suspected.map_or(watched.over, |asked| watched.over.min(asked + grace + MARGIN))
        };
        self.watch(id, watched);
        match (waited, asks) {
            (true, true) => Proposal::Both,
            (true, false) => Proposal::Expire,
            // It cannot be asked again and have left the last time unanswered.
            (false, true) => Proposal::Suspect,
            (false, false) if unanswered => Proposal::Silent,
            (false, false) => Proposal::Nothing,
        }
    }

    fn watch(&mut self, id: ClaimId, watched: Watched) {
        self.by_due.insert((watched.due, id));
        self.watched.insert(id, watched);
    }

    fn forget(&mut self, id: ClaimId) -> Option<Watched> {
        let watched = self.watched.remove(&id)?;
        self.by_due.remove(&(watched.due, id));
        Some(watched)
    }
}

fn stagger(cares: bool) -> Duration {
    Duration::from_millis(if cares { 0 } else { fastrand::u64(STAGGER) })
}

/// A moment that a clock can still tell.
fn far(now: Instant, later: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    now + later.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClaimId = ClaimId::from_bits(1);
    const PATIENCE: Patience = Patience { margin: Duration::from_secs(5), grace: Duration::from_secs(2) };

    /// A keeper that has read the record that set a lease of 10 s, and when that was.
    fn watching(cares: bool) -> (Keeper, Lease, Instant) {
        let (mut keeper, begun) = (Keeper::default(), Instant::now());
        let lease = Lease { offset: 7, stamp: 0, length_us: 10_000_000, suspected: None };
        keeper.sees(ONE, Some(&lease), PATIENCE, cares, begun);
        (keeper, lease, begun)
    }

    /// All that is proposed until then, and after how many milliseconds.
    fn proposed(keeper: &mut Keeper, begun: Instant, until: u64) -> Vec<(u128, Proposal)> {
        let mut proposed = Vec::new();
        while let Some(due) = keeper.due().filter(|&due| due <= begun + Duration::from_millis(until)) {
            let proposal = keeper.propose(ONE, false, PATIENCE.grace, due);
            proposed.push((due.duration_since(begun).as_millis(), proposal));
        }
        proposed
    }

    #[test]
    fn a_proposal_waits_for_the_whole_lease_and_more_and_is_repeated() {
        let (mut keeper, ..) = watching(true);
        let begun = keeper.watched[&ONE].over.checked_sub(Duration::from_millis(10_102)).unwrap();
        // The stamps may tell when the margin is over as well: then its holder is asked.
        let expected = [
            (10_102, Proposal::Expire),
            (11_102, Proposal::Expire),
            (13_102, Proposal::Expire),
            (15_102, Proposal::Both),
            (23_102, Proposal::Both),
            (39_102, Proposal::Both),
            (55_102, Proposal::Both),
        ];
        assert_eq!(proposed(&mut keeper, begun, 60_000), expected);
    }

    #[test]
    fn who_does_not_wait_for_the_key_proposes_a_little_later() {
        for _ in 0..50 {
            let (keeper, _, begun) = watching(false);
            let later = keeper.due().unwrap().duration_since(begun).as_millis();
            assert!((10_402..11_602).contains(&later), "{later}");
            let (mut keeper, lease, begun) = watching(false);
            let suspected = Lease { suspected: Some(lockcore::state::Moment::default()), ..lease };
            keeper.sees(ONE, Some(&suspected), PATIENCE, false, begun);
            let later = keeper.due().unwrap().duration_since(begun).as_millis();
            assert!((2_302..3_502).contains(&later), "{later}");
        }
    }

    #[test]
    fn a_holder_is_asked_when_its_end_was_refused() {
        let (mut keeper, _, begun) = watching(true);
        let over = begun + Duration::from_millis(10_102);
        assert_eq!(keeper.propose(ONE, true, PATIENCE.grace, over), Proposal::Expire);
        assert_eq!(keeper.propose(ONE, true, PATIENCE.grace, over + AGAIN), Proposal::Both);
    }

    #[test]
    fn a_suspected_holder_has_the_grace() {
        let (mut keeper, lease, begun) = watching(true);
        let at = |seconds| begun + Duration::from_secs(seconds);
        // By the brokers' clocks it is over already: it is asked, not ended.
        keeper.hurry(ONE, true, at(3));
        assert_eq!(keeper.propose(ONE, true, PATIENCE.grace, at(3)), Proposal::Suspect);
        let suspected = Lease { suspected: Some(lockcore::state::Moment::default()), ..lease };
        keeper.sees(ONE, Some(&suspected), PATIENCE, true, at(4));
        assert_eq!(keeper.due(), Some(at(6) + MARGIN));
        assert_eq!(keeper.propose(ONE, true, PATIENCE.grace, at(5)), Proposal::Nothing);
        assert_eq!(keeper.due(), Some(at(6) + MARGIN), "it is looked at again then");
        assert_eq!(keeper.propose(ONE, true, PATIENCE.grace, at(6)), Proposal::Silent);
        // If its whole time is waited for sooner, that is enough.
        let (mut other, ..) = watching(true);
        other.sees(ONE, Some(&suspected), PATIENCE, true, begun + Duration::from_millis(9_500));
        assert_eq!(other.due(), Some(other.watched[&ONE].over));
        // It has answered.
        keeper.sees(ONE, Some(&lease), PATIENCE, true, at(7));
        assert_eq!(keeper.propose(ONE, false, PATIENCE.grace, at(8)), Proposal::Nothing);
    }

    #[test]
    fn a_lease_that_was_set_anew_is_waited_for_anew() {
        let (mut keeper, lease, begun) = watching(true);
        let nine = begun + Duration::from_secs(9);
        keeper.sees(ONE, Some(&Lease { offset: 8, ..lease }), PATIENCE, true, nine);
        assert_eq!(keeper.due(), Some(nine + Duration::from_millis(10_102)));
        keeper.sees(ONE, None, PATIENCE, true, nine);
        assert_eq!(keeper.due(), None);
    }
    #[test]
    fn leases_of_one_key_that_are_over_almost_together_are_put_off_to_the_last_of_them() {
        let (mut keeper, lease, begun) = watching(true);
        let at = |millis| begun + Duration::from_millis(millis);
        let [two, three] = [2, 3].map(ClaimId::from_bits);
        for (id, later) in [(two, 100), (three, 201)] {
            keeper.sees(id, Some(&Lease { offset: 7 + later, ..lease }), PATIENCE, true, at(later));
        }
        let also = [ONE, two, three];
        assert_eq!(keeper.together(ONE, &also, at(10_102)), Some(at(10_202)), "and not to that of the third");
        assert_eq!(keeper.together(two, &also, at(10_202)), None);
        assert_eq!(keeper.together(ONE, &also, at(10_202)), None);
        assert_eq!(keeper.together(ONE, &also, at(5_000)), None, "it is not over: somebody may be asked");
        // The first is put off to the second: they end together, though the third is over soon after that one.
        keeper.sees(three, Some(&Lease { offset: 8, ..lease }), PATIENCE, true, at(190));
        assert_eq!(keeper.together(ONE, &also, at(10_102)), Some(at(10_202)));
        assert_eq!(keeper.together(two, &also, at(10_202)), None);
        assert_eq!(keeper.together(two, &[two, three], at(10_202)), Some(at(10_292)));
    }

    #[test]
    fn whoever_waits_for_the_key_looks_as_soon_as_its_lease_is_over() {
        let (mut keeper, _, begun) = watching(false);
        keeper.hurry(ONE, false, begun);
        let over = begun + Duration::from_millis(10_102);
        assert_eq!(keeper.due(), Some(over));
        assert_eq!(keeper.propose(ONE, false, PATIENCE.grace, over), Proposal::Expire);
        // However many come to wait.
        keeper.hurry(ONE, true, over);
        assert_eq!(keeper.due(), Some(over + AGAIN));
    }
}
