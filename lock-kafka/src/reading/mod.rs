//! Reading: one consumer for all partitions of a backend, on a thread of its own.
//!
//! It is assigned its partitions at offsets, belongs to no group and commits nothing. Its thread (`hands`) hands what it reads to the
//! newest [`Reader`] of the partition; another one (`watch`) sees to it that the log is still the one that was read.

mod hands;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lockcore::Result;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch as watch_channel};

use self::hands::Hands;
use self::watch::{Heights, Watch};
use crate::checkpoint::Hash;
use crate::errors::Halt;
use crate::log::{Batch, Entry, Reader};
use crate::rd::{Consumer, Quiet, not_made};

/// So many batches lie ready for a reader that is slower than the brokers.
const READY: usize = 16;

type News = std::result::Result<Batch, Halt>;

/// The consumer of a backend.
pub(crate) struct Reading {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    places: Arc<Places>,
}

/// Who reads what.
#[derive(Default)]
struct Places {
    by_partition: Mutex<HashMap<i32, Place>>,
    /// How many times the thread has asked for news.
    asked: AtomicU64,
    /// Whether the brokers have said that this client may not read.
    denied: watch_channel::Sender<bool>,
}

struct Place {
    /// The offset of what is to be read next.
    next: u64,
    /// What of that nobody was told: no records, but that there are none.
    is_further: bool,
    /// How many times the thread had asked for news when this was made: what it hears in answer to the last of them may be of before.
    asked: u64,
    is_paused: bool,
    /// What was read and is not handed over.
    read: Vec<Entry>,
    /// The last record that was handed over.
    last: Option<Last>,
    heights: Heights,
    /// That is read once more, before anything new: the log may have lost it, and grown again.
    is_in_doubt: bool,
    /// Why nothing more is read.
    halt: Option<Halt>,
    tell: mpsc::Sender<News>,
}

/// The last record that was read: another one in its place is not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    offset: u64,
    stamp: u64,
    hash: Hash,
}

impl Last {
    fn of(read: &Entry) -> Last {
        Last { offset: read.offset, stamp: read.stamp, hash: Hash::of(&read.bytes) }
    }
}

impl Reading {
    pub(crate) fn new(config: &ClientConfig, topic: &str) -> Result<Reading> {
        let consumer = Consumer::from_config_and_context(config, Quiet::default()).map_err(not_made)?;
        let (consumer, places, topic) = (Arc::new(consumer), Arc::new(Places::default()), Arc::from(topic));
        let watch = Watch::begin(&topic, &consumer, &places)?;
        Hands::begin(&topic, &consumer, &places, watch)?;
        Ok(Reading { topic, consumer, places })
    }

    /// Waits until the brokers say that this client may not read.
    pub(crate) async fn denied(&self) {
        // The sender lives as long as this.
        drop(self.places.denied.subscribe().wait_for(|denied| *denied).await);
    }

    /// Reads a partition from `offset` on. A reader that it had before reads no further.
    pub(crate) fn reader(&self, partition: i32, offset: u64) -> Box<dyn Reader> {
        let (tell, told) = mpsc::channel(READY);
        let mut places = self.places.lock();
        let before = places.remove(&partition);
        if before.as_ref().is_some_and(|place| place.halt.is_none()) {
            leave(&self.consumer, &self.topic, partition);
        }
        let place = Place {
            next: offset,
            is_further: false,
            asked: self.places.asked.load(Ordering::SeqCst),
            is_paused: false,
            read: Vec::new(),
            last: before.as_ref().and_then(Place::last),
            heights: before.map_or_else(Heights::default, |before| before.heights.read_from(offset)),
            is_in_doubt: false,
            halt: None,
            tell,
        };
        places.insert(partition, place);
        enter(&self.consumer, &self.topic, partition, offset);
        Box::new(Told { partition, told })
    }
}

/// Begins to fetch a partition from this offset on.
fn enter(consumer: &Consumer, topic: &str, partition: i32, offset: u64) {
    let mut list = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    let assigned = list
        .add_partition_offset(topic, partition, offset)
        .and_then(|()| consumer.incremental_assign(&list))
        // It may have been paused for its last reader.
        .and_then(|()| consumer.resume(&list));
    if let Err(error) = assigned {
        tracing::error!(%error, topic, partition, "the log cannot be read");
    }
}

fn leave(consumer: &Consumer, topic: &str, partition: i32) {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    if let Err(error) = consumer.incremental_unassign(&list) {
        tracing::error!(%error, topic, partition, "the log is read on by nobody");
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Place>> {
        self.by_partition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader of this place reads no further.
    fn halt(&self, consumer: &Consumer, topic: &str, partition: i32, halt: Halt) {
        if let Some(place) = self.lock().get_mut(&partition)
            && place.halt.is_none()
        {
            leave(consumer, topic, partition);
            place.halt = Some(halt);
        }
    }
}

/// What the thread tells of one partition.
struct Told {
    partition: i32,
    told: mpsc::Receiver<News>,
}

#[async_trait]
impl Reader for Told {
    async fn next(&mut self) -> News {
        match self.told.recv().await {
            Some(news) => news,
            // Another reader has taken its place, or the backend has ended: nobody waits here.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("topic", &self.topic).finish_non_exhaustive()
    }
}
