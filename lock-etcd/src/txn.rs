//! What is asked of the server, and what it answers, in words of our own: etcd's transactions, as far as locks need them.

use crate::keys::Span;

/// Compares, and what is done when all of them hold, or else. All in one, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Txn {
    pub(crate) when: Vec<Compare>,
    pub(crate) then: Vec<TxnOp>,
    pub(crate) otherwise: Vec<TxnOp>,
}

/// A question about one key, or about each key of a range. One that is not there, and a range that is empty, compare as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) start: String,
    /// The end of the range; `None` for the one key.
    pub(crate) end: Option<String>,
    pub(crate) is: Is,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    CreatedAt(i64),
    ModifiedAt(i64),
    ModifiedBefore(i64),
}

/// One step of a transaction. They are done in their order, and a read sees what was written before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TxnOp {
    Put { name: String, value: Vec<u8>, lease: OnLease },
    Delete { name: String },
    Get(Get),
    Txn(Txn),
}

/// Where what is put lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLease {
    /// On the lease of this id, without which the whole transaction fails.
    Of(i64),
    /// Where the key lies already; it must be there, or the whole transaction fails.
    Kept,
}

/// A read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) start: String,
    /// The end of the range; `None` for the one key.
    pub(crate) end: Option<String>,
    /// How many at most; zero for all.
    pub(crate) limit: i64,
    /// In the order of their creation, not of their names.
    pub(crate) by_creation: bool,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The revision that it made, or that it saw.
    pub(crate) revision: i64,
    pub(crate) succeeded: bool,
    /// The answers to its reads, in their order.
    pub(crate) gets: Vec<Read>,
    /// How many keys its deletions removed.
    pub(crate) deleted: i64,
    /// Whether a transaction inside it succeeded, and the answers to its reads.
    pub(crate) inner: Option<(bool, Vec<Read>)>,
}

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) kvs: Vec<KeyValue>,
    /// How many there are, whatever the limit.
    pub(crate) count: i64,
    /// Whether the limit left some out.
    pub(crate) more: bool,
}

/// A key as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) lease: i64,
}

impl Txn {
    pub(crate) fn new() -> Txn {
        Txn::default()
    }

    pub(crate) fn when(mut self, compares: impl Into<Vec<Compare>>) -> Txn {
        self.when = compares.into();
        self
    }

    pub(crate) fn and_then(mut self, ops: impl Into<Vec<TxnOp>>) -> Txn {
        self.then = ops.into();
        self
    }

    pub(crate) fn or_else(mut self, ops: impl Into<Vec<TxnOp>>) -> Txn {
        self.otherwise = ops.into();
        self
    }
}

/// Is there no such key?
pub(crate) fn absent(name: impl Into<String>) -> Compare {
    Compare { start: name.into(), end: None, is: Is::CreatedAt(0) }
}

/// Is the range empty? An empty range compares as zeros, and a key that is there has no zero.
pub(crate) fn empty((start, end): Span) -> Compare {
    Compare { start, end: Some(end), is: Is::CreatedAt(0) }
}

/// Was this key's last write the one of this revision? Never the creation, which a later write keeps.
pub(crate) fn unchanged(name: &str, revision: i64) -> Compare {
    Compare { start: name.to_owned(), end: None, is: Is::ModifiedAt(revision) }
}

/// Has nothing in the range been written since this revision? What was deleted since is not seen, and need not be.
pub(crate) fn nothing_new((start, end): Span, revision: i64) -> Compare {
    Compare { start, end: Some(end), is: Is::ModifiedBefore(revision.saturating_add(1)) }
}

pub(crate) fn put(name: impl Into<String>, value: impl Into<Vec<u8>>, lease: i64) -> TxnOp {
    TxnOp::Put { name: name.into(), value: value.into(), lease: OnLease::Of(lease) }
}

/// Another value on the lease that the key has.
pub(crate) fn rewrite(name: impl Into<String>, value: impl Into<Vec<u8>>) -> TxnOp {
    TxnOp::Put { name: name.into(), value: value.into(), lease: OnLease::Kept }
}

pub(crate) fn delete(name: impl Into<String>) -> TxnOp {
    TxnOp::Delete { name: name.into() }
}

pub(crate) fn get(name: impl Into<String>) -> TxnOp {
    TxnOp::Get(Get { start: name.into(), ..Get::default() })
}

pub(crate) fn get_range((start, end): Span) -> TxnOp {
    TxnOp::Get(Get { start, end: Some(end), ..Get::default() })
}
