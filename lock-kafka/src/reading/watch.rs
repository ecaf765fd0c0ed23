//! Whether the log is still the one that was read.
//!
//! One that was made anew under the same name, or that lost its end and has grown again, gives no error where it is longer
//! than what was read. But what a log answers to "which is the first of your records that is not older than this?" stays the
//! same for ever, once there is one: so it is asked again and again for a record that is newer than all before it.

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

/// The records of a partition that were newer than all before them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heights {
    /// From where on all was read: behind it there is no offset without a record, such as Kafka's marks of transactions.
    begun: u64,
    /// After the last record that was read.
    next: u64,
    /// The newest stamp of all.
    highest: Option<i64>,
    /// The last record that was newer than those before it; not the first of all that was read, before which nothing is known.
    height: Option<(u64, i64)>,
}

impl Heights {
    /// Another reader begins at `offset`.
    pub(super) fn read_from(self, offset: u64) -> Heights {
        // What lies in between is not known.
        if offset > self.next { Heights::default() } else { self }
    }

    pub(super) fn takes_in(&mut self, offset: u64, stamp: i64) {
        if offset > self.next {
            self.begun = offset;
        }
        self.next = self.next.max(offset + 1);
        match self.highest {
            None => self.highest = Some(stamp),
            Some(highest) if stamp > highest => {
                (self.highest, self.height) = (Some(stamp), Some((offset, stamp)));
            }
            Some(_) => {}
        }
    }
}

/// A record that is asked for: nothing that was read before it is as new.
#[derive(Clone, Copy, Debug)]
struct Known {
    stamp: i64,
    offset: u64,
    /// An earlier one that is as new may lie before this.
    begun: u64,
    /// Nor does one lie before this: the answer for an older stamp.
    least: u64,
    /// When it was found, or was first asked for.
    at: Instant,
}

struct Asking {
    topic: Arc<str>,
    places: Arc<Places>,
    known: HashMap<i32, Known>,
}

impl Watch {
    /// Begins to ask.
    pub(super) fn begin(topic: &Arc<str>, consumer: &Arc<Consumer>, places: &Arc<Places>) -> Result<Watch> {
        let (nudge, nudged) = mpsc::channel();
        let consumer: Weak<Consumer> = Arc::downgrade(consumer);
        let mut asking = Asking { topic: topic.clone(), places: places.clone(), known: HashMap::new() };
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
        let heights: HashMap<i32, Heights> = {
            let places = self.places.lock();
            let read = places.iter().filter(|(_, place)| place.halt.is_none());
            read.map(|(&partition, place)| (partition, place.heights)).collect()
        };
        self.known.retain(|partition, _| heights.contains_key(partition));
        for (partition, Heights { begun, height, .. }) in &heights {
            if let Some((offset, stamp)) = *height {
                self.known.entry(*partition).or_insert(Known { stamp, offset, begun: *begun, least: 0, at });
            }
        }
        let asked = self.known.iter().map(|(&partition, known)| (partition, known.stamp));
        for (partition, found) in self.first(consumer, asked) {
            let Some(known) = self.known.get(&partition).copied() else { continue };
            let Some(first) = found.filter(|first| known.is(*first)) else {
                self.is_not_there(consumer, partition, known);
                continue;
            };
            let Some(Heights { begun, height: Some((offset, stamp)), .. }) = heights.get(&partition) else {
                continue;
            };
            // It was read before the log was found to be the same: so it is of this one.
            let least = if *stamp >= known.stamp { first } else { 0 };
            let known = Known { stamp: *stamp, offset: *offset, begun: *begun, least, at };
            self.known.insert(partition, known);
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

    /// This record is not the first that is as new: because nobody needs it any more, or because the log is another one.
    fn is_not_there(&mut self, consumer: &Consumer, partition: i32, known: Known) {
        let bounds = consumer.fetch_watermarks(&self.topic, partition, BOUNDS_WITHIN);
        let Ok((low, high)) = bounds else { return };
        let (low, high) = (u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default());
        let halt = if known.offset < low {
            // Its readers would have to have read fast.
            if known.at.elapsed() < LONG {
                // What is still there may be older, where clocks went back.
                self.known.remove(&partition);
                if let Some(place) = self.places.lock().get_mut(&partition) {
                    place.heights = Heights::default();
                }
                return;
            }
            Halt::Missing
        } else if known.offset < high {
            // A leader that is new may not have known all that it has.
            let again = self.first(consumer, std::iter::once((partition, known.stamp)));
            if again.get(&partition).is_none_or(|found| found.is_some_and(|first| known.is(first))) {
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

impl Known {
    /// Whether this answer is one that its log gives.
    fn is(&self, first: u64) -> bool {
        first == self.offset || (self.least..self.begun).contains(&first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_height_is_what_is_newer_than_all_that_was_read() {
        let mut heights = Heights::default();
        for (offset, stamp) in [(10, 5), (11, 5), (12, 7), (13, 6), (14, 7), (15, 8), (16, 8)] {
            heights.takes_in(offset, stamp);
        }
        assert_eq!((heights.begun, heights.height), (10, Some((15, 8))));
        let mut again = heights.read_from(4);
        again.takes_in(4, 3);
        assert_eq!((again.begun, again.height), (10, Some((15, 8))), "it reads the same once more");
        let later = heights.read_from(40);
        assert_eq!((later.highest, later.height), (None, None), "what lies in between is not known");
        heights.takes_in(20, 9);
        assert_eq!((heights.begun, heights.height), (20, Some((20, 9))), "nor what a mark has for a stamp");
    }

    #[test]
    fn another_log_answers_otherwise() {
        let known = Known { stamp: 8, offset: 15, begun: 10, least: 0, at: Instant::now() };
        assert_eq!([15, 9, 12, 16, 0].map(|first| known.is(first)), [true, true, false, false, true]);
        let whole = Known { begun: 0, ..known };
        assert!(!whole.is(0), "who has read all of it knows the first record");
        let asked = Known { least: 9, ..known };
        assert_eq!([15, 9, 0].map(|first| asked.is(first)), [true, true, false]);
    }
}
