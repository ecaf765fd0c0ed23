//! Somebody who writes records: what they might say next, in or out of place.

use std::collections::VecDeque;
use std::time::Duration;

use lockcore::{Claim, ClaimId, Key, Mode, Queue};

use crate::checkpoint::{Checkpoint, Part};
use crate::fold::Replica;
use crate::record::{Id, Record};
use crate::what::{Break, Convert, Join, LetGo, Named, Renew, Target, What};

const KEYS: [&str; 2] = ["a", "b"];
const OWNERS: [&str; 2] = ["ann", "bob"];

/// A client as the log sees one.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) session: Id,
    seq: u64,
    pub(super) claims: Vec<Own>,
    renewals: u64,
    /// What it has to write of a checkpoint.
    parts: VecDeque<Part>,
}

/// A claim of a speaker.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) claim: Join,
    /// It lets go, or has: it asks for it no more.
    pub(super) left: bool,
    /// It was withdrawn if it still waited: then it does not join again.
    withdrawn: bool,
}

/// What the speakers know of the world.
pub(super) struct View<'w> {
    pub(super) replica: &'w Replica,
    pub(super) checkpoint: Option<&'w Checkpoint>,
    /// The leases whose end may be proposed: somebody has waited for as long as they are.
    pub(super) overdue: Vec<(ClaimId, u64)>,
    /// Whether somebody proposes ends without having waited.
    pub(super) rash: bool,
    pub(super) unanswered: &'w dyn Fn(ClaimId) -> bool,
}

impl Speaker {
    pub(super) fn new(random: &mut fastrand::Rng) -> Speaker {
        Speaker {
            session: Id::from_bits(random.u128(..)),
            seq: 0,
            claims: Vec::new(),
            renewals: 0,
            parts: VecDeque::new(),
        }
    }

    /// The record that opens its session.
    pub(super) fn opens(&self, end: u64) -> Record {
        Record::new(self.session, 0, What::Open { end, incarnation: Id::from_bits(1), partition: 0 })
    }

    /// Goes on under a new session; its claims stay its own.
    pub(super) fn reopens(&mut self, random: &mut fastrand::Rng, end: u64) -> Record {
        (self.session, self.seq) = (Id::from_bits(random.u128(..)), 0);
        self.opens(end)
    }

    pub(super) fn says(&mut self, what: What) -> Record {
        self.seq += 1;
        Record::new(self.session, self.seq, what)
    }

    /// Something that it might say now.
    pub(super) fn speaks(&mut self, view: &View, random: &mut fastrand::Rng) -> Record {
        let what = match random.u8(..20) {
            _ if !self.parts.is_empty() && random.bool() => self.writes_on(random),
            0..5 => self.joins(random),
            5..7 => self.joins_again(random),
            7..10 => self.renews(random),
            10..13 => self.lets_go(view, random),
            13 => self.converts(random),
            14 if random.u8(..3) == 0 => breaks(random),
            14..17 => proposes(view, random),
            17 => suspects(view, random),
            18 => What::Alive { claims: self.claims.iter().map(|own| own.claim.claim).collect() },
            _ => match view.checkpoint {
                Some(checkpoint) => self.writes(checkpoint, random),
                None => What::Barrier,
            },
        };
        self.says(what)
    }

    /// Begins to write a checkpoint, in up to four records.
    fn writes(&mut self, checkpoint: &Checkpoint, random: &mut fastrand::Rng) -> What {
        self.parts = checkpoint.parts(checkpoint.state.len() / random.usize(1..4)).into();
        self.writes_on(random)
    }

    /// Its next part; now and then it leaves one out.
    fn writes_on(&mut self, random: &mut fastrand::Rng) -> What {
        if random.u8(..16) == 0 {
            self.parts.pop_front();
        }
        self.parts.pop_front().map_or(What::Barrier, What::Checkpoint)
    }

    fn joins(&mut self, random: &mut fastrand::Rng) -> What {
        let mode = match random.u8(..7) {
            0..3 => Mode::Exclusive,
            3..6 => Mode::Shared,
            _ => Mode::Permit { at_most: 2.try_into().unwrap() },
        };
        let owner = OWNERS[random.usize(..2)];
        let claim = Claim::new(key(random), mode, Duration::from_secs(random.u64(2..12)))
            .with_id(ClaimId::from_bits(random.u128(..)))
            .with_waiter_ttl(Duration::from_secs(random.u64(1..5)))
            .with_owner(random.bool().then(|| owner.into()));
        let takes_over = claim.owner().is_some() && random.u8(..4) == 0;
        let queue = if random.u8(..4) == 0 { Queue::Never } else { Queue::Join };
        let join = Join::of(&claim.taking_over(takes_over), queue);
        self.claims.push(Own { claim: join.clone(), left: false, withdrawn: false });
        What::Acquire(join)
    }

    fn staying(&mut self, random: &mut fastrand::Rng) -> Option<&mut Own> {
        let count = self.claims.iter().filter(|own| !own.left).count();
        let chosen = if count == 0 { 0 } else { random.usize(..count) };
        self.claims.iter_mut().filter(|own| !own.left).nth(chosen)
    }

    fn joins_again(&mut self, random: &mut fastrand::Rng) -> What {
        self.staying(random).map_or(What::Barrier, |own| {
            if own.withdrawn { What::Barrier } else { What::Acquire(own.claim.clone()) }
        })
    }

    fn renews(&mut self, random: &mut fastrand::Rng) -> What {
        self.renewals += 1;
        let late = random.u64(..2) * 2;
        let order = self.renewals.saturating_sub(late);
        let renews = self.claims.iter().filter(|own| !own.left);
        let renew = |own: &Own| Renew { claim: own.claim.claim, ttl_us: own.claim.ttl_us, order };
        What::Heartbeat { renew: renews.map(renew).collect() }
    }

    fn lets_go(&mut self, view: &View, random: &mut fastrand::Rng) -> What {
        let only_waiting = random.u8(..4) == 0;
        self.staying(random).map_or(What::Barrier, |own| {
            own.left |= !only_waiting;
            own.withdrawn = true;
            let Join { identifier, claim, .. } = own.claim.clone();
            What::Release(LetGo { identifier, claim, answered: !(view.unanswered)(claim), only_waiting })
        })
    }

    fn converts(&mut self, random: &mut fastrand::Rng) -> What {
        self.renewals += 1;
        let order = self.renewals;
        let mode = if random.bool() { Mode::Exclusive } else { Mode::Shared };
        self.staying(random).map_or(What::Barrier, |own| {
            let Join { identifier, claim, .. } = own.claim.clone();
            What::Convert(Convert { identifier, claim, mode, order })
        })
    }
}

fn key(random: &mut fastrand::Rng) -> Key {
    Key::new(KEYS[random.usize(..KEYS.len())]).unwrap()
}

fn breaks(random: &mut fastrand::Rng) -> What {
    let target = match random.u8(..3) {
        0 => Target::All,
        1 => Target::Owner(OWNERS[0].into()),
        _ => Target::Holders,
    };
    What::Break(Break { identifier: key(random), target })
}

/// A claim that is there, and the record that set its lease; now and then another one.
fn somebody(view: &View, random: &mut fastrand::Rng) -> Option<(ClaimId, u64)> {
    let mut claims: Vec<ClaimId> = view.replica.claims().collect();
    claims.sort_unstable();
    let id = *random.choice(&claims)?;
    let lease = view.replica.lease(id)?.offset;
    Some((id, lease - u64::from(random.u8(..8) == 0)))
}

fn proposes(view: &View, random: &mut fastrand::Rng) -> What {
    let lease = if view.rash { somebody(view, random) } else { random.choice(&view.overdue).copied() };
    lease.map_or(What::Barrier, |(claim, lease)| {
        let named = vec![Named { claim, lease }];
        // Whoever was rash may have waited, and be wrong; of one's silence everybody may speak.
        if random.bool() {
            What::Expire { leases: named, unanswered: Vec::new() }
        } else {
            What::Expire { leases: Vec::new(), unanswered: named }
        }
    })
}

fn suspects(view: &View, random: &mut fastrand::Rng) -> What {
    let lease = somebody(view, random);
    lease.map_or(What::Barrier, |(claim, lease)| What::Suspect { leases: vec![Named { claim, lease }] })
}
