//! What a lock could cost at best on a topic: a record that its writer reads again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lock_kafka::rdkafka::config::ClientConfig;
use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::rdkafka::message::Message;
use lock_kafka::rdkafka::producer::{FutureProducer, FutureRecord};
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lockcore::Mode;
use tokio::sync::oneshot;

use crate::Result;
use crate::worker::{Contender, Worker};

/// About as long as the record of an acquire.
const RECORD_BYTES: usize = 300;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A producer and a consumer of one topic, set as the library's are.
pub(crate) struct Bare {
    producer: FutureProducer,
    topic: &'static str,
    next: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    is_over: Arc<AtomicBool>,
}

type Waiting = HashMap<u64, oneshot::Sender<()>>;

pub(super) fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("bootstrap.servers", broker),
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "0"),
        ("socket.nagle.disable", "true"),
        ("fetch.wait.max.ms", "100"),
        ("group.id", "bare"),
        ("enable.auto.commit", "false"),
    ] {
        config.set(name, value);
    }
    config
}

/// Where the log of a topic ends.
pub(crate) fn end(broker: &str, topic: &str) -> Result<u64> {
    let consumer: BaseConsumer = config(broker).create()?;
    let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE)?;
    Ok(end.unsigned_abs())
}

/// How many records of a topic from this offset on have this text in them.
pub(crate) fn count(broker: &str, topic: &str, from: u64, text: &str) -> Result<u64> {
    let (consumer, end): (BaseConsumer, _) = (config(broker).create()?, end(broker, topic)?);
    assign(&consumer, topic, i64::try_from(from)?)?;
    let (mut next, mut found) = (from, 0);
    while next < end {
        let message = consumer.poll(PATIENCE).ok_or("the log cannot be read")??;
        next = message.offset().unsigned_abs() + 1;
        let record = message.payload().unwrap_or_default();
        found += u64::from(record.windows(text.len()).any(|part| part == text.as_bytes()));
    }
    Ok(found)
}

/// Reads a topic from this offset on.
pub(super) fn assign(consumer: &BaseConsumer, topic: &str, from: i64) -> Result<()> {
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Offset(from))?;
    Ok(consumer.assign(&place)?)
}

impl Bare {
    pub(crate) fn connect(broker: &str, topic: &'static str) -> Result<Arc<Bare>> {
        let consumer: BaseConsumer = config(broker).create()?;
        let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE)?;
        assign(&consumer, topic, end)?;
        let (waiting, is_over) = (Arc::<Mutex<Waiting>>::default(), Arc::<AtomicBool>::default());
        let (wakes, ends) = (waiting.clone(), is_over.clone());
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    let number = message.payload().and_then(|bytes| bytes.first_chunk()).copied();
                    let waits = number.and_then(|number| locked(&wakes).remove(&u64::from_le_bytes(number)));
                    if let Some(waits) = waits {
                        // Its worker waits for it, unless the round was given up.
                        let _told = waits.send(());
                    }
                }
            }
        });
        let producer = config(broker).create()?;
        Ok(Arc::new(Bare { producer, topic, next: AtomicU64::new(1), waiting, is_over }))
    }

    /// Writes a record and waits until it was read.
    async fn say(&self) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        locked(&self.waiting).insert(number, tell);
        let mut payload = [b' '; RECORD_BYTES];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let record = FutureRecord::<str, [u8]>::to(self.topic).partition(0).payload(&payload[..]);
        let _delivery = self.producer.send_result(record).map_err(|(error, _)| error)?;
        Ok(told.await?)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The floor of a lock: a record, then another one, as an acquire and a release.
pub(crate) struct RoundTrip(pub(crate) Arc<Bare>);

impl Contender for RoundTrip {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        self.0.say().await?;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        self.0.say().await?;
        worker.has_left();
        Ok(())
    }
}
