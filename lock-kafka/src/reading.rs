//! Reading: one consumer for all partitions of a backend, on a thread of its own.
//!
//! It is assigned its partitions at offsets, belongs to no group and commits nothing. Its thread hands what it reads to the
//! newest [`Reader`] of the partition. The library's calls may block, its end most of all: so the thread owns it in the end,
//! and ends when nobody else has it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{Error, ErrorKind, Result};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::errors::Halt;
use crate::log::{Batch, Entry, Reader};
use crate::rd::{Consumer, Quiet, not_made};

/// How often the thread looks whether it is needed, while nothing is to be read.
const IDLE: Duration = Duration::from_millis(100);

/// How long the brokers may take to say where a log begins and ends.
const BOUNDS_WITHIN: Duration = Duration::from_secs(2);

/// At most so many records are handed over at once.
const BATCH: usize = 1_000;

/// So many batches lie ready for a reader that is slower than the brokers.
const READY: usize = 16;

/// So many records more, and nothing is fetched for it until it goes on; it is looked again after this time.
const ENOUGH: (usize, Duration) = (10_000, Duration::from_millis(2));

type News = std::result::Result<Batch, Halt>;

/// The consumer of a backend.
pub(crate) struct Reading {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    places: Arc<Places>,
}

/// Who reads what, by partition.
#[derive(Default)]
struct Places(Mutex<HashMap<i32, Place>>);

struct Place {
    /// The offset of what is to be read next.
    next: u64,
    /// Somebody else than the thread has moved it, so that the thread may still have a record of before in its hands.
    is_fresh: bool,
    is_paused: bool,
    /// What was read and is not handed over.
    read: Vec<Entry>,
    /// Why nothing more is read.
    halt: Option<Halt>,
    tell: mpsc::Sender<News>,
}

impl Reading {
    pub(crate) fn new(config: &ClientConfig, topic: &str) -> Result<Reading> {
        let consumer = Consumer::from_config_and_context(config, Quiet::default()).map_err(not_made)?;
        let (consumer, places, topic) = (Arc::new(consumer), Arc::new(Places::default()), Arc::from(topic));
        let hands = Hands { topic: Arc::clone(&topic), consumer: consumer.clone(), places: places.clone() };
        let thread = thread::Builder::new().name("fencelock-kafka".into());
        thread.spawn(move || hands.work()).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread to read the log on").with_source(error)
        })?;
        Ok(Reading { topic, consumer, places })
    }

    /// Reads a partition from `offset` on. A reader that it had before reads no further.
    pub(crate) fn reader(&self, partition: i32, offset: u64) -> Box<dyn Reader> {
        let (tell, told) = mpsc::channel(READY);
        let mut places = self.places.lock();
        if places.remove(&partition).is_some_and(|place| place.halt.is_none()) {
            leave(&self.consumer, &self.topic, partition);
        }
        let place =
            Place { next: offset, is_fresh: true, is_paused: false, read: Vec::new(), halt: None, tell };
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's part.
struct Hands {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    places: Arc<Places>,
}

impl Hands {
    fn work(self) {
        let mut is_ahead = false;
        while Arc::strong_count(&self.consumer) > 1 {
            let mut wait = if is_ahead { ENOUGH.1 } else { IDLE };
            for _ in 0..BATCH {
                match self.consumer.poll(wait) {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(error)) => self.look_after(&error),
                    None => break,
                }
                wait = Duration::ZERO;
            }
            is_ahead = self.hand_over();
        }
    }

    fn take(&self, message: &impl Message) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&message.partition()) else { return };
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        if offset < place.next || place.halt.is_some() {
            return;
        }
        if std::mem::take(&mut place.is_fresh) && offset > place.next {
            let next = place.next;
            leave(&self.consumer, &self.topic, message.partition());
            enter(&self.consumer, &self.topic, message.partition(), next);
            return;
        }
        let stamp = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
        let stamp = stamp.unwrap_or_default().saturating_mul(1_000);
        place.next = offset + 1;
        place.read.push(Entry { offset, stamp, bytes: message.payload().unwrap_or_default().to_vec() });
    }

    /// Tells the readers what was read; whether one of them has more to come.
    fn hand_over(&self) -> bool {
        let mut is_ahead = false;
        self.places.lock().retain(|&partition, place| {
            if place.read.is_empty() && place.halt.is_none() {
                return true;
            }
            match place.tell.try_reserve() {
                Ok(permit) if place.read.is_empty() => {
                    permit.send(place.halt.take().map_or_else(|| Ok(Batch::default()), Err));
                    return false;
                }
                Ok(permit) => {
                    permit.send(Ok(Batch { entries: std::mem::take(&mut place.read), end: place.next }));
                    is_ahead |= place.halt.is_some();
                    if std::mem::take(&mut place.is_paused) {
                        self.pause(partition, false);
                    }
                }
                Err(TrySendError::Full(())) => {
                    is_ahead = true;
                    if place.read.len() >= ENOUGH.0 && !place.is_paused && place.halt.is_none() {
                        place.is_paused = true;
                        self.pause(partition, true);
                    }
                }
                Err(TrySendError::Closed(())) => {
                    if place.halt.is_none() {
                        leave(&self.consumer, &self.topic, partition);
                    }
                    return false;
                }
            }
            true
        });
        is_ahead
    }

    fn pause(&self, partition: i32, on: bool) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let done = if on { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::error!(%error, topic = &*self.topic, partition, on, "the log cannot be paused");
        }
    }

    fn look_after(&self, error: &KafkaError) {
        tracing::debug!(%error, topic = &*self.topic, "reading the log");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.find_out(false);
            }
            Some(RDKafkaErrorCode::LogTruncation) => {
                self.find_out(true);
            }
            // The library tries again by itself.
            _ => {}
        }
    }

    /// A place was not there: whose? The event does not say.
    fn find_out(&self, is_truncated: bool) {
        let all: Vec<(i32, u64)> = {
            let places = self.places.lock();
            let read = places.iter().filter(|(_, place)| place.halt.is_none());
            read.map(|(&partition, place)| (partition, place.next)).collect()
        };
        let mut is_explained = false;
        let mut whole = Vec::new();
        for (partition, next) in all {
            let bounds = self.consumer.fetch_watermarks(&self.topic, partition, BOUNDS_WITHIN);
            match bounds.map(|(low, high)| (u64::try_from(low), u64::try_from(high))) {
                Ok((Ok(low), _)) if next < low => {
                    is_explained = true;
                    self.halt(partition, next, Halt::Missing);
                }
                Ok((_, Ok(high))) if high < next => {
                    is_explained = true;
                    self.halt(partition, next, Halt::Truncated);
                }
                _ => whole.push((partition, next)),
            }
        }
        for (partition, next) in whole {
            if is_truncated && !is_explained {
                // The log has grown again since it lost its end, so that its length tells nothing.
                self.halt(partition, next, Halt::Truncated);
            } else {
                self.go_on(partition, next);
            }
        }
    }

    /// The reader of this place reads no further than to here.
    fn halt(&self, partition: i32, next: u64, halt: Halt) {
        if let Some(place) = self.places.lock().get_mut(&partition)
            && place.next == next
            && place.halt.is_none()
        {
            leave(&self.consumer, &self.topic, partition);
            place.halt = Some(halt);
        }
    }

    /// Reads on where it was: the library has stopped at one of the places.
    fn go_on(&self, partition: i32, next: u64) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&partition)
            && place.next == next
        {
            place.is_paused = false;
            leave(&self.consumer, &self.topic, partition);
            enter(&self.consumer, &self.topic, partition, next);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
    use rdkafka::producer::FutureRecord;
    use tokio::time::timeout;

    use super::*;
    use crate::rd::{Chore, Producer, config};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_that_stands_still_stops_the_fetching_and_misses_nothing() {
        const RECORDS: u64 = 60_000;
        let server = testbed::KafkaServer::start().unwrap();
        let more = BTreeMap::from([
            ("bootstrap.servers".to_owned(), server.addr().to_string()),
            ("linger.ms".to_owned(), "5".to_owned()),
        ]);
        let config = config(&ClientConfig::new(), &more).unwrap();
        let (chore, topic) =
            (Chore::new(&config).unwrap(), NewTopic::new("log", 1, TopicReplication::Fixed(1)));
        chore.admin().unwrap().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        let producer = Producer::from_config_and_context(&config, Quiet::default()).unwrap();
        let record = || FutureRecord::<str, str>::to("log").payload("a record");
        let sent = (0..RECORDS).map(|_| producer.send_result(record()).map_err(|(error, _)| error));
        for sent in sent.collect::<std::result::Result<Vec<_>, _>>().unwrap() {
            sent.await.unwrap().unwrap();
        }
        let reading = Reading::new(&config, "log").unwrap();
        let mut reader = reading.reader(0, 0);
        let is_paused = || Ok(reading.places.lock()[&0].is_paused.then_some(()));
        testbed::wait_for("the pause", Duration::from_secs(30), is_paused).unwrap();
        let mut next = 0;
        while next < RECORDS {
            let batch = timeout(Duration::from_secs(30), reader.next()).await.expect("it goes on");
            for entry in batch.unwrap().entries {
                assert_eq!(entry.offset, next);
                next += 1;
            }
        }
        // Another one, from the middle.
        let first = reading.reader(0, RECORDS / 2).next().await.unwrap().entries.remove(0);
        assert_eq!(first.offset, RECORDS / 2);
    }
}
