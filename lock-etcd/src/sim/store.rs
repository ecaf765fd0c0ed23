//! The data of an etcd: keys with their revisions, transactions, leases. Without time of its own, and without faults.

use std::collections::BTreeMap;
use std::time::Duration;

use lockcore::ErrorKind;

use crate::errors::Trouble;
use crate::txn::{Answer, Compare, Get, Is, KeyValue, OnLease, Read, Txn, TxnOp};

/// The shortest lease that is given, in seconds.
pub(super) const MIN_TTL: i64 = 2;

#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<String, KeyValue>,
    pub(super) leases: BTreeMap<i64, Lease>,
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) seconds: i64,
    pub(super) ends: Duration,
}

/// Which branch of a transaction is taken. etcd decides it before it does anything, of inner transactions too.
struct Path {
    succeeded: bool,
    inner: Vec<Path>,
}

impl Default for Store {
    fn default() -> Store {
        // An empty cluster is at revision 1.
        Store { revision: 1, keys: BTreeMap::new(), leases: BTreeMap::new() }
    }
}

impl Store {
    /// Does a transaction, or nothing of it.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Answer, Trouble> {
        let path = self.path(txn);
        self.check(txn, &path)?;
        let (mut answer, mut written) = (Answer::default(), false);
        let writes = self.revision + 1;
        self.apply(txn, &path, writes, &mut written, &mut answer);
        if written {
            self.revision = writes;
        }
        answer.revision = self.revision;
        Ok(answer)
    }

    fn path(&self, txn: &Txn) -> Path {
        let succeeded = txn.when.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.otherwise };
        let inner = ops.iter().filter_map(|op| match op {
            TxnOp::Txn(inner) => Some(self.path(inner)),
            TxnOp::Put { .. } | TxnOp::Delete { .. } | TxnOp::Get(_) => None,
        });
        Path { succeeded, inner: inner.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let is = |created: i64, modified: i64| match compare.is {
            Is::CreatedAt(revision) => created == revision,
            Is::ModifiedAt(revision) => modified == revision,
            Is::ModifiedBefore(revision) => modified < revision,
        };
        let mut range = self.range(&compare.start, compare.end.as_deref()).peekable();
        if range.peek().is_none() { is(0, 0) } else { range.all(|kv| is(kv.created, kv.modified)) }
    }

    fn range<'s>(&'s self, start: &str, end: Option<&str>) -> impl Iterator<Item = &'s KeyValue> {
        let end = end.map_or_else(|| format!("{start}\0"), str::to_owned);
        let some = (start < &*end).then(|| self.keys.range(start.to_owned()..end));
        some.into_iter().flatten().map(|(_, kv)| kv)
    }

    /// What makes a whole transaction fail: looked at before anything is done.
    fn check(&self, txn: &Txn, path: &Path) -> Result<(), Trouble> {
        let mut inner = path.inner.iter();
        for op in if path.succeeded { &txn.then } else { &txn.otherwise } {
            match op {
                TxnOp::Put { name, lease: OnLease::Kept, .. } if !self.keys.contains_key(name) => {
                    return Err(Trouble::new(ErrorKind::Other, "etcdserver: key not found"));
                }
                TxnOp::Put { lease: OnLease::Of(lease), .. } if !self.leases.contains_key(lease) => {
                    return Err(Trouble::lease_gone());
                }
                TxnOp::Txn(txn) => {
                    if let Some(path) = inner.next() {
                        self.check(txn, path)?;
                    }
                }
                TxnOp::Put { .. } | TxnOp::Delete { .. } | TxnOp::Get(_) => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, txn: &Txn, path: &Path, writes: i64, written: &mut bool, answer: &mut Answer) {
        answer.succeeded = path.succeeded;
        let mut inner = path.inner.iter();
        for op in if path.succeeded { &txn.then } else { &txn.otherwise } {
            match op {
                TxnOp::Put { name, value, lease } => {
                    let old = self.keys.get(name);
                    let kv = KeyValue {
                        key: name.clone().into_bytes(),
                        value: value.clone(),
                        created: old.map_or(writes, |old| old.created),
                        modified: writes,
                        lease: match lease {
                            OnLease::Of(lease) => *lease,
                            OnLease::Kept => old.map_or(0, |old| old.lease),
                        },
                    };
                    self.keys.insert(name.clone(), kv);
                    *written = true;
                }
                TxnOp::Delete { name } => {
                    if self.keys.remove(name).is_some() {
                        answer.deleted += 1;
                        *written = true;
                    }
                }
                TxnOp::Get(get) => answer.gets.push(self.read(get)),
                TxnOp::Txn(txn) => {
                    if let Some(path) = inner.next() {
                        let mut inside = Answer::default();
                        self.apply(txn, path, writes, written, &mut inside);
                        answer.inner = Some((inside.succeeded, inside.gets));
                    }
                }
            }
        }
    }

    fn read(&self, get: &Get) -> Read {
        let mut kvs: Vec<KeyValue> = self.range(&get.start, get.end.as_deref()).cloned().collect();
        if get.by_creation {
            kvs.sort_by_key(|kv| kv.created);
        }
        let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        if get.count_only {
            return Read { kvs: Vec::new(), count, more: false };
        }
        let more = get.limit > 0 && count > get.limit;
        if more {
            kvs.truncate(usize::try_from(get.limit).unwrap_or(usize::MAX));
        }
        if get.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
            }
        }
        Read { kvs, count, more }
    }

    pub(super) fn grant(&mut self, id: i64, seconds: i64, now: Duration) -> Result<i64, Trouble> {
        if self.leases.contains_key(&id) {
            return Err(Trouble::new(ErrorKind::Other, "etcdserver: lease already exists"));
        }
        let seconds = seconds.max(MIN_TTL);
        self.leases.insert(id, Lease { seconds, ends: now + Lease::length(seconds) });
        Ok(seconds)
    }

    /// Sets a lease anew; `false` when it is not there or over, whether the server has looked or not.
    pub(super) fn keep_alive(&mut self, id: i64, now: Duration) -> bool {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.ends > now);
        lease.is_some_and(|lease| {
            lease.ends = now + Lease::length(lease.seconds);
            true
        })
    }

    pub(super) fn time_to_live(&self, id: i64, now: Duration) -> i64 {
        let lease = self.leases.get(&id).filter(|lease| lease.ends > now);
        lease.map_or(-1, |lease| i64::try_from(lease.ends.saturating_sub(now).as_secs()).unwrap_or(i64::MAX))
    }

    /// Ends a lease, and what lies on it with one revision; `false` when it is not there.
    pub(super) fn revoke(&mut self, id: i64) -> bool {
        let known = self.leases.remove(&id).is_some();
        let before = self.keys.len();
        self.keys.retain(|_, kv| kv.lease != id);
        if self.keys.len() < before {
            self.revision += 1;
        }
        known
    }

    /// Takes out the leases that are over: what a server does twice a second.
    pub(super) fn sweep(&mut self, now: Duration) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(&id, _)| id).collect();
        for id in over {
            self.revoke(id);
        }
    }

    /// A new leader gives every lease its whole length again.
    pub(super) fn new_leader(&mut self, now: Duration) {
        for lease in self.leases.values_mut() {
            lease.ends = now + Lease::length(lease.seconds);
        }
    }
}

impl Lease {
    fn length(seconds: i64) -> Duration {
        Duration::from_secs(seconds.unsigned_abs())
    }
}
