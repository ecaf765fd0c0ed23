//! Random commands on the scripts and on `LockState`, at the very same microseconds: every answer and every message must
//! be the same.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockcore::state::{Effect, LockState, Moment, Refusal};
use lockcore::{
    Attempt, BreakTarget, Claim, ClaimInfo, Conversion, Ending, Key, Mode, Queue, Release, Renewal,
};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, Value};
use testbed::RedisServer;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::RedisBackend;
use crate::link::Link;
use crate::reply::{self, Answer, Line};
use crate::request::Requests;
use crate::scripts::Operation;

/// What the server told, in the words of `LockState`.
fn line_of(effect: &Effect) -> Line {
    match effect {
        Effect::Granted { claim, fence } => Line::Granted(claim.id(), *fence),
        Effect::Ended { claim, ending: Ending::Expired } => Line::Expired(claim.id()),
        Effect::Ended { claim, ending: Ending::Broken } => Line::Broken(claim.id()),
        Effect::Ended { claim, ending: Ending::TakenOver } => Line::TakenOver(claim.id()),
    }
}

struct Pair {
    /// Two clients, each with its own channel and its own time for which tokens are kept.
    backends: [Arc<RedisBackend>; 2],
    which: usize,
    last_now: f64,
    /// By how much the lock's clock is ahead of the server's.
    ahead: u64,
    messages: UnboundedReceiver<Vec<u8>>,
    _listener: MultiplexedConnection,
    state: LockState,
    key: Key,
    random: fastrand::Rng,
    /// 0 plays with everything alike, 1 mostly with readers, 2 mostly with writers: the paths that are made fast.
    bias: u64,
    claims: Vec<Arc<Claim>>,
    log: Vec<String>,
}

impl Pair {
    fn requests(&self) -> &Requests {
        &self.backends[self.which].requests
    }

    fn link(&self) -> &Link {
        &self.backends[self.which].link
    }

    /// What led to a failure.
    fn last(&self) -> Vec<&String> {
        self.log[..1].iter().chain(&self.log[self.log.len().saturating_sub(40).max(1)..]).collect()
    }

    fn header(&self) -> String {
        self.requests().keys.header(&self.key)
    }

    async fn run(&self, operation: &Operation, command: &Cmd) -> redis::Value {
        match self.link().run(operation, command, "test").await {
            Ok(value) => value,
            Err(trouble) => panic!("{trouble:?} after {:#?}", self.last()),
        }
    }

    async fn answer(&self, operation: &Operation, command: &Cmd) -> (Answer, Moment) {
        let (answer, now) = reply::answer(&self.run(operation, command).await).unwrap();
        (answer, Moment::from_micros(now))
    }

    async fn list(&self, operation: &Operation, command: &Cmd) -> (Vec<ClaimInfo>, Moment) {
        let (claims, now) = reply::claims(&self.run(operation, command).await).unwrap();
        (claims, Moment::from_micros(now))
    }

    fn mode(&mut self) -> Mode {
        match (self.bias, self.random.u32(0..10)) {
            (1, 0..9) => return Mode::Shared,
            (2, 0..9) => return Mode::Exclusive,
            _ => {}
        }
        match self.random.u32(0..8) {
            0..3 => Mode::Exclusive,
            3..5 => Mode::Shared,
            n => Mode::Permit { at_most: NonZeroU32::new(n - 3).unwrap() },
        }
    }

    /// Owners that begin with each other, or like their index.
    fn owner(&mut self) -> String {
        match self.random.u32(0..5) {
            0 => "a".into(),
            1 => "a\0".into(),
            2 => "ab".into(),
            3 => "0000".into(),
            _ => "b".repeat(self.random.usize(1023..=1024)),
        }
    }

    fn new_claim(&mut self) -> Arc<Claim> {
        let mode = self.mode();
        let ttl = Duration::from_micros(match self.random.u32(0..4) {
            0 => self.random.u64(10_000..20_000),
            1 => self.random.u64(20_000..400_000),
            2 => 100 * 366 * 24 * 3600 * 1_000_000,
            _ => 30_000_000,
        });
        let longest = if self.random.bool() { 30_000 } else { 2_000_000 };
        let waiter_ttl = Duration::from_micros(self.random.u64(10_000..longest));
        let owner: Option<Arc<str>> = (self.random.u32(0..7) > 1).then(|| self.owner().into());
        let note = [None, Some("".into()), Some("why {}".into())][self.random.usize(0..3)].clone();
        let take_over = owner.is_some() && self.bias == 0 && self.random.bool();
        let claim = Claim::new(self.key.clone(), mode, ttl)
            .with_owner(owner)
            .with_note(note)
            .with_waiter_ttl(waiter_ttl)
            .taking_over(take_over);
        let claim = Arc::new(claim);
        self.claims.push(claim.clone());
        if self.claims.len() > 12 {
            self.claims.remove(0);
        }
        claim
    }

    fn some_claim(&mut self) -> Arc<Claim> {
        if self.claims.is_empty() {
            return self.new_claim();
        }
        if self.random.bool() {
            // At the beginning of time nothing has expired.
            let holders = self.state.clone().inspect(Moment::from_micros(0), &mut Vec::new()).holders;
            let holds = |claim: &&Arc<Claim>| holders.iter().any(|info| info.id == claim.id());
            let held: Vec<Arc<Claim>> = self.claims.iter().filter(holds).cloned().collect();
            if !held.is_empty() {
                return held[self.random.usize(0..held.len())].clone();
            }
        }
        self.claims[self.random.usize(0..self.claims.len())].clone()
    }

    /// Where the lock's clock stands, as against this machine's.
    #[expect(clippy::cast_precision_loss, reason = "microseconds lie below 2^53")]
    fn saw(&mut self, now: Moment) {
        self.last_now = now.as_micros() as f64;
        self.ahead = now.as_micros().saturating_sub(wall_micros());
    }

    /// Changes the header as if the server's clock had been set, or as if its key were about to expire.
    async fn meddle(&mut self) {
        let header = self.header();
        let mut get = redis::cmd("GET");
        get.arg(&header);
        let Ok(Value::BulkString(head)) = self.link().send(&get, "test").await else { return };
        let number = |at: usize| f64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let step = f64::from(self.random.u32(0..25_000));
        let (what, at, value) = match self.random.u32(0..3) {
            // The moment last seen; in a header of form N it is also since when the claim holds.
            0 if head[2] != b'N' => ("back", 3, number(3).max(self.last_now) + step),
            1 => ("forward", 11, number(11) + step),
            _ => ("expires", 35, 0.0),
        };
        self.log.push(format!("meddled: {what} {step}"));
        let mut set = redis::cmd("SETRANGE");
        set.arg(&header).arg(at).arg(&value.to_le_bytes());
        self.link().send(&set, "test").await.unwrap();
    }

    async fn step(&mut self) {
        self.which = usize::from(self.random.u32(0..4) == 0);
        if self.random.u32(0..12) == 0 {
            self.meddle().await;
        }
        match self.random.u32(0..100) {
            0..40 => {
                let claim = if self.random.u32(0..4) == 0 { self.some_claim() } else { self.new_claim() };
                let queue = if self.random.u32(0..3) == 0 { Queue::Never } else { Queue::Join };
                self.acquire(claim, queue).await;
            }
            40..52 => {
                let claim = self.some_claim();
                let ttl = Duration::from_micros(self.random.u64(10_000..3_000_000));
                let order = self.random.u64(0..5);
                self.renew(Renewal { claim, ttl, order }).await;
            }
            52..64 => {
                let (claim, to, order) = (self.some_claim(), self.mode(), self.random.u64(0..5));
                self.convert(Conversion { claim, to, order }).await;
            }
            64..84 => {
                let (answered, only_waiting) = (self.random.bool(), self.random.u32(0..5) == 0);
                let claim = self.some_claim();
                self.release(Release { claim, answered, only_waiting }).await;
            }
            84..88 => {
                let target = match self.random.u32(0..6) {
                    0 => BreakTarget::All,
                    1 => BreakTarget::Holders,
                    2 => BreakTarget::Owner(self.owner().as_str().into()),
                    3 => match lockcore::FencingToken::new(self.state.last_token()) {
                        Some(token) => BreakTarget::Token(token),
                        None => BreakTarget::All,
                    },
                    _ => BreakTarget::Claim(self.some_claim().id()),
                };
                self.break_claims(&target).await;
            }
            88..92 => self.inspect().await,
            _ => self.sleep().await,
        }
    }

    /// Some time, or until about the moment at which a lease runs out.
    async fn sleep(&mut self) {
        let some = Duration::from_micros(self.random.u64(0..30_000));
        let now = Duration::from_micros(wall_micros() + self.ahead);
        let until_expiry =
            self.state.next_expiry().map(|at| Duration::from_micros(at.as_micros()).saturating_sub(now));
        let time = until_expiry.filter(|&time| time < Duration::from_millis(40)).unwrap_or(some);
        tokio::time::sleep(time).await;
    }

    async fn acquire(&mut self, claim: Arc<Claim>, queue: Queue) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.acquire;
        let command = self.requests().acquire(operation, &self.header(), &claim, queue);
        let (answer, now) = self.answer(operation, &command).await;
        self.saw(now);
        let expected = self.state.acquire(now, &claim, queue, &mut effects);
        self.log.push(format!("{now:?} acquire {claim:?} {queue:?} -> {answer:?}"));
        assert_eq!(answer.attempt().unwrap(), expected, "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn renew(&mut self, renewal: Renewal) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.renew;
        let command = self.requests().renew(operation, &self.header(), &renewal);
        let (answer, now) = self.answer(operation, &command).await;
        self.saw(now);
        let expected = self.state.renew(now, renewal.claim.id(), renewal.ttl, renewal.order, &mut effects);
        self.log.push(format!("{now:?} {renewal:?} -> {answer:?}"));
        assert_eq!(answer.lease().ok(), expected.ok(), "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn convert(&mut self, conversion: Conversion) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.convert;
        let command = Requests::convert(operation, &self.header(), &conversion);
        let (answer, now) = self.answer(operation, &command).await;
        let id = conversion.claim.id();
        self.saw(now);
        let expected = self.state.convert(now, id, conversion.to, conversion.order, &mut effects);
        self.log.push(format!("{now:?} {conversion:?} -> {answer:?}"));
        let answer = match answer {
            Answer::Granted(lease) => Ok(Attempt::Granted(lease)),
            Answer::Queued(queued) => Ok(Attempt::Queued(queued)),
            Answer::WouldDeadlock => Err(Refusal::WouldDeadlock),
            Answer::Unsupported => Err(Refusal::Unsupported),
            Answer::Lost => Err(Refusal::Lost),
            Answer::Busy | Answer::Gone | Answer::Released | Answer::NotHeld => {
                panic!("no answer to a conversion: {answer:?}")
            }
        };
        assert_eq!(answer, expected, "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn release(&mut self, release: Release) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.release;
        let command = Requests::release(operation, &self.header(), &release);
        let (answer, now) = self.answer(operation, &command).await;
        let Release { claim, answered, only_waiting } = &release;
        self.saw(now);
        let expected = self.state.release(now, claim.id(), *answered, *only_waiting, &mut effects);
        self.log.push(format!("{now:?} {release:?} -> {answer:?}"));
        assert_eq!(answer.released(), expected, "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn break_claims(&mut self, target: &BreakTarget) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.break_claims;
        let command = Requests::break_claims(operation, &self.header(), target);
        let (answer, now) = self.list(operation, &command).await;
        self.saw(now);
        let expected = self.state.break_claims(now, target, &mut effects);
        self.log.push(format!("{now:?} {target:?} -> {answer:?}"));
        assert_eq!(answer, expected, "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn inspect(&mut self) {
        let mut effects = Vec::new();
        let operation = &self.backends[self.which].scripts.inspect;
        let (answer, now) = self.list(operation, &Requests::look(operation, &self.header())).await;
        self.saw(now);
        let expected = self.state.inspect(now, &mut effects);
        self.log.push(format!("{now:?} inspect"));
        assert_eq!(reply::snapshot(answer), expected, "{:#?}", self.last());
        self.compare_messages(&effects).await;
    }

    async fn compare_messages(&mut self, effects: &[Effect]) {
        let mut expected: BTreeSet<String> = BTreeSet::new();
        for effect in effects {
            assert!(expected.insert(format!("{:?}", line_of(effect))), "{:#?}", self.last());
        }
        let mut told = BTreeSet::new();
        while told.len() < expected.len() {
            let message = tokio::time::timeout(Duration::from_secs(5), self.messages.recv()).await;
            let Ok(Some(message)) = message else {
                panic!("told {told:#?} of {expected:#?} after {:#?}", self.last())
            };
            for line in reply::lines(&message) {
                assert!(told.insert(format!("{line:?}")), "{:#?}", self.last());
            }
        }
        assert_eq!(told, expected, "{:#?}", self.last());
    }
}

fn wall_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

/// Everything that is published under the prefix.
async fn listen(url: &str) -> (MultiplexedConnection, UnboundedReceiver<Vec<u8>>) {
    let (sender, receiver) = unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::PMessage
            && let Some(Value::BulkString(message)) = push.data.last()
        {
            sender.send(message.clone()).map_err(|_| ())?;
        }
        Ok::<(), ()>(())
    });
    let client = redis::Client::open(format!("{url}/?protocol=resp3")).unwrap();
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    connection.psubscribe("*news/*").await.unwrap();
    (connection, receiver)
}

async fn pair(server: &RedisServer, seed: u64) -> Pair {
    let (listener, messages) = listen(&server.url()).await;
    Pair {
        backends: [
            RedisBackend::connect(&server.url()).await.unwrap(),
            RedisBackend::builder(&server.url())
                .fence_keep(Duration::from_millis(1))
                .connect()
                .await
                .unwrap(),
        ],
        which: 0,
        last_now: 0.0,
        ahead: 0,
        messages,
        _listener: listener,
        state: LockState::default(),
        key: Key::new(format!("play {seed}")).unwrap(),
        random: fastrand::Rng::with_seed(seed),
        bias: seed % 3,
        claims: Vec::new(),
        log: vec![format!("seed {seed}")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_do_what_lock_state_does() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("EQUIVALENCE_ROUNDS").unwrap_or(60);
    let seed = number("EQUIVALENCE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let server = RedisServer::start().unwrap();
    for round in 0..rounds {
        let mut pair = pair(&server, seed.wrapping_add(round)).await;
        for _ in 0..150 {
            pair.step().await;
        }
        pair.compare_messages(&[]).await;
        assert!(pair.messages.is_empty(), "somebody was told what nobody knows of: {:#?}", pair.last());
    }
}

/// A holder that is alone but not the newest keeps its own token when a take-over of it fails.
#[tokio::test]
async fn a_try_that_fails_puts_back_whom_it_would_have_replaced() {
    let server = RedisServer::start().unwrap();
    let mut pair = pair(&server, 0).await;
    let of = |owner: &str, mode, over| {
        let claim = Claim::new(Key::new("play 0").unwrap(), mode, Duration::from_secs(30));
        Arc::new(claim.with_owner(Some(owner.into())).taking_over(over))
    };
    let last = of("c", Mode::Shared, false);
    for claim in [of("b", Mode::Shared, false), of("a", Mode::Shared, false), last.clone()] {
        pair.acquire(claim, Queue::Join).await;
    }
    pair.acquire(of("b", Mode::Exclusive, true), Queue::Join).await;
    pair.release(Release { claim: last, answered: true, only_waiting: false }).await;
    pair.acquire(of("a", Mode::Shared, true), Queue::Never).await;
    pair.inspect().await;
    pair.acquire(of("a", Mode::Shared, true), Queue::Join).await;
    pair.inspect().await;
}
