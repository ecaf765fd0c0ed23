//! Random histories as a fair lock leaves them: all of them pass, and each single corruption is found.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use lockcore::Mode;

use super::{Act, Event, Options, Violation, check};

/// A moment in which nobody holds is shorter than this, as long as somebody waits.
const PROMPTLY: u64 = 1_000;

const FULL: Options =
    Options { fair: true, complete: true, drained_within: Some(Duration::from_nanos(PROMPTLY)) };

const HISTORIES: u64 = 1_000;

/// A lock that writes its own history.
struct Lock {
    random: Rng,
    now: u64,
    token: u64,
    attempts: u64,
    holders: Vec<(u64, Mode)>,
    waiters: Vec<(u64, Mode)>,
    events: Vec<Event>,
}

fn mode(random: &mut Rng) -> Mode {
    match random.u8(..5) {
        0..2 => Mode::Exclusive,
        2..4 => Mode::Shared,
        _ => Mode::Permit { at_most: NonZeroU32::new(2).unwrap() },
    }
}

/// Whether somebody may hold beside these.
fn may_join(holders: &[(u64, Mode)], mode: Mode) -> bool {
    let alike = holders.iter().all(|(_, held)| !held.is_exclusive() && held.bound() == mode.bound());
    let bound = usize::try_from(mode.bound()).unwrap_or(usize::MAX);
    holders.is_empty() || (!mode.is_exclusive() && alike && holders.len() < bound)
}

impl Lock {
    fn history(seed: u64) -> Vec<Event> {
        let random = Rng::with_seed(seed);
        let (holders, waiters, events) = (Vec::new(), Vec::new(), Vec::new());
        let mut lock = Lock { random, now: 0, token: 0, attempts: 0, holders, waiters, events };
        for _ in 0..40 {
            match lock.random.u8(..10) {
                0..4 => lock.somebody_asks(),
                4..8 => lock.a_holder_acts(),
                8 => lock.a_waiter_gives_up(),
                _ => lock.now += 10 * PROMPTLY,
            }
        }
        while !(lock.holders.is_empty() && lock.waiters.is_empty()) {
            lock.a_holder_acts();
        }
        lock.events
    }

    fn note(&mut self, attempt: u64, act: Act) {
        self.now += self.random.u64(1..20);
        self.events.push(Event { at: self.now, attempt, key: "k".into(), act });
    }

    fn somebody_asks(&mut self) {
        self.attempts += 1;
        let (attempt, mode) = (self.attempts, mode(&mut self.random));
        self.note(attempt, Act::Asked { mode });
        self.waiters.push((attempt, mode));
        self.grants();
        if self.waiters.iter().any(|&(waits, _)| waits == attempt) {
            self.note(attempt, Act::Queued);
        }
    }

    /// Lets in whoever stands first, as long as that is possible.
    fn grants(&mut self) {
        while let Some(&(attempt, mode)) = self.waiters.first()
            && may_join(&self.holders, mode)
        {
            self.waiters.remove(0);
            self.holders.push((attempt, mode));
            self.token += 10;
            let (token, floor) = (self.token, self.token - self.random.u64(..3));
            self.note(attempt, Act::Granted { token, floor, until: None });
        }
    }

    fn a_holder_acts(&mut self) {
        if self.holders.is_empty() {
            return;
        }
        let which = self.random.usize(..self.holders.len());
        let (attempt, _) = self.holders[which];
        if self.random.bool() {
            return self.note(attempt, Act::Wrote { accepted: true });
        }
        self.holders.remove(which);
        let act = if self.random.u8(..4) == 0 { Act::Lost } else { Act::Releasing };
        self.note(attempt, act);
        if self.random.bool() {
            self.note(attempt, Act::Released { too_late: false });
        }
        if self.random.u8(..4) == 0 {
            self.note(attempt, Act::ForeignRelease { released: false });
        }
        self.grants();
    }

    fn a_waiter_gives_up(&mut self) {
        if !self.waiters.is_empty() {
            let (attempt, _) = self.waiters.remove(self.random.usize(..self.waiters.len()));
            self.note(attempt, Act::GaveUp);
            self.grants();
        }
    }
}

/// What is known of an attempt that was granted.
#[derive(Clone, Copy)]
struct Held {
    attempt: u64,
    mode: Mode,
    asked: usize,
    queued: Option<usize>,
    granted: usize,
    ended: usize,
    token: u64,
}

fn ends(act: &Act) -> bool {
    matches!(act, Act::Lost | Act::Releasing | Act::Released { .. })
}

fn held(events: &[Event]) -> Vec<Held> {
    let of = |attempt: u64, is: &dyn Fn(&Act) -> bool| {
        events.iter().position(|event| event.attempt == attempt && is(&event.act))
    };
    let grant = |(granted, event): (usize, &Event)| {
        let Act::Granted { token, .. } = event.act else { return None };
        let attempt = event.attempt;
        let asked = of(attempt, &|act| matches!(act, Act::Asked { .. }))?;
        let Act::Asked { mode } = events[asked].act else { return None };
        let (queued, ended) = (of(attempt, &|act| *act == Act::Queued), of(attempt, &ends)?);
        Some(Held { attempt, mode, asked, queued, granted, ended, token })
    };
    events.iter().enumerate().filter_map(grant).collect()
}

fn set_token(events: &mut [Event], of: &Held, token: u64) {
    events[of.granted].act = Act::Granted { token, floor: 1, until: None };
}

/// Two of them, in the order of their grants, of which this holds.
fn pair(all: &[Held], random: &mut Rng, is: impl Fn(&Held, &Held) -> bool) -> Option<(Held, Held)> {
    let pairs =
        all.iter().enumerate().flat_map(|(at, one)| all[at + 1..].iter().map(move |two| (*one, *two)));
    random.choice(pairs.filter(|(one, two)| is(one, two)).collect::<Vec<_>>())
}

fn conflict(one: &Held, two: &Held) -> bool {
    (one.mode.is_exclusive() || two.mode.is_exclusive()) && one.ended < two.granted
}

/// What is done to a history, and what it is then found to be.
type Corruption =
    (&'static str, fn(&mut Vec<Event>, &[Held], &mut Rng) -> Option<()>, fn(&Violation) -> bool);

const CORRUPTIONS: [Corruption; 12] = [
    (
        "a token twice",
        |events, all, random| {
            let (one, two) = pair(all, random, |_, _| true)?;
            set_token(events, &two, one.token);
            Some(())
        },
        |found| matches!(found, Violation::TokenTwice { .. }),
    ),
    (
        "tokens of two that conflict, exchanged",
        |events, all, random| {
            let (one, two) = pair(all, random, conflict)?;
            set_token(events, &one, two.token);
            set_token(events, &two, one.token);
            Some(())
        },
        |found| matches!(found, Violation::TokenBack { .. }),
    ),
    (
        "a floor above its token",
        |events, all, random| {
            let one = random.choice(all)?;
            events[one.granted].act = Act::Granted { token: one.token, floor: one.token + 1, until: None };
            Some(())
        },
        |found| matches!(found, Violation::BadFloor { .. }),
    ),
    (
        "an end that comes after the next grant",
        |events, all, random| {
            let (one, two) = pair(all, random, conflict)?;
            let at = events[two.granted].at;
            events.retain(|event| event.attempt != one.attempt || !ends(&event.act));
            let after = events.iter().position(|event| event.attempt == two.attempt && is_grant(event))? + 1;
            let act = Act::Releasing;
            events.insert(after, Event { at, attempt: one.attempt, key: "k".into(), act });
            Some(())
        },
        |found| matches!(found, Violation::Overlap { .. } | Violation::TooMany { .. }),
    ),
    (
        "a permit too many",
        |events, all, random| {
            let permit = |held: &Held| held.mode.bound() == 2 && !held.mode.is_exclusive();
            let (_, two) =
                pair(all, random, |one, two| permit(one) && permit(two) && two.granted < one.ended)?;
            let (at, attempt, key) = (events[two.granted].at, u64::MAX, "k");
            let granted = Act::Granted { token: two.token + 1, floor: 1, until: None };
            let acts = [Act::Asked { mode: two.mode }, granted, Act::Releasing];
            let more = acts.into_iter().map(|act| Event { at, attempt, key: key.into(), act });
            let after = events.split_off(two.granted + 1);
            events.extend(more);
            events.extend(after);
            Some(())
        },
        |found| matches!(found, Violation::TooMany { .. }),
    ),
    (
        "tokens of two who queued, exchanged",
        |events, all, random| {
            let behind = |one: &Held, two: &Held| one.queued.is_some_and(|queued| queued < two.asked);
            let (one, two) = pair(all, random, behind)?;
            set_token(events, &one, two.token);
            set_token(events, &two, one.token);
            Some(())
        },
        |found| matches!(found, Violation::Overtaken { .. } | Violation::TokenBack { .. }),
    ),
    (
        "a lock that sleeps",
        |events, all, random| {
            // Nobody holds while it waits to be the next.
            let alone = |two: &&Held| {
                let before = all.iter().filter(|one| one.granted < two.granted);
                two.queued.is_some() && before.map(|one| one.ended).all(|ended| ended < two.granted)
            };
            let next = random.choice(all.iter().filter(alone).collect::<Vec<_>>())?;
            for event in &mut events[next.granted..] {
                event.at += 2 * PROMPTLY;
            }
            Some(())
        },
        |found| matches!(found, Violation::Asleep { .. }),
    ),
    (
        "no end",
        |events, all, random| {
            // The last one, else it would be another violation as well.
            let last = all.iter().max_by_key(|held| held.ended)?;
            let _ = random;
            events.retain(|event| event.attempt != last.attempt || !ends(&event.act));
            Some(())
        },
        |found| matches!(found, Violation::Unfinished { .. }),
    ),
    (
        "a foreign release that worked",
        |events, all, random| {
            let (at, one) = (events.last()?.at, random.choice(all)?);
            let act = Act::ForeignRelease { released: true };
            events.push(Event { at, attempt: one.attempt, key: "k".into(), act });
            Some(())
        },
        |found| matches!(found, Violation::ForeignRelease { .. }),
    ),
    (
        "a stale write",
        |events, all, random| {
            let wrote = Act::Wrote { accepted: true };
            let has_written =
                |held: &Held| events.iter().any(|event| event.attempt == held.attempt && event.act == wrote);
            let (one, _) = pair(all, random, |one, two| conflict(one, two) && has_written(two))?;
            let at = events.last()?.at;
            events.push(Event { at, attempt: one.attempt, key: "k".into(), act: wrote });
            Some(())
        },
        |found| matches!(found, Violation::StaleWrite { .. }),
    ),
    (
        "a grant that nobody asked for",
        |events, all, random| {
            let one = random.choice(all)?;
            events.remove(one.asked);
            Some(())
        },
        |found| matches!(found, Violation::Nonsense { .. }),
    ),
    (
        "a time that goes back",
        |events, all, random| {
            let one = random.choice(all)?;
            events[one.granted].at = events[one.asked].at.checked_sub(1)?;
            Some(())
        },
        |found| matches!(found, Violation::Nonsense { .. }),
    ),
];

fn is_grant(event: &Event) -> bool {
    matches!(event.act, Act::Granted { .. })
}

#[test]
fn what_a_fair_lock_leaves_passes() {
    let grants: usize = (0..HISTORIES).map(|seed| check(&Lock::history(seed), FULL).unwrap().grants).sum();
    assert!(grants > 5_000, "{grants}");
}

#[test]
fn each_single_corruption_is_found() {
    for (name, corrupt, is_it) in CORRUPTIONS {
        let mut corrupted = 0;
        for seed in 0..HISTORIES {
            let (mut events, mut random) = (Lock::history(seed), Rng::with_seed(seed));
            let all = held(&events);
            if corrupt(&mut events, &all, &mut random).is_none() {
                continue;
            }
            corrupted += 1;
            let shown = || events.iter().map(|event| event.to_json() + "\n").collect::<String>();
            match check(&events, FULL) {
                Ok(_) => panic!("{name}, seed {seed}, is not found:\n{}", shown()),
                Err(found) => assert!(is_it(&found), "{name}, seed {seed}: {found}\n{}", shown()),
            }
        }
        assert!(corrupted > 30, "{name}: only {corrupted} histories have room for it");
    }
}
