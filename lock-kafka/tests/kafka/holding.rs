//! Locks that several clients want.

use std::env;
use std::process::{Command, Stdio};

use lock_kafka::KafkaBackend;
use lock_kafka::rdkafka::producer::{FutureProducer, FutureRecord};
use lockcore::{LockClient, Loss};
use testbed::KafkaServer;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::{SOON, client, raw};

const TTL: Duration = Duration::from_secs(3);

/// Set in the process that a test starts.
const URL: &str = "FENCELOCK_TEST_URL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_holds_and_the_next_is_let_in_after_the_release() {
    let server = KafkaServer::start().unwrap();
    let (one, other) = (client(&server).await, client(&server).await);
    let (mine, theirs) = (one.lock("k").unwrap(), other.lock("k").unwrap());
    let held = mine.exclusive().acquire().await.unwrap();
    assert!(theirs.exclusive().try_acquire().await.unwrap().is_none());
    let waiting = tokio::spawn(theirs.exclusive().wait(4 * SOON).acquire());
    while mine.inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let token = held.token();
    let start = Instant::now();
    held.release().await.unwrap();
    let next = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(next.token() > token);
    next.release().await.unwrap();
    assert!(mine.inspect().await.unwrap().is_free());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_let_in_after_the_holders_process_is_gone() {
    if let Ok(url) = env::var(URL) {
        let locks = LockClient::new(KafkaBackend::connect(&url).await.unwrap());
        let held = locks.lock("k").unwrap().exclusive().ttl(TTL).acquire().await.unwrap();
        println!("\nheld");
        sleep(Duration::from_secs(600)).await;
        drop(held);
    }
    let server = KafkaServer::start().unwrap();
    let test = "holding::whoever_waits_is_let_in_after_the_holders_process_is_gone";
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(URL, server.url("locks"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let held = std::io::BufRead::lines(output).map_while(Result::ok).any(|line| line == "held");
    assert!(held, "the other process holds it");
    let locks = client(&server).await;
    let lock = locks.lock("k").unwrap();
    let waiting = tokio::spawn(lock.exclusive().wait(10 * SOON).acquire());
    while lock.inspect().await.unwrap().waiters.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    let guard = timeout(4 * TTL, waiting).await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() <= 2 * TTL, "{:?}", start.elapsed());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_to_the_topic_is_skipped() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let lock = locks.lock("k").unwrap();
    let held = lock.exclusive().acquire().await.unwrap();
    let producer: FutureProducer = raw(&server).create().unwrap();
    for foreign in ["", "{", r#"{"identifier":"k"}"#, r#"{"v":1,"type":"break"}"#] {
        let record = FutureRecord::to("locks").key("k").payload(foreign);
        producer.send(record, SOON).await.unwrap();
    }
    let tombstone = FutureRecord::<str, str>::to("locks").key("k");
    producer.send(tombstone, SOON).await.unwrap();
    assert!(held.is_held());
    held.release().await.unwrap();
    // Also by whoever reads it from the beginning.
    let newcomer = client(&server).await;
    newcomer.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_reads_a_long_log() {
    const RECORDS: u64 = 60_000;
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let mut config = raw(&server);
    config.set("linger.ms", "5").set("queue.buffering.max.messages", "100000");
    let producer: FutureProducer = config.create().unwrap();
    let text = format!(r#"{{"identifier":"k","what":"{}"}}"#, "x".repeat(200));
    let sent = (0..RECORDS).map(|_| {
        producer.send_result(FutureRecord::<str, str>::to("locks").payload(&text)).map_err(|(error, _)| error)
    });
    for sent in sent.collect::<Result<Vec<_>, _>>().unwrap() {
        sent.await.unwrap().unwrap();
    }
    let newcomer = client(&server).await;
    let seen = newcomer.lock("k").unwrap().inspect().await.unwrap();
    assert_eq!(seen.holders.len(), 1, "{seen:?}");
    held.release().await.unwrap();
    newcomer.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
}

/// Another process goes on with a claim before it has read that it was granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_resumes_a_claim_that_it_has_not_read_hears_of_its_end() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let proxy = &server.proxies()[0];
    let (here, behind) =
        (client(&server).await, KafkaBackend::connect(&server.url_at(proxy.addr(), "locks")).await);
    let behind = LockClient::new(behind.unwrap());
    let lock = here.lock("k").unwrap();
    // Its session is open.
    assert!(behind.lock("k").unwrap().inspect().await.unwrap().is_free());
    proxy.delay_replies(Duration::from_millis(500));
    let detached = lock.exclusive().ttl(20 * SOON).acquire().await.unwrap().detach().unwrap();
    let resumed = behind.resume(&detached).await.unwrap();
    lock.break_claims(lockcore::BreakTarget::All).await.unwrap();
    let next = lock.exclusive().acquire().await.unwrap();
    assert_eq!(timeout(SOON, resumed.lost()).await.expect("before its next renewal"), Loss::Broken);
    next.release().await.unwrap();
}
