//! The log of one partition, as far as the protocol needs it.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;

use crate::errors::Halt;

/// What became of an append. It is a hint: what counts is what is read.
pub type Appending = Pin<Box<dyn Future<Output = Result<(), Append>> + Send>>;

/// An append that is not known to have worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// It was never sent, and never will be.
    NotSent(String),
    /// The brokers refuse it: this client may not write.
    Denied(String),
    /// It may be in the log, or come to be there.
    Doubtful(String),
}

/// One record as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place: larger than that of every record before it.
    pub offset: u64,
    /// The broker's wall clock when it appended, in microseconds since 1970. It may stand still and go back.
    pub stamp: u64,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// Some records, in their order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records; there may be none, if what was passed over is not records.
    pub entries: Vec<Entry>,
    /// How far the log has been read: after the last record, and after offsets behind it that have none, such as Kafka's marks
    /// of transactions.
    pub next: u64,
    /// The end of the log as far as the reader knows: the offset of the next record to come.
    pub end: u64,
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The offset of the first record that is still there.
    pub start: u64,
    /// The offset of the next record to come.
    pub end: u64,
}

/// One partition.
///
/// Read is only what all replicas of it have (Kafka's high watermark). What was read stays, unless the log breaks its
/// promise: then the reader says so if it can tell ([`Halt::Truncated`]).
#[async_trait]
pub trait Log: Debug + Send + Sync + 'static {
    /// Sends a record on its way, in the order of the calls: it may arrive once, more than once, late or never, whatever
    /// the future says and whether or not it is polled.
    fn append(&self, key: Option<&str>, bytes: Vec<u8>) -> Appending;

    /// Where the log begins and ends.
    ///
    /// # Errors
    /// Why that is not known now.
    async fn bounds(&self) -> Result<Bounds, String>;

    /// Reads from `offset` on.
    fn reader(&self, offset: u64) -> Box<dyn Reader>;

    /// Nobody needs what lies before `offset` any more: it may be deleted, now, later or never.
    fn forget(&self, offset: u64);
}

/// A place in a log.
#[async_trait]
pub trait Reader: Debug + Send {
    /// The next records, or how much further nothing is; waits until there is either, and rides out brokers that are away. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`Halt::Missing`] when the log begins later by now, [`Halt::Truncated`] when it is seen to have lost what was read.
    async fn next(&mut self) -> Result<Batch, Halt>;
}
