//! Whether the log is still the one that was read.
//!
//! One that was made anew under the same name, or that lost its end and has grown again, gives no error where it is longer
//! than what was read. But what a log answers to "which is the first of your records that is not older than this?" stays the
//! same for ever, once there is one: so the same is asked again and again.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use lockcore::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::Places;
use super::hands::BOUNDS_WITHIN;
use crate::errors::Halt;
use crate::rd::Consumer;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Whoever has not asked for so long, and what it knew of is not there any more, begins anew.
const LONG: Duration = Duration::from_secs(10);

/// A hand on the thread that asks; it ends when this is gone.
pub(super) struct Watch(Sender<()>);

/// What was answered, and when.
#[derive(Clone, Copy, Debug)]
struct Answer {
    stamp: i64,
    first: u64,
    at: Instant,
}

struct Asking {
    topic: Arc<str>,
    places: Arc<Places>,
    answers: HashMap<i32, Answer>,
}

impl Watch {
    /// Begins to ask.
    pub(super) fn begin(topic: &Arc<str>, consumer: &Arc<Consumer>, places: &Arc<Places>) -> Result<Watch> {
        let (nudge, nudged) = mpsc::channel();
        let consumer: Weak<Consumer> = Arc::downgrade(consumer);
        let mut asking = Asking { topic: topic.clone(), places: places.clone(), answers: HashMap::new() };
        let thread = thread::Builder::new().name("fencelock-kafka-log".into());
        let begun = thread.spawn(move || {
            while !matches!(nudged.recv_timeout(EVERY), Err(RecvTimeoutError::Disconnected)) {
                let Some(consumer) = consumer.upgrade() else { return };
                asking.look(&consumer);
                // Whoever wanted that meanwhile has it.
                while nudged.try_recv().is_ok() {}
            }
        });
        begun.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread to watch the log on").with_source(error)
        })?;
        Ok(Watch(nudge))
    }

    /// Asks at once.
    pub(super) fn look_now(&self) {
        // It ends after its last hand.
        let _ = self.0.send(());
    }
}

impl Asking {
    fn look(&mut self, consumer: &Consumer) {
        let at = Instant::now();
        let last: HashMap<i32, (u64, i64)> = {
            let places = self.places.lock();
            let read = places.iter().filter(|(_, place)| place.halt.is_none());
            read.filter_map(|(&partition, place)| Some((partition, place.last?)))
                .map(|(partition, last)| (partition, (last.offset, last.millis)))
                .collect()
        };
        let is_newer =
            |partition: &i32, stamp| self.answers.get(partition).is_none_or(|old| old.stamp != stamp);
        let newer = last.iter().map(|(&partition, &(_, stamp))| (partition, stamp));
        let newer = self.first(consumer, newer.filter(|(partition, stamp)| is_newer(partition, *stamp)));
        // After that, so that what is new was answered by the log of before if this one is.
        let older = self.answers.iter().filter(|(partition, _)| last.contains_key(partition));
        let older = self.first(consumer, older.map(|(&partition, answer)| (partition, answer.stamp)));
        for (partition, (offset, stamp)) in last {
            if let Some(&known) = self.answers.get(&partition) {
                let Some(&found) = older.get(&partition) else { continue };
                if found == Some(known.first) {
                    self.answers.insert(partition, Answer { at, ..known });
                } else {
                    self.answers.remove(&partition);
                    self.is_not_there(consumer, partition, known, |first| first == known.first);
                    continue;
                }
            }
            match newer.get(&partition) {
                // Every log has a first record: it tells nothing.
                Some(&Some(0)) | None => {}
                Some(&Some(first)) if first <= offset => {
                    self.answers.insert(partition, Answer { stamp, first, at });
                }
                Some(_) => {
                    let read = Answer { stamp, first: offset, at };
                    self.is_not_there(consumer, partition, read, |first| first <= offset);
                }
            }
        }
    }

    /// The first record of each partition with this stamp or a later one, if there is any; nothing of a partition that is not answered
    /// for now.
    fn first(
        &self,
        consumer: &Consumer,
        stamps: impl Iterator<Item = (i32, i64)>,
    ) -> HashMap<i32, Option<u64>> {
        let mut list = TopicPartitionList::new();
        for (partition, stamp) in stamps {
            // It does not fail: a stamp is a number like any offset.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(stamp));
        }
        if list.count() == 0 {
            return HashMap::new();
        }
        let answered = match consumer.offsets_for_times(list, BOUNDS_WITHIN) {
            Ok(answered) => answered,
            Err(error) => {
                tracing::debug!(%error, topic = &*self.topic, "it is not known whether the log is the same");
                return HashMap::new();
            }
        };
        let elements = answered.elements();
        let answers = elements.iter().filter(|element| element.error().is_ok());
        answers
            .filter_map(|element| match element.offset() {
                Offset::Offset(first) => Some((element.partition(), Some(u64::try_from(first).ok()?))),
                Offset::End => Some((element.partition(), None)),
                Offset::Beginning | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
            })
            .collect()
    }

    /// What was at this offset is not there: because nobody needs it any more, or because the log is another one. Then the answer to
    /// the question of this stamp is not right.
    fn is_not_there(
        &self,
        consumer: &Consumer,
        partition: i32,
        Answer { stamp, first: offset, at }: Answer,
        is_right: impl Fn(u64) -> bool,
    ) {
        let bounds = consumer.fetch_watermarks(&self.topic, partition, BOUNDS_WITHIN);
        let Ok((low, high)) = bounds else { return };
        let (low, high) = (u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default());
        let halt = if offset < low {
            // Its readers would have to have read fast.
            if at.elapsed() < LONG {
                return;
            }
            Halt::Missing
        } else if offset < high {
            // A leader that is new may not have known all that it has.
            let again = self.first(consumer, std::iter::once((partition, stamp)));
            if again.get(&partition).is_none_or(|found| found.is_some_and(&is_right)) {
                return;
            }
            Halt::Truncated
        } else {
            // Whoever reads on there is told.
            return;
        };
        self.places.halt(consumer, &self.topic, partition, halt);
    }
}
