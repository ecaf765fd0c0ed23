//! How long it takes to begin with a topic that has a long past.

use std::time::Duration;

use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::Message;
use lock_kafka::rdkafka::consumer::BaseConsumer;
use lock_kafka::rdkafka::error::{KafkaError, RDKafkaErrorCode};
use lock_kafka::rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use lockcore::{Key, LockBackend, LockClient};

use super::peers::{assign, config, end};
use super::server::Kafka;
use crate::Result;
use crate::bench::{Bench, random_key};
use crate::clock::{float, nanos, seconds};
use crate::compare::median;
use crate::report::Line;

/// What is past: as many records as a busy lock writes in a few minutes, and an idle one in years.
const RECORDS: u64 = 1_000_000;
pub(super) const NAME: &str = "past-1000000";
const TOPIC: &str = "bench_past";

/// So many are written in a second, more than fencelock itself does with one broker here: checkpoints are taken on the way.
const PER_SECOND: u64 = 25_000;

/// What is held at the end of it, which shows that its records count.
const HELD: &str = "bench/past/held";

/// So many keys are taken in turn.
const KEYS: u64 = 1_000;

/// How long anything may take, and how long whoever writes a checkpoint may wait.
const PATIENCE: Duration = Duration::from_secs(60);
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(3);

/// Makes the past, and measures how long newcomers take to their first lock, and what they need of memory.
pub(super) fn run(bench: &mut Bench<'_>, server: &Kafka) -> Result<()> {
    let url = format!("kafka://{}/{TOPIC}", server.broker);
    let rounds = bench.options.rounds(5);
    let (took, bytes) = bench.runtime.block_on(async {
        let attends = KafkaBackend::connect(&url).await?;
        write(&server.broker)?;
        // It has read all of it then, and has written the last checkpoint.
        let seen = loop {
            if let Ok(seen) = attends.clone().inspect(Key::new(HELD)?).await {
                break seen;
            }
        };
        if seen.holders.is_empty() {
            return Err("the records of the past did not count".into());
        }
        tokio::time::sleep(CHECKPOINT_WITHIN).await;
        let (mut took, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (before, began) = (resident(), nanos());
            let newcomer = KafkaBackend::connect(&url).await?;
            let lock = LockClient::new(newcomer.clone()).lock(random_key())?;
            let guard = lock.exclusive().acquire().await?;
            took.push(seconds(began, nanos()));
            bytes.push(resident() - before);
            guard.release().await?;
            newcomer.close().await?;
        }
        attends.close().await?;
        Ok::<_, crate::Failure>((took, bytes))
    })?;
    let (took, bytes) = (median(took), median(bytes));
    let records = end(&server.broker, TOPIC)?;
    println!(
        "\n## {records} records of the past\n\na newcomer has its first lock after {:.0} ms, and needs {:.1} MB\n",
        took * 1e3,
        bytes / 1e6
    );
    bench.report.line(Line {
        peer: "fencelock".into(),
        workload: NAME.into(),
        clients: 1,
        ops: records,
        secs: took,
        ..Line::default()
    });
    bench.report.at_most(format!("{NAME}: s to the first lock"), took, 2.0);
    Ok(())
}

/// Writes acquires and releases, as one session would.
fn write(broker: &str) -> Result<()> {
    let producer: FutureProducer = config(broker).set("linger.ms", "5").create()?;
    let head = format!(r#"{{"v":1,"session":"{:032x}""#, fastrand::u128(..));
    let (seen, log) = (end(broker, TOPIC)?, incarnation(broker)?);
    send(
        &producer,
        &format!(r#"{head},"seq":0,"type":"open","end":{seen},"incarnation":"{log}","partition":0}}"#),
    )?;
    let began = nanos();
    for cycle in 1..=RECORDS / 2 {
        let due = Duration::from_secs_f64(float(2 * cycle) / float(PER_SECOND));
        if cycle % 100 == 0 {
            std::thread::sleep(due.saturating_sub(Duration::from_nanos(nanos() - began)));
        }
        let (first, second, key) = (2 * cycle - 1, 2 * cycle, cycle % KEYS);
        let named = format!(r#""identifier":"bench/past/{key}","claim":"{cycle:032x}""#);
        let of = r#""mode":"exclusive","ttl_us":30000000,"waiter_ttl_us":10000000"#;
        send(&producer, &format!(r#"{head},"seq":{first},"type":"acquire",{named},{of}}}"#))?;
        send(&producer, &format!(r#"{head},"seq":{second},"type":"release",{named},"answered":true}}"#))?;
    }
    let (seq, claim) = (RECORDS + 1, RECORDS);
    let named = format!(r#""identifier":"{HELD}","claim":"{claim:032x}","mode":"exclusive""#);
    let ttl = r#""ttl_us":3600000000,"waiter_ttl_us":10000000"#;
    send(&producer, &format!(r#"{head},"seq":{seq},"type":"acquire",{named},{ttl}}}"#))?;
    producer.flush(PATIENCE)?;
    Ok(())
}

/// Which log this is, as its genesis says: a session of another one does not count.
fn incarnation(broker: &str) -> Result<String> {
    let consumer: BaseConsumer = config(broker).create()?;
    assign(&consumer, TOPIC, 0)?;
    loop {
        let message = consumer.poll(PATIENCE).ok_or("the log cannot be read")??;
        let record: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
        if record["type"] == "genesis"
            && let Some(incarnation) = record["incarnation"].as_str()
        {
            return Ok(incarnation.to_owned());
        }
    }
}

fn send(producer: &FutureProducer, record: &str) -> Result<()> {
    loop {
        match producer.send_result(FutureRecord::<str, str>::to(TOPIC).partition(0).payload(record)) {
            // Whether it was written is what the end of the log says.
            Ok(_delivery) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// The memory of this process, in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or_default() * 4096.0
}
