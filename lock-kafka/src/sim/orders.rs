//! Every order in which the records of two or three clients can reach the log, each of them once, twice or never.
//!
//! What differs between two runs is which record is sent or arrives next, and when time passes. All choices are played,
//! except those that lead to what was seen before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use lockcore::state::Effect;
use lockcore::{Attempt, Claim, ClaimId, Key, Mode, Queue, Released};

use crate::fold::{Answer, Replica};
use crate::record::{Id, Read, Record};
use crate::what::{Genesis, Join, LetGo, Named, Renew, What};

const TTL: Duration = Duration::from_secs(10);

/// A lease is over when this much has passed: one step of time.
const TICK: u64 = 11_000_000;

/// What a client does, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Begins a session.
    Open,
    /// Ends it.
    Close,
    Join,
    Renew,
    /// Lets go, whatever it was told.
    Leave,
    /// Proposes that the lease of this client's claim is over, if it has waited for as long.
    Expire(usize),
}

/// How often a record arrives.
const COPIES: u8 = 2;

#[derive(Clone)]
struct Sent {
    record: Record,
    at: u64,
    arrived: u8,
    /// One of the copies counted: its client was answered.
    counted: bool,
}

#[derive(Clone)]
struct State {
    replica: Replica,
    offset: u64,
    ticks: u64,
    /// What each client has sent.
    sent: Vec<Vec<Sent>>,
    /// When the record at each offset was appended.
    appended: Vec<u64>,
    /// Who believes to hold, and until when.
    believed: BTreeMap<ClaimId, u64>,
    /// Whose release has counted.
    gone: BTreeSet<ClaimId>,
}

/// What is done next.
#[derive(Clone, Copy, Debug)]
enum Move {
    Tick,
    Send(usize),
    Arrive(usize, usize),
}

struct Play<'p> {
    scripts: &'p [&'p [Step]],
    ticks: u64,
    seen: HashSet<u64>,
}

fn claim_of(client: usize) -> ClaimId {
    ClaimId::from_bits(100 + u128::try_from(client).unwrap())
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn genesis() -> Genesis {
    let crate::Settings { window, .. } = crate::Settings::default();
    Genesis {
        incarnation: Id::from_bits(1),
        partitions: 1,
        partition: 0,
        margin_us: TICK * 100,
        grace_us: TICK,
        step_us: TICK,
        checkpoint_every: 1_000_000.try_into().unwrap(),
        window,
    }
}

/// Plays all orders from when so many records of each client have arrived; how many states there are.
fn play_all(scripts: &[&[Step]], ticks: u64, arrived: usize) -> usize {
    let mut begun = State {
        replica: Replica::default(),
        offset: 0,
        ticks: 0,
        sent: vec![Vec::new(); scripts.len()],
        appended: Vec::new(),
        believed: BTreeMap::new(),
        gone: BTreeSet::new(),
    };
    begun.append(&Record::new(Id::from_bits(1), 0, What::Genesis(genesis())), 0);
    let mut play = Play { scripts, ticks, seen: HashSet::new() };
    for client in 0..scripts.len() {
        for which in 0..arrived {
            play.make(&mut begun, Move::Send(client));
            play.make(&mut begun, Move::Arrive(client, which));
            begun.sent[client][which].arrived = COPIES;
        }
    }
    let mut open = vec![(begun, Vec::new())];
    while let Some((state, done)) = open.pop() {
        for next in play.moves(&state) {
            let (mut state, mut done): (State, Vec<Move>) = (state.clone(), done.clone());
            done.push(next);
            play.make(&mut state, next);
            if let Some(wrong) = state.wrong() {
                panic!("{wrong}\n  in this order: {done:?}");
            }
            if play.seen.insert(state.fingerprint()) {
                open.push((state, done));
            }
        }
    }
    play.seen.len()
}

impl Play<'_> {
    fn moves(&self, state: &State) -> Vec<Move> {
        let mut moves = Vec::new();
        if state.ticks < self.ticks {
            moves.push(Move::Tick);
        }
        for (client, sent) in state.sent.iter().enumerate() {
            match self.scripts[client].get(sent.len()) {
                Some(Step::Expire(of)) if state.overdue(*of).is_none() => {}
                Some(_) => moves.push(Move::Send(client)),
                None => {}
            }
            let may_arrive = sent.iter().enumerate().filter(|(_, sent)| sent.arrived < COPIES);
            moves.extend(may_arrive.map(|(which, _)| Move::Arrive(client, which)));
        }
        moves
    }

    fn make(&self, state: &mut State, next: Move) {
        match next {
            Move::Tick => state.ticks += 1,
            Move::Send(client) => {
                let step = self.scripts[client][state.sent[client].len()];
                let record = state.write(client, step);
                if step == Step::Leave {
                    state.believed.remove(&claim_of(client));
                }
                let at = state.ticks;
                state.sent[client].push(Sent { record, at, arrived: 0, counted: false });
            }
            Move::Arrive(client, which) => {
                let sent = &mut state.sent[client][which];
                sent.arrived += 1;
                let (record, at) = (sent.record.clone(), sent.at);
                state.sent[client][which].counted |= state.append(&record, at);
            }
        }
    }
}

impl State {
    /// The lease of this client's claim, if somebody has waited for as long as it is.
    fn overdue(&self, client: usize) -> Option<Named> {
        let claim = claim_of(client);
        let lease = self.replica.lease(claim)?.offset;
        let since = self.appended[usize::try_from(lease).unwrap()];
        (self.ticks > since).then_some(Named { claim, lease })
    }

    fn write(&self, client: usize, step: Step) -> Record {
        let before = &self.sent[client];
        let opens = before.iter().filter(|sent| matches!(sent.record.what, What::Open { .. })).count();
        let session = opens + usize::from(step == Step::Open);
        let session = Id::from_bits(u128::try_from(10 * (client + 1) + session).unwrap());
        let seq = before.iter().filter(|sent| sent.record.session == session).count();
        let claim = claim_of(client);
        let what = match step {
            Step::Open => genesis().open(1),
            Step::Close => What::Close,
            Step::Join => {
                let wanted = Claim::new(key(), Mode::Exclusive, TTL).with_id(claim).with_waiter_ttl(TTL);
                What::Acquire(Join::of(&wanted, Queue::Join))
            }
            Step::Renew => What::Heartbeat { renew: vec![Renew { claim, ttl_us: 10_000_000, order: 1 }] },
            Step::Leave => {
                let mut joins = before.iter().filter(|sent| matches!(sent.record.what, What::Acquire(_)));
                let answered = joins.all(|sent| sent.counted);
                What::Release(LetGo { identifier: key(), claim, answered, only_waiting: false })
            }
            Step::Expire(of) => {
                What::Expire { leases: self.overdue(of).into_iter().collect(), unanswered: Vec::new() }
            }
        };
        Record::new(session, seq.try_into().unwrap(), what)
    }

    /// Appends a record; whether it counted.
    fn append(&mut self, record: &Record, sent: u64) -> bool {
        let stamp = 1_700_000_000_000_000 + self.ticks * TICK;
        let read = Read::Record(Box::new(record.clone()));
        let folded = self.replica.apply_read(self.offset, stamp, &read).unwrap();
        self.offset += 1;
        self.appended.push(self.ticks);
        let until = sent + 1;
        match (&record.what, &folded.answer) {
            (What::Acquire(join), Answer::Attempt(Attempt::Granted(_))) if !self.has_left(join.claim) => {
                self.believed.insert(join.claim, until);
            }
            (What::Heartbeat { renew }, Answer::Renewed(renewed)) => {
                let claim = renew[0].claim;
                if renewed[0].is_ok() && !self.has_left(claim) {
                    self.believed.insert(claim, until);
                }
            }
            (What::Release(let_go), Answer::Released(released)) => {
                assert!(!matches!(released, Released::Granted(_)));
                self.gone.insert(let_go.claim);
            }
            _ => {}
        }
        for effect in folded.effects {
            if let Effect::Granted { claim, .. } = effect
                && !self.has_left(claim.id())
            {
                // It counts from its last record that was read.
                let until = self.replica.lease(claim.id()).map_or(0, |lease| lease.stamp / TICK);
                let begun = 1_700_000_000_000_000 / TICK;
                self.believed.insert(claim.id(), until.saturating_sub(begun) + 1);
            }
        }
        !matches!(folded.answer, Answer::NotCounted)
    }

    /// Whether its client has sent the release.
    fn has_left(&self, id: ClaimId) -> bool {
        let is_release =
            |sent: &Sent| matches!(&sent.record.what, What::Release(let_go) if let_go.claim == id);
        self.sent.iter().flatten().any(is_release)
    }

    fn wrong(&self) -> Option<String> {
        let inside: Vec<_> = self.believed.iter().filter(|&(_, &until)| self.ticks < until).collect();
        if inside.len() > 1 {
            return Some(format!("these believe to be inside: {inside:?}"));
        }
        let ghost = self.gone.iter().find(|&&id| self.replica.lease(id).is_some());
        ghost.map(|ghost| format!("{ghost} was let go, and is there"))
    }

    fn fingerprint(&self) -> u64 {
        let image = serde_json::to_string(&self.replica.image()).unwrap();
        let sent: Vec<_> =
            self.sent.iter().flatten().map(|sent| (sent.at, sent.arrived, sent.counted)).collect();
        let sent = (sent, self.sent.iter().map(Vec::len).collect::<Vec<_>>());
        let text = format!("{image} {sent:?} {} {:?} {:?}", self.ticks, self.believed, self.gone);
        crate::checkpoint::Hash::of(text.as_bytes()).get()
    }
}

#[test]
fn nothing_comes_back_after_it_was_cancelled_in_any_order() {
    use Step::{Close, Join, Leave, Open};
    let states = [
        play_all(&[&[Open, Join, Leave], &[Open, Join]], 0, 0),
        play_all(&[&[Open, Join, Open, Leave]], 0, 0),
        play_all(&[&[Open, Join, Close, Open, Leave]], 0, 0),
    ];
    println!("{states:?} states");
}

#[test]
fn three_who_have_begun_exclude_each_other_in_any_order() {
    use Step::{Expire, Join, Leave, Open, Renew};
    let states = [
        play_all(&[&[Open, Join, Leave], &[Open, Join], &[Open, Join]], 0, 1),
        play_all(&[&[Open, Join, Renew], &[Open, Join], &[Open, Expire(0)]], 2, 1),
    ];
    println!("{states:?} states");
}

#[test]
fn a_lease_ends_only_when_nobody_counts_on_it_in_any_order() {
    use Step::{Expire, Join, Open, Renew};
    let states = play_all(&[&[Open, Join, Renew], &[Open, Expire(0), Join]], 2, 1);
    println!("{states} states");
}
