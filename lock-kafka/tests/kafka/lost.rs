//! A log that loses what was in it: whoever counted on that hears of it, and nobody goes on by guessing.

use std::error::Error as _;
use std::time::Duration;

use lock_kafka::Halt;
use lock_kafka::rdkafka::admin::{AdminClient, AdminOptions};
use lock_kafka::rdkafka::client::DefaultClientContext;
use lock_kafka::rdkafka::{Offset, TopicPartitionList};
use lockcore::{Error, ErrorKind};
use testbed::KafkaServer;
use tokio::time::{sleep, timeout};

use crate::{SOON, client, raw, refused};

/// Why the client reads no further, if that is the reason.
fn halt(error: &Error) -> Option<&Halt> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(halt) = cause.downcast_ref() {
            return Some(halt);
        }
        source = cause.source();
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_anew_ends_what_was_held_in_the_old_one() {
    let server = KafkaServer::start().unwrap();
    let old = client(&server).await;
    let held = old.lock("k").unwrap().exclusive().ttl(20 * SOON).acquire().await.unwrap();
    for _ in 0..20 {
        old.lock("other").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    let token = held.token();
    let admin: AdminClient<DefaultClientContext> = raw(&server).create().unwrap();
    let deleted = admin.delete_topics(&["locks"], &AdminOptions::new()).await.unwrap();
    assert_eq!(deleted, [Ok("locks".to_owned())]);
    let gone = || admin.inner().fetch_metadata(Some("locks"), SOON).unwrap().topics()[0].error().is_some();
    while !gone() {
        sleep(Duration::from_millis(20)).await;
    }
    let new = client(&server).await;
    let next = new.lock("k").unwrap().exclusive().acquire().await.unwrap();
    assert!(next.token() > token, "the brokers' clocks have gone on");
    timeout(5 * SOON, held.lost()).await.expect("its holder hears of it");
    let error = old.lock("k").unwrap().exclusive().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(halt(&error), Some(&Halt::Truncated), "{error:?}");
    assert!(next.is_held());
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_emptied_is_not_begun_with() {
    let server = KafkaServer::start().unwrap();
    let locks = client(&server).await;
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let admin: AdminClient<DefaultClientContext> = raw(&server).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("locks", 0, Offset::End).unwrap();
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    // Who has read it knows what was in it.
    assert!(held.is_held());
    let error = refused(&server.url("locks")).await;
    assert_eq!((error.kind(), halt(&error)), (ErrorKind::Conflict, Some(&Halt::Missing)), "{error}");
    held.release().await.unwrap();
}
