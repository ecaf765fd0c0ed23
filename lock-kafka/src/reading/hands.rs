//! The thread that reads.
//!
//! The library's calls may block, its end most of all: so the thread owns the consumer in the end, and ends when no reader has it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use lockcore::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::watch::Watch;
use super::{Last, Place, Places, enter, leave};
use crate::checkpoint::Hash;
use crate::errors::Halt;
use crate::log::{Batch, Entry};
use crate::rd::Consumer;

/// How often the thread looks whether it is needed, while nothing is to be read.
const IDLE: Duration = Duration::from_millis(100);

/// How long the brokers may take to say where a log begins and ends.
pub(super) const BOUNDS_WITHIN: Duration = Duration::from_secs(2);

/// At most so many records are handed over at once.
const BATCH: usize = 1_000;

/// So many records more, and nothing is fetched for it until it goes on; it is looked again after this time.
const ENOUGH: (usize, Duration) = (10_000, Duration::from_millis(2));

/// The thread's part.
pub(super) struct Hands {
    topic: Arc<str>,
    consumer: Arc<Consumer>,
    places: Arc<Places>,
    watch: Watch,
}

impl Hands {
    /// Begins to read.
    pub(super) fn begin(
        topic: &Arc<str>,
        consumer: &Arc<Consumer>,
        places: &Arc<Places>,
        watch: Watch,
    ) -> Result<()> {
        let (topic, consumer, places) = (topic.clone(), consumer.clone(), places.clone());
        let hands = Hands { topic, consumer, places, watch };
        let thread = thread::Builder::new().name("fencelock-kafka".into());
        let begun = thread.spawn(move || hands.work()).map(drop);
        begun.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread to read the log on").with_source(error)
        })
    }

    fn work(self) {
        let mut is_ahead = false;
        while Arc::strong_count(&self.consumer) > 1 {
            let mut wait = if is_ahead { ENOUGH.1 } else { IDLE };
            for _ in 0..BATCH {
                let asked = self.places.asked.fetch_add(1, Ordering::SeqCst) + 1;
                match self.consumer.poll(wait) {
                    Some(Ok(message)) => self.take(&message, asked),
                    Some(Err(KafkaError::PartitionEOF(partition))) => self.at_end(partition, asked),
                    Some(Err(error)) => self.look_after(&error),
                    None => break,
                }
                wait = Duration::ZERO;
            }
            is_ahead = self.hand_over();
        }
    }

    fn take(&self, message: &impl Message, asked: u64) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&message.partition()) else { return };
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        if place.halt.is_some() {
            return;
        }
        let (millis, bytes) = (message.timestamp().to_millis(), message.payload().unwrap_or_default());
        let millis = millis.unwrap_or_default().max(0);
        let stamp = u64::try_from(millis).unwrap_or_default().saturating_mul(1_000);
        let is = |last| last == Last { offset, stamp, hash: Hash::of(bytes) };
        if mem::take(&mut place.is_in_doubt) && !place.last().is_none_or(is) {
            leave(&self.consumer, &self.topic, message.partition());
            place.halt = Some(Halt::Truncated);
            return;
        }
        if offset < place.next {
            return;
        }
        if place.asked == asked && offset > place.next {
            return self.enter_again(message.partition(), place);
        }
        place.next = offset + 1;
        place.heights.takes_in(offset, millis);
        place.read.push(Entry { offset, stamp, bytes: bytes.to_vec() });
    }

    /// All there is of a partition was read; what lies behind the last record and before the end is none.
    fn at_end(&self, partition: i32, asked: u64) {
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(&partition).filter(|place| place.halt.is_none()) else { return };
        if place.asked == asked {
            return self.enter_again(partition, place);
        }
        let positions = self.consumer.position();
        let position =
            positions.ok().and_then(|all| all.find_partition(&self.topic, partition)?.offset().to_raw());
        if let Some(position) = position.and_then(|position| u64::try_from(position).ok())
            && position > place.next
        {
            (place.next, place.is_further) = (position, true);
        }
    }

    /// What was heard may be of before this place was made.
    fn enter_again(&self, partition: i32, place: &Place) {
        leave(&self.consumer, &self.topic, partition);
        enter(&self.consumer, &self.topic, partition, place.next);
    }

    /// Tells the readers what was read; whether one of them has more to come.
    fn hand_over(&self) -> bool {
        let mut is_ahead = false;
        self.places.lock().retain(|&partition, place| {
            let is_news = !place.read.is_empty() || place.is_further;
            if !is_news && place.halt.is_none() {
                return true;
            }
            match place.tell.try_reserve() {
                Ok(permit) if is_news => {
                    place.last = place.last();
                    let (entries, next) = (mem::take(&mut place.read), place.next);
                    place.is_further = false;
                    permit.send(Ok(Batch { entries, next, end: next }));
                    is_ahead |= place.halt.is_some();
                    if mem::take(&mut place.is_paused) {
                        self.pause(partition, false);
                    }
                }
                Ok(permit) => {
                    if let Some(halt) = place.halt.take() {
                        permit.send(Err(halt));
                    }
                    return false;
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
                self.find_out();
            }
            // It may be given the right later.
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => drop(self.places.denied.send_replace(true)),
            // It fetches the same again.
            Some(RDKafkaErrorCode::BadMessage) => self.watch.look_now(),
            // The library tries again by itself; what it comes back to may be another log.
            _ => {
                for (partition, next) in self.read() {
                    self.go_on(partition, next, 0);
                }
                self.watch.look_now();
            }
        }
    }

    /// A place was not there, or the leaders' epochs do not fit: the library tells both alike, and not of which partition.
    fn find_out(&self) {
        let begun = Instant::now();
        for (partition, next) in self.read() {
            // For all of them: meanwhile nothing is read. Whoever is not asked for comes back to here.
            let within = BOUNDS_WITHIN.saturating_sub(begun.elapsed());
            let bounds = self.consumer.fetch_watermarks(&self.topic, partition, within);
            match bounds.map(|(low, high)| (u64::try_from(low), u64::try_from(high))) {
                Ok((Ok(low), _)) if next < low => self.halt(partition, next, Halt::Missing),
                Ok((_, Ok(high))) if high < next => self.halt(partition, next, Halt::Truncated),
                Ok((Ok(low), _)) => self.go_on(partition, next, low),
                _ => self.go_on(partition, next, 0),
            }
        }
        // One that was shorter a moment ago may be another one.
        self.watch.look_now();
    }

    /// What is read, and how far it has been.
    fn read(&self) -> Vec<(i32, u64)> {
        let places = self.places.lock();
        let read = places.iter().filter(|(_, place)| place.halt.is_none());
        read.map(|(&partition, place)| (partition, place.next)).collect()
    }

    /// The reader of this place reads no further than to here.
    fn halt(&self, partition: i32, next: u64, halt: Halt) {
        if self.places.lock().get(&partition).is_some_and(|place| place.next == next) {
            self.places.halt(&self.consumer, &self.topic, partition, halt);
        }
    }

    /// Reads on where it was, in a log that begins at `low` or later.
    fn go_on(&self, partition: i32, next: u64, low: u64) {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&partition)
            && place.next == next
        {
            place.is_paused = false;
            leave(&self.consumer, &self.topic, partition);
            enter(&self.consumer, &self.topic, partition, place.goes_on_from(low));
        }
    }
}

impl Place {
    /// The last record that was read, handed over or not.
    pub(super) fn last(&self) -> Option<Last> {
        self.read.last().map(Last::of).or(self.last)
    }

    /// From where it is read on, in a log that begins at `low` or later. The length of the log tells nothing, for it may have grown
    /// again since it lost its end; but then what was read last is not what is there now.
    pub(super) fn goes_on_from(&mut self, low: u64) -> u64 {
        // A reader that has begun further back than the last one is still to come to that.
        let last = self.last().filter(|last| low <= last.offset && last.offset < self.next);
        self.is_in_doubt = last.is_some();
        last.map_or(self.next, |last| last.offset)
    }
}
