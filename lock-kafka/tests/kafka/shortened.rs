//! A log that is shortened after its checkpoints.

use lock_kafka::rdkafka::consumer::{BaseConsumer, Consumer};
use lock_kafka::{KafkaBackend, Settings};
use lockcore::{LockClient, Loss};
use testbed::KafkaServer;
use tokio::time::{Duration, sleep, timeout};

use crate::{SOON, raw};

/// How often there is a checkpoint.
const EVERY: u64 = 16;

async fn connect(url: &str) -> LockClient {
    let settings = Settings { checkpoint_every: EVERY.try_into().unwrap(), ..Settings::default() };
    LockClient::new(KafkaBackend::builder(url).settings(settings).connect().await.unwrap())
}

/// Where the log begins and ends.
fn bounds(server: &KafkaServer) -> (i64, i64) {
    let asking: BaseConsumer = raw(server).create().unwrap();
    asking.fetch_watermarks("locks", 0, SOON).unwrap()
}

/// Writes until the log begins at this offset or after it.
async fn write_until(server: &KafkaServer, locks: &LockClient, start: i64) {
    let written = timeout(20 * SOON, async {
        while bounds(server).0 < start {
            for _ in 0..EVERY {
                locks.lock("busy").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
            }
            // Whoever writes the checkpoint takes its time.
            sleep(Duration::from_millis(500)).await;
        }
    });
    written.await.expect("the log is shortened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_whoever_stood_still_begins_with_a_checkpoint() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let proxy = &server.proxies()[0];
    let busy = connect(&server.url("locks")).await;
    let still = connect(&server.url_at(proxy.addr(), "locks")).await;
    let held = busy.lock("held").unwrap().exclusive().acquire().await.unwrap();
    let long = still.lock("long").unwrap().exclusive().ttl(60 * SOON).acquire().await.unwrap();
    let short = still.lock("short").unwrap().exclusive().ttl(SOON).acquire().await.unwrap();
    let end = bounds(&server).1;
    proxy.stall(true);
    assert_eq!(timeout(2 * SOON, short.lost()).await.expect("by its deadline"), Loss::Expired);
    write_until(&server, &busy, end + 1).await;
    let newcomer = connect(&server.url("locks")).await;
    let next = newcomer.lock("short").unwrap().exclusive().wait(10 * SOON).acquire().await.unwrap();
    for (key, id) in [("held", held.claim_id()), ("long", long.claim_id()), ("short", next.claim_id())] {
        let seen = newcomer.lock(key).unwrap().inspect().await.unwrap();
        assert_eq!(seen.holders.iter().map(|holder| holder.id).collect::<Vec<_>>(), [id], "{key}");
    }
    proxy.stall(false);
    // It has begun anew, and knows what was not over.
    let lock = still.lock("short").unwrap();
    let waits = tokio::spawn(lock.exclusive().wait(20 * SOON).acquire());
    timeout(10 * SOON, async {
        while newcomer.lock("short").unwrap().inspect().await.unwrap().waiters.is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is heard again");
    assert!(long.is_held() && held.is_held());
    next.release().await.unwrap();
    waits.await.unwrap().unwrap().release().await.unwrap();
    long.release().await.unwrap();
    held.release().await.unwrap();
    // Its checkpoints are those of the others: nobody halts.
    write_until(&server, &still, bounds(&server).0 + 1).await;
    for locks in [&busy, &newcomer, &still] {
        assert!(locks.lock("long").unwrap().inspect().await.unwrap().is_free());
    }
}

/// Its claim is ended by others while it stands still; the record that says so is not in the log any more when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_ended_in_what_is_gone_hears_of_it() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let proxy = &server.proxies()[0];
    let busy = connect(&server.url("locks")).await;
    let still = connect(&server.url_at(proxy.addr(), "locks")).await;
    let held = still.lock("k").unwrap().exclusive().ttl(60 * SOON).acquire().await.unwrap();
    proxy.stall(true);
    busy.lock("k").unwrap().break_claims(lockcore::BreakTarget::All).await.unwrap();
    let next = busy.lock("k").unwrap().exclusive().acquire().await.unwrap();
    write_until(&server, &busy, bounds(&server).1).await;
    assert!(held.is_held(), "nobody has told it");
    proxy.stall(false);
    timeout(5 * SOON, held.lost()).await.expect("it hears of it");
    assert!(next.is_held());
    next.release().await.unwrap();
    still.lock("k").unwrap().exclusive().wait(SOON).acquire().await.unwrap().release().await.unwrap();
}
