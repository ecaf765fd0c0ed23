//! The list of docs/coming-from/redis-article.md, each line shown on a real server by the test that carries its number.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{Error, ErrorKind, LockClient, Renew};
use testbed::{RedisServer, Reply};

fn server() -> RedisServer {
    RedisServer::start().unwrap()
}

async fn client(server: &RedisServer) -> LockClient {
    LockClient::new(RedisBackend::connect(&server.url()).await.unwrap())
}

/// R1, R6: one holder; a single try says so.
#[tokio::test]
async fn r1_r6_one_holder_and_a_try_that_answers() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let held = a.lock("task_1").unwrap().exclusive().try_acquire().await.unwrap();
    assert!(held.is_some());
    assert!(b.lock("task_1").unwrap().exclusive().try_acquire().await.unwrap().is_none());
}

/// R2: an id per acquisition, so that two tasks of one client, on one `Lock`, do not share it by accident.
#[tokio::test]
async fn r2_an_id_per_acquisition() {
    let server = server();
    let locks = client(&server).await;
    let lock = locks.lock("task_1").unwrap();
    let first = lock.exclusive().acquire().await.unwrap();
    assert!(lock.exclusive().try_acquire().await.unwrap().is_none());
    let id = first.claim_id();
    first.release().await.unwrap();
    assert_ne!(lock.exclusive().acquire().await.unwrap().claim_id(), id);
}

/// R3, R4: every lock expires by itself, and there is no moment at which it has no expiry.
#[tokio::test]
async fn r3_r4_a_crashed_holder_does_not_lock_for_ever() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let ttl = Duration::from_millis(500);
    let begun = tokio::time::Instant::now();
    let held = a.lock("task_1").unwrap().exclusive().ttl(ttl).renew(Renew::Manual).acquire().await.unwrap();
    let Reply::List(keys) = server.command(&["KEYS", "*"]).unwrap() else { panic!("KEYS answers a list") };
    assert!(!keys.is_empty());
    for key in keys {
        let left = server.command(&["PTTL", key.as_text().unwrap()]).unwrap().as_integer().unwrap();
        assert!(left > 0, "{key} would stay for ever");
    }
    // As a crash leaves it: nobody renews, nobody releases.
    let abandoned = held.detach().unwrap();
    let next = b.lock("task_1").unwrap().exclusive().acquire().await.unwrap();
    assert!(begun.elapsed() >= ttl, "not before the lease is over");
    assert!(next.token() > abandoned.fence().token);
}

/// R5: waiting is bounded by a time, and needs no polling: the release hands over.
#[tokio::test]
async fn r5_a_wait_in_place_of_retries() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let held = a.lock("task_1").unwrap().exclusive().owner("first").acquire().await.unwrap();
    let lock = b.lock("task_1").unwrap();
    let error: Error = lock.exclusive().wait(Duration::from_millis(150)).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("exclusive holder first"), "{error}");
    let waiting = lock.exclusive().wait(Duration::from_secs(20)).acquire();
    let (next, released) = tokio::join!(waiting, held.release());
    released.unwrap();
    next.unwrap().release().await.unwrap();
}

/// R7: a release removes what it acquired and nothing else, and says when that had ended.
#[tokio::test]
async fn r7_a_release_compares_the_id() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let ttl = Duration::from_millis(100);
    let late = a.lock("task_1").unwrap().exclusive().ttl(ttl).renew(Renew::Manual).acquire().await.unwrap();
    let successor = b.lock("task_1").unwrap().exclusive().acquire().await.unwrap();
    assert_eq!(late.release().await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(successor.is_held());
    assert_eq!(b.lock("task_1").unwrap().inspect().await.unwrap().holders.len(), 1);
    successor.release().await.unwrap();
}

/// R8, R9: the article's own program: the second run is told that the lock failed, and the next one gets it.
#[tokio::test]
async fn r8_r9_the_articles_program() {
    async fn task(locks: &LockClient, work: impl AsyncFnOnce()) -> lockcore::Result<bool> {
        match locks.lock("task_1")?.exclusive().try_acquire().await? {
            Some(guard) => {
                work().await;
                guard.release().await.map(|()| true)
            }
            None => Ok(false),
        }
    }
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let mut second = None;
    let first = task(&a, async || second = Some(task(&b, async || ()).await)).await;
    assert!(first.unwrap());
    assert!(!second.unwrap().unwrap());
    assert!(task(&b, async || ()).await.unwrap());
}

/// R10: what a failover may lose is said, and a replica is no place to lock.
#[tokio::test]
async fn r10_failover_is_not_promised() {
    let server = server();
    assert!(!client(&server).await.capabilities().survives_failover);
    let replica = RedisServer::options().replica_of(&server).start().unwrap();
    let error = RedisBackend::connect(&replica.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// R11: a lease is renewed while its guard lives.
#[tokio::test]
async fn r11_renewal_is_automatic() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let ttl = Duration::from_millis(600);
    let guard = a.lock("task_1").unwrap().exclusive().ttl(ttl).acquire().await.unwrap();
    let waited = b.lock("task_1").unwrap().exclusive().wait(5 * ttl).acquire().await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(guard.is_held());
    guard.release().await.unwrap();
}
