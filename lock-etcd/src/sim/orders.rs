//! Every order of the transactions of a few clients.
//!
//! The clients are the real ones. The server lets one transaction through at a time, and which one is next is what differs
//! between two runs: all choices are played, except those that lead to what was seen before. Two runs are in the same state
//! when the keys are the same and every client was told the same so far: what it does next depends on nothing else.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{ClaimId, Mode};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::check::{conflict, ended_by_others, holder, name_of};
use super::play::backend;
use super::store::Store;
use super::without::Without;
use crate::backend::EtcdBackend;
use crate::errors::Trouble;
use crate::link::{Link, News, Server, Watch};
use crate::record::Record;
use crate::txn::{Answer, KeyValue, Read, Txn};

/// What one client does.
pub(super) type Story = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long everybody gets to do what they can between two transactions, and how often they look.
const STEP: Duration = Duration::from_millis(10);
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// What a story has: its backend, and a view of the server for what it would hear by news.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) backend: Arc<EtcdBackend>,
    pub(super) client: usize,
    /// Whether all orders begin when everybody has joined, one after the other.
    joined: bool,
    table: Arc<Table>,
}

/// From where all orders are played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Nothing,
    /// Everybody has joined already, in the order of the clients.
    Queue,
}

/// The server, and who waits to be served.
#[derive(Default)]
struct Table(Mutex<Inner>);

type Waiting = (usize, Txn, oneshot::Sender<Result<Answer, Trouble>>);

#[derive(Default)]
struct Inner {
    store: Store,
    without: Option<Without>,
    /// Whether transactions wait to be chosen.
    open: bool,
    waiting: Vec<Waiting>,
    /// What each client was told.
    told: BTreeMap<usize, DefaultHasher>,
    /// Whose lease it is, and which of theirs: the ids are random.
    leases: BTreeMap<i64, (usize, usize)>,
    /// Who believes to hold, and how.
    inside: BTreeMap<ClaimId, Mode>,
    wrong: Option<String>,
}

/// What was played.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Played {
    pub(super) states: usize,
    pub(super) ends: usize,
}

/// Plays all orders; what was wrong in one of them, if anything was.
pub(super) fn play_all(from: From, stories: &[Story], without: Option<Without>) -> Result<Played, String> {
    let (mut seen, mut open) = (HashSet::new(), vec![Vec::new()]);
    let mut played = Played::default();
    while let Some(order) = open.pop() {
        fastrand::seed(0);
        let ended = super::in_paused_time(play_one(from, stories, without, order, &mut seen, &mut open))?;
        played.ends += usize::from(ended);
    }
    played.states = seen.len();
    Ok(played)
}

/// Plays one order: as it is given, then the first that comes. Whether it came to its end, and to nothing that was seen.
async fn play_one(
    from: From,
    stories: &[Story],
    without: Option<Without>,
    order: Vec<usize>,
    seen: &mut HashSet<u64>,
    open: &mut Vec<Vec<usize>>,
) -> Result<bool, String> {
    let table = Arc::new(Table::default());
    table.inner().without = without;
    let mut tasks = Vec::new();
    for (client, story) in stories.iter().enumerate() {
        let link = Link::new(Seat { table: table.clone(), client }, Duration::from_secs(1000));
        let backend = backend(link, client).await.map_err(|error| error.to_string())?;
        let stage = Stage { backend, client, joined: from == From::Queue, table: table.clone() };
        tasks.push(tokio::spawn(story(stage)));
        sleep(STEP).await;
    }
    table.inner().open = true;
    let mut done = Vec::new();
    loop {
        // Time passes only when nobody has anything to do any more.
        sleep(STEP).await;
        let finished = tasks.iter().all(tokio::task::JoinHandle::is_finished);
        let next = table.inner().next(finished, order.get(done.len()).copied(), seen);
        let told = |what: String| format!("{what}\n  served in this order: {done:?}");
        match next.map_err(told)? {
            Next::Serve { choice, of } => {
                open.extend((1..of).map(|other| [&*done, &[other]].concat()));
                done.push(choice);
                table.inner().serve(choice);
            }
            Next::Known => return Ok(false),
            Next::End => break,
        }
    }
    for task in tasks {
        task.await.map_err(|error| format!("{error}\n  served in this order: {done:?}"))?;
    }
    Ok(true)
}

/// How it goes on.
enum Next {
    /// This transaction is served; of so many, if none was played yet.
    Serve {
        choice: usize,
        of: usize,
    },
    /// All that follows was played before.
    Known,
    End,
}

fn holds_a_place(name: &str) -> bool {
    !name.contains("/~d/") && !name.contains("~news/")
}

impl Table {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What is served next: as it is ordered, or the first, where others are left to be played.
    fn next(
        &mut self,
        finished: bool,
        ordered: Option<usize>,
        seen: &mut HashSet<u64>,
    ) -> Result<Next, String> {
        self.check();
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        if self.waiting.is_empty() {
            let left: Vec<&String> = self.store.keys.keys().filter(|name| holds_a_place(name)).collect();
            let is_end = finished && left.is_empty();
            return if is_end { Ok(Next::End) } else { Err(format!("stuck beside {left:?}")) };
        }
        Ok(match ordered {
            Some(choice) => Next::Serve { choice, of: 1 },
            None if seen.insert(self.fingerprint()) => Next::Serve { choice: 0, of: self.waiting.len() },
            None => Next::Known,
        })
    }

    fn serve(&mut self, choice: usize) {
        let (client, txn, tell) = self.waiting.remove(choice);
        let answer = self.txn(txn);
        let mut told = self.told.remove(&client).unwrap_or_default();
        match &answer {
            Ok(answer) => self.hash_answer(answer, &mut told),
            Err(trouble) => trouble.lease_gone.hash(&mut told),
        }
        self.told.insert(client, told);
        // The client may have given up.
        drop(tell.send(answer));
    }

    fn txn(&mut self, mut txn: Txn) -> Result<Answer, Trouble> {
        if let Some(without) = self.without {
            without.weaken(&self.store, &mut txn);
        }
        self.store.txn(&txn)
    }

    /// Nobody holds beside another on the server, and whoever believes to hold does, or was ended by others.
    fn check(&mut self) {
        if self.wrong.is_some() {
            return;
        }
        self.wrong = conflict(&self.store);
        for (&id, &mode) in &self.inside {
            let really = holder(&self.store, id);
            // A reader may be alone already, and not know yet.
            let is_so = really.is_some_and(|really| really == mode || really.is_exclusive());
            if !is_so && !ended_by_others(&self.store, id) {
                self.wrong = Some(format!("{id} believes to be inside, {mode}, and is {really:?}"));
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut state = DefaultHasher::new();
        for kv in self.store.keys.values().filter(|kv| !kv.key.starts_with(b"lock/~news/")) {
            self.hash_kv(kv, &mut state);
        }
        for told in self.told.values() {
            told.finish().hash(&mut state);
        }
        for (client, txn, _) in &self.waiting {
            (client, txn.when.len(), txn.then.len()).hash(&mut state);
        }
        for (id, mode) in &self.inside {
            (id, mode.to_string()).hash(&mut state);
        }
        state.finish()
    }

    fn hash_answer(&self, answer: &Answer, state: &mut DefaultHasher) {
        (answer.revision, answer.succeeded, answer.deleted).hash(state);
        let mut hash_reads = |reads: &[Read]| {
            for read in reads {
                (read.count, read.more).hash(state);
                read.kvs.iter().for_each(|kv| self.hash_kv(kv, state));
            }
        };
        hash_reads(&answer.gets);
        if let Some((succeeded, reads)) = &answer.inner {
            hash_reads(reads);
            succeeded.hash(state);
        }
    }

    /// A key without what is random in it.
    fn hash_kv(&self, kv: &KeyValue, state: &mut DefaultHasher) {
        (&kv.key, kv.created, kv.modified, self.leases.get(&kv.lease)).hash(state);
        if let Some(record) = Record::decode(&kv.value) {
            let Record { mode, granted, place, renewed, converted, upgrading, marked, .. } = record;
            let place = place.map(|place| (place.rank, place.at));
            let granted = granted.map(|grant| (grant.token, grant.floor));
            (mode.to_string(), granted, place, renewed, converted, upgrading, marked).hash(state);
        }
    }
}

impl Stage {
    /// Waits until one transaction is served at a time: before joining, or after.
    pub(super) async fn begins(&self, after_joining: bool) {
        if self.joined == after_joining {
            self.opens().await;
        }
    }

    /// Waits until one transaction is served at a time.
    pub(super) async fn opens(&self) {
        while !self.table.inner().open {
            sleep(LOOK).await;
        }
    }

    /// Waits until the claim is a holder in this mode, or there no more; which of the two. A real client hears it by news.
    pub(super) async fn until_holder(&self, id: ClaimId, mode: Mode) -> bool {
        loop {
            let (is_holder, is_there) = {
                let inner = self.table.inner();
                let is_there = name_of(&inner.store, id).is_some();
                (holder(&inner.store, id) == Some(mode), is_there)
            };
            if is_holder || !is_there {
                self.table.inner().told.entry(self.client).or_default().write_u8(u8::from(is_holder));
                return is_holder;
            }
            sleep(LOOK).await;
        }
    }

    pub(super) fn enter(&self, id: ClaimId, mode: Mode) {
        let mut inner = self.table.inner();
        inner.inside.insert(id, mode);
        inner.check();
    }

    pub(super) fn leave(&self, id: ClaimId) {
        let mut inner = self.table.inner();
        inner.check();
        inner.inside.remove(&id);
    }
}

/// The connection of one client.
struct Seat {
    table: Arc<Table>,
    client: usize,
}

#[async_trait]
impl Server for Seat {
    async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        let (tell, told) = oneshot::channel();
        {
            let mut inner = self.table.inner();
            if !inner.open {
                return inner.txn(txn);
            }
            inner.waiting.push((self.client, txn, tell));
            // By client, so that the same choices are the same.
            inner.waiting.sort_by_key(|&(client, ..)| client);
        }
        told.await.unwrap_or_else(|_| Err(Trouble::silence()))
    }

    // Leases are nobody's but their client's: when these are served makes no difference to others.
    async fn grant(&self, id: i64, seconds: i64) -> Result<i64, Trouble> {
        let mut inner = self.table.inner();
        let number = inner.leases.values().filter(|(client, _)| *client == self.client).count();
        inner.leases.insert(id, (self.client, number));
        inner.store.grant(id, seconds, Duration::ZERO)
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        Ok(self.table.inner().store.keep_alive(lease, Duration::ZERO))
    }

    async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        if self.table.inner().store.revoke(lease) { Ok(()) } else { Err(Trouble::lease_gone()) }
    }

    async fn time_to_live(&self, lease: i64) -> Result<i64, Trouble> {
        Ok(self.table.inner().store.time_to_live(lease, Duration::ZERO))
    }

    async fn watch(&self, _beginning: String) -> Result<Box<dyn Watch>, Trouble> {
        Ok(Box::new(Silence))
    }
}

/// A watch that brings nothing: stories look for themselves.
struct Silence;

#[async_trait]
impl Watch for Silence {
    async fn next(&mut self) -> Result<Vec<News>, Trouble> {
        std::future::pending().await
    }
}
