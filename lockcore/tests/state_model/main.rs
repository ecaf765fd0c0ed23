//! `LockState` against a naive model: the same commands must give the same answers, effects and snapshots. What the rules
//! promise about any history is checked besides, from the snapshots alone.

#![expect(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

mod model;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lockcore::state::{Effect, LockState, Moment};
use lockcore::{
    Attempt, BreakTarget, Claim, ClaimId, FORGET_AFTER, FencingToken, Key, Lease, Mode, Queue, Released,
};
use proptest::prelude::*;

use self::model::{Answer, Model, Told, View, bits, is_legal, micros};

const OWNERS: [&str; 2] = ["ann", "bob"];

/// A claim is named by its place in the list of the run. `lag` makes a request a late copy.
#[derive(Clone, Copy, Debug)]
enum Command {
    Acquire(usize, Queue),
    Renew { claim: usize, millis: u64, lag: u64 },
    Convert { claim: usize, to: Mode, lag: u64 },
    Release { claim: usize, answered: bool, only_waiting: bool },
    Break(Target),
    Sleep(u64),
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Claim(usize),
    /// The n-th holder.
    Token(usize),
    Owner(usize),
    Holders,
    All,
}

/// Holders by token and waiters in order.
type Shown = (Vec<View>, Vec<View>);

/// The model and the machine side by side.
#[derive(Clone)]
struct Pair {
    model: Model,
    lock: LockState,
    claims: Arc<[Arc<Claim>]>,
    step: u64,
    /// The largest token that was ever seen.
    largest: Option<u64>,
    /// Claims that have ended, and until when they must not come back.
    dead: BTreeMap<u128, u64>,
}

fn shown(info: &lockcore::ClaimInfo) -> View {
    let token = info.token.map(FencingToken::get);
    (info.id.to_bits(), info.mode, token, micros(info.age), micros(info.left), info.upgrading)
}

fn leased(lease: Lease) -> Answer {
    Answer::Granted {
        token: lease.fence.token.get(),
        floor: lease.fence.floor.get(),
        left: micros(lease.left),
    }
}

fn attempted(attempt: Attempt) -> Answer {
    match attempt {
        Attempt::Granted(lease) => leased(lease),
        Attempt::Queued(queued) => {
            Answer::Queued { left: micros(queued.left), recheck: queued.recheck.map(micros) }
        }
        Attempt::Busy => Answer::Busy,
        Attempt::Gone => Answer::Gone,
    }
}

fn told(effect: &Effect) -> Told {
    match effect {
        Effect::Ended { claim, ending } => Told::Ended(bits(claim), *ending as u8),
        Effect::Granted { claim, fence } => Told::Granted(bits(claim), fence.token.get(), fence.floor.get()),
    }
}

/// The ended in any order, then the granted in theirs.
fn sorted(told: Vec<Told>) -> Vec<Told> {
    let (mut ended, granted): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|each| matches!(each, Told::Ended(..)));
    ended.sort();
    ended.into_iter().chain(granted).collect()
}

impl Pair {
    fn new(claims: Vec<Arc<Claim>>) -> Pair {
        let model = Model { now: 1_000, ..Model::default() };
        Pair {
            model,
            lock: LockState::default(),
            claims: claims.into(),
            step: 0,
            largest: None,
            dead: BTreeMap::new(),
        }
    }

    fn now(&self) -> Moment {
        Moment::from_micros(self.model.now)
    }

    /// What both show now; on copies, so that each command meets what has expired since the last by itself.
    fn look(&self) -> Shown {
        let snapshot = self.lock.clone().inspect(self.now(), &mut Vec::new());
        let all = |infos: &[lockcore::ClaimInfo]| infos.iter().map(shown).collect::<Vec<View>>();
        let seen = (all(&snapshot.holders), all(&snapshot.waiters));
        let mut model = self.model.clone();
        model.tidy();
        let (mut holders, waiters): (Vec<View>, Vec<View>) =
            model.rows.iter().map(|row| model.view(row)).partition(|view| view.2.is_some());
        holders.sort_by_key(|view| view.2);
        assert_eq!(seen, (holders, waiters));
        seen
    }

    /// Gives both the command, and compares all that can be seen.
    fn run(&mut self, command: Command) {
        let before = self.look();
        self.step += 1;
        self.largest = before.0.iter().filter_map(|view| view.2).max().max(self.largest);
        let mut effects = Vec::new();
        let (answer, expected) = self.command(command, &before, &mut effects);
        assert_eq!(answer, expected, "{command:?}");
        let told: Vec<Told> = effects.iter().map(told).collect();
        assert_eq!(sorted(told.clone()), sorted(std::mem::take(&mut self.model.told)), "{command:?}");
        assert_eq!(self.lock.last_token(), self.model.last_token);
        let earliest = self.model.rows.iter().map(|row| row.expires).min();
        assert_eq!(self.lock.next_expiry().map(Moment::as_micros), earliest);
        assert_eq!(self.lock.is_in_use(), !self.model.rows.is_empty());
        assert_eq!(self.lock.is_idle(), self.model.rows.is_empty() && self.model.remembered.is_empty());

        let until = self.model.now + micros(FORGET_AFTER);
        if let Command::Release { claim, answered: false, only_waiting } = command
            && !(only_waiting && matches!(answer, Answer::Granted { .. }))
        {
            self.dead.insert(bits(&self.claims[claim]), until);
        }
        let ended =
            told.iter().filter_map(|each| if let Told::Ended(id, _) = each { Some(*id) } else { None });
        self.dead.extend(ended.map(|id| (id, until)));
        if !matches!(command, Command::Sleep(_)) {
            self.check(&before, &self.look());
        }
    }

    fn command(&mut self, command: Command, before: &Shown, effects: &mut Vec<Effect>) -> (Answer, Answer) {
        if let Command::Sleep(micros) = command {
            self.model.now += micros;
            return (Answer::Busy, Answer::Busy);
        }
        self.model.tidy();
        let (now, step, claims) = (self.now(), self.step, self.claims.clone());
        let (model, lock) = (&mut self.model, &mut self.lock);
        match command {
            Command::Acquire(claim, queue) => {
                let answer = attempted(lock.acquire(now, &claims[claim], queue, effects));
                (answer, model.acquire(&claims[claim], queue))
            }
            Command::Renew { claim, millis, lag } => {
                let (id, ttl, order) =
                    (claims[claim].id(), Duration::from_millis(millis), step.saturating_sub(lag));
                let answer = lock.renew(now, id, ttl, order, effects).map_or_else(Answer::Refused, leased);
                (answer, model.renew(id.to_bits(), micros(ttl), order))
            }
            Command::Convert { claim, to, lag } => {
                let (id, order) = (claims[claim].id(), step.saturating_sub(lag));
                let answer =
                    lock.convert(now, id, to, order, effects).map_or_else(Answer::Refused, attempted);
                (answer, model.convert(id.to_bits(), to, order))
            }
            Command::Release { claim, answered, only_waiting } => {
                let id = claims[claim].id();
                let answer = match lock.release(now, id, answered, only_waiting, effects) {
                    Released::Released => Answer::Released,
                    Released::NotHeld => Answer::NotHeld,
                    Released::Granted(lease) => leased(lease),
                };
                (answer, model.release(id.to_bits(), answered, only_waiting))
            }
            Command::Break(target) => {
                let nth = |n: usize| {
                    before.0.get(n % before.0.len().max(1)).and_then(|view| FencingToken::new(view.2?))
                };
                let target = match target {
                    Target::Claim(claim) => BreakTarget::Claim(claims[claim].id()),
                    Target::Token(n) => BreakTarget::Token(nth(n).unwrap_or(FencingToken::FIRST)),
                    Target::Owner(n) => BreakTarget::Owner(OWNERS[n].into()),
                    Target::Holders => BreakTarget::Holders,
                    Target::All => BreakTarget::All,
                };
                let mut broken: Vec<View> =
                    lock.break_claims(now, &target, effects).iter().map(shown).collect();
                let holders = broken.iter().take_while(|view| view.2.is_some()).count();
                broken[holders..].sort_by_key(|view| view.0);
                (Answer::Broken(broken), model.break_claims(&target))
            }
            Command::Sleep(_) => unreachable!("slept above"),
        }
    }

    /// What holds after any command, whatever the model says.
    fn check(&self, before: &Shown, after: &Shown) {
        let (holders, waiters) = after;
        let modes: Vec<Mode> = holders.iter().map(|view| view.1).collect();
        assert!(is_legal(&modes), "conflicting holders");
        assert!(holders.iter().chain(waiters).all(|view| view.4 > 0), "an expired claim is shown");
        let is_dead = |view: &&View| self.dead.get(&view.0).is_some_and(|&until| until > self.model.now);
        assert_eq!(holders.iter().chain(waiters).find(is_dead), None, "an ended claim came back");

        let mut upgrading = holders.iter().filter(|view| view.5);
        if let Some(one) = upgrading.next() {
            assert!(
                upgrading.next().is_none() && !one.1.is_exclusive() && holders.len() > 1,
                "a lost upgrade"
            );
        } else if let Some(first) = waiters.first() {
            assert!(!is_legal(&[&modes[..], &[first.1]].concat()), "a lost hand-over");
        }

        let is_among = |views: &[View], id: u128| views.iter().any(|view| view.0 == id);
        let stayed = |view: &&View| is_among(&before.1, view.0) && is_among(waiters, view.0);
        let ids = |views: &[View]| views.iter().filter(stayed).map(|view| view.0).collect::<Vec<_>>();
        assert_eq!(ids(&before.1), ids(waiters), "waiters changed places");

        for granted in
            holders.iter().filter(|view| before.0.iter().all(|old| (old.0, old.2) != (view.0, view.2)))
        {
            assert!(granted.2 > self.largest, "a token that is not larger");
            let place = before.1.iter().position(|view| view.0 == granted.0);
            let took_over = self.claims.iter().any(|claim| bits(claim) == granted.0 && claim.take_over());
            if !took_over && !is_among(&before.0, granted.0) {
                let ahead = &before.1[..place.unwrap_or(before.1.len())];
                assert!(
                    ahead.iter().all(|view| !is_among(waiters, view.0)),
                    "granted past an earlier waiter"
                );
            }
        }
    }
}

fn claim(
    (id, mode, owner, takes_over, ttl, waiter_ttl): (u128, Mode, Option<usize>, bool, u64, u64),
) -> Arc<Claim> {
    let claim = Claim::new(Key::new("k").unwrap(), mode, Duration::from_millis(ttl))
        .with_id(ClaimId::from_bits(id))
        .with_owner(owner.map(|n| OWNERS[n].into()))
        .with_waiter_ttl(Duration::from_millis(waiter_ttl))
        .taking_over(takes_over && owner.is_some());
    Arc::new(claim)
}

fn at_most(n: u32) -> Mode {
    Mode::Permit { at_most: NonZeroU32::new(n).unwrap() }
}

fn modes(bounds: std::ops::Range<u32>) -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared), bounds.prop_map(at_most)]
}

fn commands(claims: usize) -> impl Strategy<Value = Command> {
    let lag = || prop_oneof![3 => Just(0), 1 => 1..20_u64];
    let queue = prop_oneof![3 => Just(Queue::Join), 1 => Just(Queue::Never)];
    let target = prop_oneof![
        6 => (0..claims).prop_map(Target::Claim),
        3 => (0..claims).prop_map(Target::Token),
        2 => (0..OWNERS.len()).prop_map(Target::Owner),
        1 => Just(Target::Holders),
        1 => Just(Target::All),
    ];
    let release = (0..claims, any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(claim, answered, only_waiting)| Command::Release { claim, answered, only_waiting });
    prop_oneof![
        16 => (0..claims, queue).prop_map(|(claim, queue)| Command::Acquire(claim, queue)),
        5 => (0..claims, 1..20_u64, lag()).prop_map(|(claim, millis, lag)| Command::Renew { claim, millis, lag }),
        8 => (0..claims, modes(1..4), lag()).prop_map(|(claim, to, lag)| Command::Convert { claim, to, lag }),
        8 => release,
        2 => target.prop_map(Command::Break),
        6 => prop::sample::select(vec![0, 1, 999, 1_000, 4_000, 4_999, 5_000, 10_000, 20_000]).prop_map(Command::Sleep),
        1 => prop::sample::select(vec![3_599_999_999, 3_600_000_000]).prop_map(Command::Sleep),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn a_few_claims_behave_as_the_model(
        specs in prop::collection::vec(
            (modes(1..4), prop::option::of(0..2_usize), any::<bool>(), 1..20_u64, 1..12_u64), 7),
        commands in prop::collection::vec(commands(7), 1..60),
    ) {
        let spec = |(id, (mode, owner, takes, ttl, wait))| claim((id, mode, owner, takes, ttl, wait));
        let mut pair = Pair::new((1..).zip(specs).map(spec).collect());
        for command in commands {
            pair.run(command);
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    /// More than 32 hold, and more than 32 wait: both rosters keep an index.
    #[test]
    fn a_crowd_behaves_as_the_model(
        readers in prop::collection::vec(prop_oneof![Just(Mode::Shared), (36..50_u32).prop_map(at_most)], 45),
        others in prop::collection::vec(modes(2..50), 45),
        owners in prop::collection::vec((prop::option::weighted(0.3, 0..2_usize), prop::bool::weighted(0.1)), 90),
        commands in prop::collection::vec(commands(90), 1..150),
    ) {
        let modes = readers.into_iter().chain([Mode::Exclusive]).chain(others);
        let claims = (1..).zip(modes.zip(owners)).map(|(id, (mode, (owner, takes)))| {
            claim((id, mode, owner, takes && id > 46, 100 + u64::try_from(id).unwrap() % 7, 50))
        });
        let mut pair = Pair::new(claims.collect());
        for n in 0..90 {
            pair.run(Command::Acquire(n, Queue::Join));
        }
        for command in commands {
            pair.run(command);
        }
    }
}

/// Runs every sequence of so many commands on from here, and counts them.
fn explore(pair: &Pair, alphabet: &[Command], depth: u32) -> u64 {
    let Some(deeper) = depth.checked_sub(1) else { return 1 };
    let follow = |&command: &Command| {
        let mut next = pair.clone();
        next.run(command);
        explore(&next, alphabet, deeper)
    };
    alphabet.iter().map(follow).sum()
}

#[test]
fn every_short_history_of_three_claims_behaves_as_the_model() {
    let mut alphabet = vec![Command::Sleep(5_000), Command::Break(Target::Token(0))];
    for claim in 0..3 {
        alphabet.push(Command::Acquire(claim, Queue::Join));
        alphabet.push(Command::Acquire(claim, Queue::Never));
        alphabet.push(Command::Release { claim, answered: false, only_waiting: false });
        alphabet.push(Command::Convert { claim, to: Mode::Exclusive, lag: 0 });
        alphabet.push(Command::Convert { claim, to: Mode::Shared, lag: 0 });
    }
    for modes in [
        [Mode::Exclusive, Mode::Exclusive, Mode::Exclusive],
        [Mode::Shared, Mode::Shared, Mode::Exclusive],
        [Mode::Shared, Mode::Exclusive, Mode::Shared],
        [at_most(2), Mode::Shared, at_most(2)],
    ] {
        let [first, second, third] = modes;
        let claims = [
            (1, first, Some(0), false, 9, 5),
            (2, second, Some(1), false, 9, 5),
            (3, third, Some(0), true, 9, 5),
        ];
        let mut pair = Pair::new(claims.map(claim).to_vec());
        pair.run(Command::Acquire(0, Queue::Join));
        let seen = explore(&pair, &alphabet, 4);
        assert_eq!(seen, 17_u64.pow(4));
    }
}
