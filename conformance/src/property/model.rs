//! The backend and the state machine side by side.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use lockcore::state::{LockState, Moment, Refusal};
use lockcore::{
    Attempt, BreakTarget, Claim, ClaimInfo, Conversion, Error, ErrorKind, Fence, FencingToken, Key, Lease,
    Queue, Release, Released, Renewal, Snapshot,
};
use tokio::time::{Instant, sleep};

use super::command::{Command, KEYS, Length, OWNERS, Shape, Target};
use crate::harness::{Client, Timing};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::LONG;

/// The backend and the state machine, given the same commands.
pub(super) struct Both {
    backend: Client,
    timing: Timing,
    step: Duration,
    start: Instant,
    /// The model's clock stands still between two steps of time.
    now: Moment,
    keys: Vec<Key>,
    states: Vec<LockState>,
    claims: Vec<Arc<Claim>>,
    /// Of each key: the tokens of the model, and what the backend gave in their place.
    tokens: Vec<BTreeMap<FencingToken, FencingToken>>,
    /// The number of the last renewal or conversion of each claim.
    orders: Vec<u64>,
}

impl Both {
    pub(super) fn new(timing: Timing, backend: Client, shapes: &[Shape]) -> Outcome<Both> {
        let run = fastrand::u64(..);
        let keys: Vec<Key> =
            (0..KEYS).map(|key| Key::new(format!("p-{run:016x}/{key}"))).collect::<Result<_, _>>()?;
        let mut both = Both {
            step: backend.capabilities().ttl_step,
            backend,
            timing,
            start: Instant::now(),
            now: Moment::from_micros(1_000_000),
            keys,
            states: vec![LockState::default(); KEYS],
            claims: Vec::new(),
            tokens: vec![BTreeMap::new(); KEYS],
            orders: vec![10; shapes.len()],
        };
        for shape in shapes {
            let claim = Claim::new(both.keys[shape.key].clone(), shape.mode, both.length(shape.ttl))
                .with_owner(shape.owner.map(|owner| OWNERS[owner].into()))
                .with_waiter_ttl(both.length(shape.waiter_ttl))
                .taking_over(shape.take_over);
            both.claims.push(Arc::new(claim));
        }
        Ok(both)
    }

    /// A short lease is over between the first step of time after it was set and the second.
    fn length(&self, length: Length) -> Duration {
        match length {
            Length::Short => self.timing.unit * 3 / 2,
            Length::Long => self.timing.unit * LONG,
        }
    }

    fn key_of(&self, claim: &Claim) -> usize {
        self.keys.iter().position(|key| key == claim.key()).unwrap_or_default()
    }

    /// Plays one command on both, and compares their answers.
    pub(super) async fn play(&mut self, command: Command) -> Outcome {
        match command {
            Command::Acquire { claim, queue } => self.acquire(claim, queue).await,
            Command::Renew { claim, ttl, late } => self.renew(claim, self.length(ttl), late).await,
            Command::Convert { claim, to, late } => self.convert(claim, to, late).await,
            Command::Release { claim, answered, only_waiting } => {
                self.release(claim, answered, only_waiting).await
            }
            Command::Break { key, target } => self.break_claims(key, target).await,
            Command::Inspect { key } => self.inspect(key).await,
            Command::Step => {
                sleep(self.timing.unit).await;
                self.time_passes(Moment::from_micros(1_000_000).after(self.start.elapsed()));
                Ok(())
            }
        }
    }

    /// The model hands over when the server does: when a lease is over, or when it is asked next.
    fn time_passes(&mut self, now: Moment) {
        if self.timing.hands_over_at_once {
            for state in &mut self.states {
                while let Some(over) = state.next_expiry().filter(|&over| over <= now) {
                    state.expire(over, &mut Vec::new());
                }
            }
        }
        self.now = now;
    }

    /// Looks at all keys once more.
    pub(super) async fn compare_all(&mut self) -> Outcome {
        for key in 0..KEYS {
            self.inspect(key).await?;
        }
        Ok(())
    }

    async fn acquire(&mut self, claim: usize, queue: Queue) -> Outcome {
        let claim = self.claims[claim].clone();
        let key = self.key_of(&claim);
        let answer = self.backend.clone().acquire(claim.clone(), queue).await?;
        self.in_time()?;
        let expected = self.states[key].acquire(self.now, &claim, queue, &mut Vec::new());
        self.attempt(key, answer, expected)
    }

    async fn renew(&mut self, claim: usize, ttl: Duration, late: u64) -> Outcome {
        let order = self.next_order(claim, late);
        let claim = self.claims[claim].clone();
        let key = self.key_of(&claim);
        let answer =
            self.backend.clone().renew(vec![Renewal { claim: claim.clone(), ttl, order }]).await.pop();
        self.in_time()?;
        let expected = self.states[key].renew(self.now, claim.id(), ttl, order, &mut Vec::new());
        match (answer, expected) {
            (Some(Ok(answer)), Ok(expected)) => self.lease(key, answer, expected),
            (Some(Err(answer)), Err(expected)) => same_refusal(&answer, expected),
            (answer, expected) => differ(answer, expected),
        }
    }

    async fn convert(&mut self, claim: usize, to: lockcore::Mode, late: u64) -> Outcome {
        let order = self.next_order(claim, late);
        let claim = self.claims[claim].clone();
        let key = self.key_of(&claim);
        let answer = self.backend.clone().convert(Conversion { claim: claim.clone(), to, order }).await;
        self.in_time()?;
        let expected = self.states[key].convert(self.now, claim.id(), to, order, &mut Vec::new());
        match (answer, expected) {
            (Ok(answer), Ok(expected)) => self.attempt(key, answer, expected),
            (Err(answer), Err(expected)) => same_refusal(&answer, expected),
            (answer, expected) => differ(answer, expected),
        }
    }

    async fn release(&mut self, claim: usize, answered: bool, only_waiting: bool) -> Outcome {
        let claim = self.claims[claim].clone();
        let key = self.key_of(&claim);
        let release = Release { claim: claim.clone(), answered, only_waiting };
        let answer = self.backend.clone().release(vec![release]).await.pop();
        self.in_time()?;
        let expected =
            self.states[key].release(self.now, claim.id(), answered, only_waiting, &mut Vec::new());
        match (answer, expected) {
            (Some(Ok(Released::Granted(answer))), Released::Granted(expected)) => {
                self.lease(key, answer, expected)
            }
            (Some(Ok(answer)), expected) if answer == expected => Ok(()),
            (answer, expected) => differ(answer, expected),
        }
    }

    async fn break_claims(&mut self, key: usize, target: Target) -> Outcome {
        let (theirs, ours) = match target {
            Target::Claim(claim) => same(BreakTarget::Claim(self.claims[claim].id())),
            Target::Owner(owner) => same(BreakTarget::Owner(OWNERS[owner].into())),
            Target::Holders => same(BreakTarget::Holders),
            Target::All => same(BreakTarget::All),
            Target::Token(position) => {
                let (theirs, ours) = self.token_of(key, position);
                (BreakTarget::Token(theirs), BreakTarget::Token(ours))
            }
        };
        let answer = self.backend.clone().break_claims(self.keys[key].clone(), theirs).await?;
        self.in_time()?;
        let expected = self.states[key].break_claims(self.now, &ours, &mut Vec::new());
        // Holders are in the order of their tokens; the order of waiters that were broken together means nothing.
        let sorted = |mut infos: Vec<ClaimInfo>| {
            infos.sort_by_key(|info| (info.token.is_none(), info.token, info.id));
            infos
        };
        self.infos(key, &sorted(answer), &sorted(expected))
    }

    async fn inspect(&mut self, key: usize) -> Outcome {
        let answer = self.backend.clone().inspect(self.keys[key].clone()).await?;
        self.in_time()?;
        let expected: Snapshot = self.states[key].inspect(self.now, &mut Vec::new());
        self.infos(key, &answer.holders, &expected.holders)?;
        self.infos(key, &answer.waiters, &expected.waiters)
    }

    /// The token of the holder at this position, in both worlds; one that nobody has when there is none.
    fn token_of(&self, key: usize, position: usize) -> (FencingToken, FencingToken) {
        let holders = self.states[key].clone().inspect(self.now, &mut Vec::new()).holders;
        let ours = holders.get(position).and_then(|info| info.token);
        ours.and_then(|ours| self.tokens[key].get(&ours).map(|&theirs| (theirs, ours)))
            .unwrap_or((FencingToken::FIRST, FencingToken::FIRST))
    }

    /// The number of the next request of a claim, or that of one so many before the last.
    fn next_order(&mut self, claim: usize, late: u64) -> u64 {
        if late > 0 {
            return self.orders[claim] - late;
        }
        self.orders[claim] += 1;
        self.orders[claim]
    }

    /// The commands since the last step of time must not have taken so long that a lease of the backend is over sooner
    /// than the model's.
    fn in_time(&self) -> Outcome {
        let behind = Moment::from_micros(1_000_000).after(self.start.elapsed()).since(self.now);
        if behind > self.timing.unit / 3 {
            return Err(Stop::Skipped("the machine was too slow for this sequence".into()));
        }
        Ok(())
    }

    fn attempt(&mut self, key: usize, answer: Attempt, expected: Attempt) -> Outcome {
        match (answer, expected) {
            (Attempt::Granted(answer), Attempt::Granted(expected)) => self.lease(key, answer, expected),
            (Attempt::Queued(answer), Attempt::Queued(expected)) => self.left(answer.left, expected.left),
            (answer, expected) if answer == expected => Ok(()),
            (answer, expected) => differ(answer, expected),
        }
    }

    fn lease(&mut self, key: usize, answer: Lease, expected: Lease) -> Outcome {
        self.fence(key, answer.fence, expected.fence)?;
        self.left(answer.left, expected.left)
    }

    fn fence(&mut self, key: usize, answer: Fence, expected: Fence) -> Outcome {
        self.token(key, answer.token, expected.token)?;
        // The floor may be a token of which nothing was heard yet: that of a hand-over.
        self.token(key, answer.floor, expected.floor)
    }

    /// The same tokens for the same grants, in the same order.
    fn token(&mut self, key: usize, answer: FencingToken, expected: FencingToken) -> Outcome {
        let tokens = &mut self.tokens[key];
        let known = *tokens.entry(expected).or_insert(answer);
        ensure_eq!(answer, known, "the token of one grant, asked twice");
        let before = tokens.range(..expected).next_back();
        let after = tokens.range(expected..).nth(1);
        ensure!(before.is_none_or(|(_, &before)| before < answer), "token {answer} after {before:?}");
        ensure!(after.is_none_or(|(_, &after)| answer < after), "token {answer} before {after:?}");
        Ok(())
    }

    fn left(&self, answer: Duration, expected: Duration) -> Outcome {
        let tolerance = if self.timing.exact { self.step } else { self.timing.unit / 2 };
        ensure!(answer.abs_diff(expected) <= tolerance, "{answer:?} are left, not {expected:?}");
        Ok(())
    }

    fn infos(&mut self, key: usize, answer: &[ClaimInfo], expected: &[ClaimInfo]) -> Outcome {
        let all = |infos: &[ClaimInfo]| {
            let one = |info: &ClaimInfo| {
                (info.id, info.mode, info.owner.clone(), info.token.is_some(), info.upgrading)
            };
            infos.iter().map(one).collect::<Vec<_>>()
        };
        ensure_eq!(all(answer), all(expected), "the claims that are shown");
        for (answer, expected) in answer.iter().zip(expected) {
            if let (Some(answer), Some(expected)) = (answer.token, expected.token) {
                self.token(key, answer, expected)?;
            }
            self.left(answer.left, expected.left)?;
            let tolerance = if self.timing.exact { Duration::ZERO } else { self.timing.unit / 2 };
            let apart = answer.age.abs_diff(expected.age);
            ensure!(apart <= tolerance, "an age of {:?}, not {:?}", answer.age, expected.age);
        }
        Ok(())
    }
}

fn same(target: BreakTarget) -> (BreakTarget, BreakTarget) {
    (target.clone(), target)
}

fn same_refusal(answer: &Error, expected: Refusal) -> Outcome {
    let kind = match expected {
        Refusal::Lost => ErrorKind::Lost,
        Refusal::WouldDeadlock => ErrorKind::WouldDeadlock,
        Refusal::Unsupported => ErrorKind::Unsupported,
    };
    ensure_eq!(answer.kind(), kind, "the refusal");
    Ok(())
}

#[track_caller]
fn differ(answer: impl Debug, expected: impl Debug) -> Outcome {
    Err(Stop::failed(format_args!("{answer:?}, not {expected:?}")))
}
