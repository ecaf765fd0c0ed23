//! Reading, on a real broker.

use std::collections::BTreeMap;
use std::time::Duration;

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
