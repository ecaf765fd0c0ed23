//! `SimKv`: an etcd in memory that lies as a real one may.
//!
//! Requests are late, are done after their client has given up, or are never done; answers get lost; requests of one client
//! overtake each other. None is done twice: gRPC sends a request again only when no server has seen it. Watches are late and
//! break, and what is written meanwhile is not told. Keys vanish while their leases live, leases are revoked by others, and a
//! new leader gives all of them their whole length again. Reads are never stale: all of ours are linearizable.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::ClaimId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::check::{claim_of, conflict, ended_by_others, holder};
use super::store::Store;
use super::without::Without;
use crate::errors::Trouble;
use crate::link::News;
use crate::txn::{Answer, KeyValue, Txn, TxnOp};

/// The server.
pub(super) struct SimKv {
    state: Mutex<State>,
    start: Instant,
    /// Whether it lies now.
    chaos: AtomicBool,
    /// A guard that is taken out of every transaction.
    without: Option<Without>,
}

#[derive(Default)]
struct State {
    store: Store,
    watches: Vec<(String, mpsc::UnboundedSender<News>)>,
    /// The names that are watched and were there when it was last looked.
    watched: BTreeSet<String>,
    /// When claims were ended by others, on purpose: their holders may not know at once.
    forced: HashMap<ClaimId, Duration>,
    /// Those of them that had been granted.
    granted: HashSet<ClaimId>,
    /// Those that have joined again, and may still be told of the grant before.
    revived: HashMap<ClaimId, Duration>,
    /// What was wrong with the state of a lock, first.
    wrong: Option<String>,
}

impl SimKv {
    pub(super) fn new(without: Option<Without>) -> Arc<SimKv> {
        let (start, chaos) = (Instant::now(), AtomicBool::new(false));
        Arc::new(SimKv { state: Mutex::default(), start, chaos, without })
    }

    /// Whether it lies from now on.
    pub(super) fn set_chaos(&self, on: bool) {
        self.chaos.store(on, Ordering::Relaxed);
    }

    pub(super) fn is_chaos(&self) -> bool {
        self.chaos.load(Ordering::Relaxed)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Does something to the data, at this moment.
    pub(super) fn with_store<T>(&self, act: impl FnOnce(&mut Store, Duration) -> T) -> T {
        let now = self.elapsed();
        let mut state = self.state();
        let done = act(&mut state.store, now);
        state.tell_deleted();
        done
    }

    /// Opens a watch on all keys whose names begin so.
    pub(super) fn watch(&self, beginning: String, told: mpsc::UnboundedSender<News>) {
        self.state().watches.push((beginning, told));
    }

    /// Breaks all watches, as a compaction does that has overtaken them.
    pub(super) fn break_watches(&self) {
        self.state().watches.clear();
    }

    /// Somebody deletes a claim, or revokes its lease.
    pub(super) fn vandalize(&self, random: &mut fastrand::Rng) {
        let now = self.elapsed();
        let mut state = self.state();
        // In the order of their creation: their names are random.
        let mut claims: Vec<(i64, String, i64, ClaimId)> = state.claims().collect();
        claims.sort_unstable();
        let Some((_, name, lease, id)) = random.choice(claims.clone()) else { return };
        if random.bool() {
            let marker = name.replace("/~x/", "/~u/").replace("/~s/", "/~u/").replace("/~p/", "/~u/");
            state.force(id, now);
            state.store.keys.remove(&name);
            state.store.keys.remove(&marker);
            state.store.revision += 1;
        } else {
            for (.., id) in claims.into_iter().filter(|&(_, _, on, _)| on == lease) {
                state.force(id, now);
            }
            state.store.revoke(lease);
            state.tell_deleted();
        }
    }

    /// When a claim was ended on purpose, if it is not there again.
    pub(super) fn ended(&self, id: ClaimId) -> Option<Duration> {
        self.state().forced.get(&id).copied()
    }

    /// When this claim was ended on purpose, or had ended before it came back: its holder may believe in it since.
    pub(super) fn forgiven(&self, id: ClaimId) -> Option<Duration> {
        let state = self.state();
        state.revived.get(&id).or_else(|| state.forced.get(&id)).copied()
    }

    /// The first lock that was seen in a state that must not be.
    pub(super) fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    /// The keys of claims and markers that are there.
    pub(super) fn left(&self) -> Vec<String> {
        let state = self.state();
        state
            .store
            .keys
            .keys()
            .filter(|name| !name.contains("/~d/") && !name.contains("~news/"))
            .cloned()
            .collect()
    }

    /// What there is, for a failure to show.
    pub(super) fn shown(&self) -> String {
        let state = self.state();
        let shown = |(name, kv): (&String, &KeyValue)| {
            let value = String::from_utf8_lossy(&kv.value);
            let lease = state.store.leases.get(&kv.lease);
            format!("\n  {name} by {} on {:x} ({lease:?}): {value}", kv.modified, kv.lease)
        };
        state.store.keys.iter().map(shown).collect()
    }

    /// The lengths of the leases that are there.
    pub(super) fn leases(&self) -> Vec<i64> {
        self.state().store.leases.values().map(|lease| lease.seconds).collect()
    }

    pub(super) fn txn(&self, mut txn: Txn) -> Result<Answer, Trouble> {
        let now = self.elapsed();
        let mut state = self.state();
        if let Some(without) = self.without {
            without.weaken(&state.store, &mut txn);
        }
        let answer = state.store.txn(&txn)?;
        let taken = if answer.succeeded { &txn.then } else { &txn.otherwise };
        for op in taken {
            let TxnOp::Put { name, value, .. } = op else { continue };
            let ended = name.split_once("/~d/").and_then(|(_, id)| id.parse().ok());
            if let Some(id) = ended.filter(|_| matches!(value.first(), Some(b'B' | b'T'))) {
                state.force(id, now);
            }
            let news = News::Written { value: value.clone(), revision: answer.revision };
            state.tell(name, &news);
        }
        state.tell_deleted();
        state.look_at_new(answer.revision);
        if state.wrong.is_none() {
            state.wrong = conflict(&state.store);
        }
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, name: &str, news: &News) {
        self.watches
            .retain(|(beginning, told)| !name.starts_with(beginning) || told.send(news.clone()).is_ok());
    }

    /// Tells whoever watches which names are not there any more.
    fn tell_deleted(&mut self) {
        let there: BTreeSet<String> =
            self.store.keys.keys().filter(|name| name.contains("~news/")).cloned().collect();
        for name in std::mem::replace(&mut self.watched, there) {
            if !self.watched.contains(&name) {
                self.tell(&name, &News::Deleted { name: name.clone().into_bytes() });
            }
        }
    }

    /// The claims that are there: since when, under which name, on which lease.
    fn claims(&self) -> impl Iterator<Item = (i64, String, i64, ClaimId)> {
        let claim =
            |(name, kv): (&String, &KeyValue)| Some((kv.created, name.clone(), kv.lease, claim_of(kv)?.id));
        self.store.keys.iter().filter_map(claim)
    }

    /// A claim that somebody deleted may join again, if it was never told that it had joined, or been granted.
    /// What was broken or replaced never
    /// comes back.
    fn look_at_new(&mut self, revision: i64) {
        let new: Vec<ClaimId> =
            self.claims().filter(|&(created, ..)| created == revision).map(|(.., id)| id).collect();
        for id in new {
            if let Some(ended) = self.forced.remove(&id).filter(|_| self.granted.contains(&id)) {
                self.revived.entry(id).or_insert(ended);
            }
            if ended_by_others(&self.store, id) {
                self.wrong.get_or_insert_with(|| format!("{id} came back after its end"));
            }
        }
    }

    fn force(&mut self, id: ClaimId, now: Duration) {
        self.forced.entry(id).or_insert(now);
        if holder(&self.store, id).is_some() {
            self.granted.insert(id);
        }
    }
}
