//! What a lock could cost at best on etcd, and what others make of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KvClient, LockClient, LockOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchClient, WatchOptions, WatchStream,
};
use lockcore::Mode;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Result;
use crate::worker::{Contender, Worker};

/// Leases of peers are for longer than a round.
const LEASE_SECONDS: i64 = 600;

/// A lease as the owner of what a peer writes.
pub(crate) async fn lease(client: &Client) -> Result<i64> {
    Ok(client.lease_client().grant(LEASE_SECONDS, None).await?.id())
}

/// A transaction that puts a key that is not there yet, and then reads.
fn put_new(key: &str, lease: i64, reads: Option<TxnOp>) -> Txn {
    let put = TxnOp::put(key, "", Some(PutOptions::new().with_lease(lease)));
    let puts: Vec<TxnOp> = [put].into_iter().chain(reads).collect();
    Txn::new().when([Compare::create_revision(key, CompareOp::Equal, 0)]).and_then(puts)
}

async fn delete(kv: &mut KvClient, key: impl Into<Vec<u8>>) -> Result<()> {
    match kv.delete(key, None).await?.deleted() {
        1 => Ok(()),
        _ => Err("the bare lock was gone".into()),
    }
}

/// The floor of an uncontended lock: a guarded put on a lease, then a deletion.
pub(crate) struct Pair {
    pub(crate) kv: KvClient,
    pub(crate) key: String,
    pub(crate) lease: i64,
}

impl Contender for Pair {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        if !self.kv.txn(put_new(&self.key, self.lease, None)).await?.succeeded() {
            return Err("the bare lock was taken".into());
        }
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        delete(&mut self.kv, self.key.as_str()).await?;
        worker.has_left();
        Ok(())
    }
}

/// The floor of a hand-over: keys in the order in which they were put, and one long watch that says which is the first.
pub(crate) struct Queue {
    kv: KvClient,
    name: String,
    turn: u64,
    lease: i64,
    line: Arc<Line>,
}

/// What the watch knows, for all workers.
pub(crate) struct Line {
    prefix: String,
    waiting: Arc<Mutex<Waiting>>,
    watch: JoinHandle<()>,
}

type Waiting = HashMap<Vec<u8>, oneshot::Sender<()>>;

impl Line {
    pub(crate) async fn watch(client: &Client, prefix: String) -> Result<Arc<Line>> {
        let options = WatchOptions::new().with_prefix();
        let mut stream = client.watch_client().watch(prefix.as_str(), Some(options)).await?;
        while !stream.message().await?.ok_or("the watch was closed")?.created() {}
        let waiting = Arc::<Mutex<Waiting>>::default();
        let watch = tokio::spawn(follow(stream, waiting.clone()));
        Ok(Arc::new(Line { prefix, waiting, watch }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Tells whoever has come to be the first, until the watch ends; then those who wait notice that nobody will.
async fn follow(mut stream: WatchStream, waiting: Arc<Mutex<Waiting>>) {
    let mut keys = VecDeque::new();
    while let Ok(Some(response)) = stream.message().await {
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => keys.push_back(kv.key().to_vec()),
                EventType::Delete => keys.retain(|key: &Vec<u8>| key != kv.key()),
            }
        }
        let first = keys.front().and_then(|key| locked(&waiting).remove(key));
        if let Some(first) = first {
            // Its worker waits for it, unless the round was given up.
            let _told = first.send(());
        }
    }
    locked(&waiting).clear();
}

fn locked(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(crate) fn new(client: &Client, lease: i64, line: &Arc<Line>, worker: u64) -> Queue {
        let name = format!("{}{worker}/", line.prefix);
        Queue { kv: client.kv_client(), name, turn: 0, lease, line: line.clone() }
    }
}

impl Contender for Queue {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        self.turn += 1;
        let key = format!("{}{}", self.name, self.turn);
        let (tell, told) = oneshot::channel();
        locked(&self.line.waiting).insert(key.clone().into(), tell);
        self.kv.put(key.as_str(), "", Some(PutOptions::new().with_lease(self.lease))).await?;
        told.await?;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        delete(&mut self.kv, key).await?;
        worker.has_left();
        Ok(())
    }
}

/// etcd's own Lock service. The lease is the owner, so each worker has one.
pub(crate) struct Service {
    pub(crate) locks: LockClient,
    pub(crate) name: String,
    pub(crate) lease: i64,
}

impl Contender for Service {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let options = LockOptions::new().with_lease(self.lease);
        let held = self.locks.lock(self.name.as_str(), Some(options)).await?;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        self.locks.unlock(held.key()).await?;
        worker.has_left();
        Ok(())
    }
}

/// What a lock of etcd's Go client does, one worker of it.
pub(crate) struct Emulated {
    kv: KvClient,
    watch: WatchClient,
    prefix: String,
    lease: i64,
    protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// concurrency.Mutex: the transaction that joins reads who owns the lock; then a wait for the one ahead.
    Mutex,
    /// `RWMutex` of the recipes: join, then look for the last who is ahead and excludes, and wait for it, until nobody is.
    RwMutex,
}

impl Emulated {
    pub(crate) fn new(client: &Client, prefix: String, lease: i64, protocol: Protocol) -> Emulated {
        let (kv, watch) = (client.kv_client(), client.watch_client());
        Emulated { kv, watch, prefix, lease, protocol }
    }

    /// Puts the worker's key and waits until it is its turn.
    async fn acquire(&mut self, key: &str, ahead: &str) -> Result<()> {
        let owner = TxnOp::get(ahead, Some(first(SortOrder::Ascend).with_prefix()));
        let reads = (self.protocol == Protocol::Mutex).then_some(owner);
        let joined = self.kv.txn(put_new(key, self.lease, reads)).await?;
        if !joined.succeeded() {
            return Err("the emulated lock's key was there".into());
        }
        let revision = joined.header().map_or(0, etcd_client::ResponseHeader::revision);
        let is_own = |part: &TxnOpResponse| matches!(part, TxnOpResponse::Get(get) if get.kvs().iter().any(|kv| kv.key() == key.as_bytes()));
        if joined.op_responses().iter().any(is_own) {
            return Ok(());
        }
        loop {
            let options = first(SortOrder::Descend).with_prefix().with_max_create_revision(revision - 1);
            let last = self.kv.get(ahead, Some(options)).await?;
            let Some(last_key) = last.kvs().first().map(|kv| kv.key().to_vec()) else { break };
            let seen = last.header().map_or(0, etcd_client::ResponseHeader::revision);
            let from = if self.protocol == Protocol::Mutex { seen } else { revision };
            self.deleted(last_key, from).await?;
        }
        if self.protocol == Protocol::Mutex && self.kv.get(key, None).await?.kvs().is_empty() {
            return Err("the emulated lock's session was gone".into());
        }
        Ok(())
    }

    /// Waits until a key is deleted, by a watch from a revision that is past: this is what costs up to 100 ms.
    async fn deleted(&mut self, key: Vec<u8>, revision: i64) -> Result<()> {
        let options = WatchOptions::new().with_start_revision(revision);
        let mut stream = self.watch.watch(key, Some(options)).await?;
        loop {
            let response = stream.message().await?.ok_or("the watch was closed")?;
            if response.events().iter().any(|event| event.event_type() == EventType::Delete) {
                return Ok(());
            }
        }
    }
}

fn first(order: SortOrder) -> GetOptions {
    GetOptions::new().with_sort(SortTarget::Create, order).with_limit(1)
}

impl Contender for Emulated {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let (all, writers) = (format!("{}/", self.prefix), format!("{}/write", self.prefix));
        let (key, ahead) = match mode {
            Mode::Shared => (format!("{all}read{:x}", self.lease), writers),
            Mode::Exclusive | Mode::Permit { .. } => (format!("{writers}{:x}", self.lease), all),
        };
        self.acquire(&key, &ahead).await?;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        delete(&mut self.kv, key).await?;
        worker.has_left();
        Ok(())
    }
}
