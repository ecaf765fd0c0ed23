//! Reading from a real broker.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::producer::FutureRecord;
use tokio::time::timeout;

use super::*;
use crate::rd::{Chore, Producer, config};

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_stops_the_fetching_and_misses_nothing() {
    const RECORDS: u64 = 60_000;
    let server = testbed::KafkaServer::start().unwrap();
    let more = BTreeMap::from([
        ("bootstrap.servers".to_owned(), server.addr().to_string()),
        ("linger.ms".to_owned(), "5".to_owned()),
    ]);
    let config = config(&ClientConfig::new(), &more).unwrap();
    let (chore, topic) = (Chore::new(&config).unwrap(), NewTopic::new("log", 1, TopicReplication::Fixed(1)));
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

#[test]
fn what_was_read_last_is_read_once_more_if_it_is_there_and_not_yet_to_come() {
    let goes_on = |next, low| {
        let last = Some(Last { offset: 99, stamp: 0, hash: Hash::of(b"a record") });
        let (read, tell, heights) = (Vec::new(), mpsc::channel(1).0, Heights::default());
        let (asked, is_further, is_paused, is_in_doubt, halt) = (0, false, false, false, None);
        let mut place =
            Place { next, is_further, asked, is_paused, read, last, heights, is_in_doubt, halt, tell };
        let from = place.goes_on_from(low);
        (from, place.is_in_doubt)
    };
    assert_eq!(goes_on(100, 0), (99, true));
    assert_eq!(goes_on(120, 0), (99, true), "marks of transactions are no records");
    assert_eq!(goes_on(100, 100), (100, false), "it is not there any more");
    assert_eq!(goes_on(0, 0), (0, false), "a search had read it before the log is read");
    assert_eq!(goes_on(99, 0), (99, false));
}

/// A place that is in doubt for another's sake is read on as if nothing had been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_partition_that_is_shorter_is_not_the_others_end() {
    let server = testbed::KafkaServer::start().unwrap();
    let more = BTreeMap::from([("bootstrap.servers".to_owned(), server.addr().to_string())]);
    let config = config(&ClientConfig::new(), &more).unwrap();
    let (chore, topic) = (Chore::new(&config).unwrap(), NewTopic::new("log", 2, TopicReplication::Fixed(1)));
    chore.admin().unwrap().create_topics([&topic], &AdminOptions::new()).await.unwrap();
    let producer = Producer::from_config_and_context(&config, Quiet::default()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let written = {
        let over = over.clone();
        tokio::spawn(async move {
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let record = FutureRecord::<str, str>::to("log").partition(0).payload("a record");
                producer.send(record, BOUND).await.unwrap();
                count += 1;
            }
            count
        })
    };
    let reading = Arc::new(Reading::new(&config, "log").unwrap());
    let mut reader = reading.reader(0, 0);
    let read = tokio::spawn(async move {
        let mut next = 0;
        loop {
            match timeout(BOUND / 10, reader.next()).await {
                Ok(batch) => {
                    for entry in batch.unwrap().entries {
                        assert_eq!(entry.offset, next);
                        next += 1;
                    }
                }
                Err(_) => return next,
            }
        }
    });
    for _ in 0..50 {
        // There is nothing in it, least of all so much.
        let mut beyond = reading.reader(1, 1_000);
        let told = timeout(BOUND, beyond.next()).await.expect("it is noticed");
        assert_eq!(told.unwrap_err(), Halt::Truncated);
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(written.await.unwrap(), read.await.unwrap());
}
