//! The list of docs/coming-from/aternos-lock.md, each line shown on a real server by the test that carries its number.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{BreakTarget, ErrorKind, Exclusive, LockClient, LockGuard, Mode, Renew, Shared};
use testbed::EtcdServer;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// The shortest lease that etcd gives by default.
const SHORT: Duration = Duration::from_secs(2);

/// Longer than any of these tests should take.
const LONG: Duration = Duration::from_secs(60);

fn server() -> EtcdServer {
    EtcdServer::start().unwrap()
}

async fn client(server: &EtcdServer) -> LockClient {
    LockClient::new(EtcdBackend::connect(&server.url()).await.unwrap())
}

async fn shared(locks: &LockClient, ttl: Duration) -> LockGuard<Shared> {
    locks.lock("key").unwrap().shared().ttl(ttl).renew(Renew::Manual).acquire().await.unwrap()
}

async fn exclusive(locks: &LockClient, ttl: Duration) -> LockGuard<Exclusive> {
    locks.lock("key").unwrap().exclusive().ttl(ttl).renew(Renew::Manual).acquire().await.unwrap()
}

/// Waits for the lock as exclusive; how long that took.
async fn waited(locks: &LockClient) -> Duration {
    let begun = Instant::now();
    let guard = locks.lock("key").unwrap().exclusive().wait(LONG).acquire().await.unwrap();
    let waited = begun.elapsed();
    guard.release().await.unwrap();
    waited
}

/// A1, A5, A7, A8, A10, A37: any number of shared holders or one exclusive, and a busy lock is an answer, no error.
#[tokio::test]
async fn a1_a8_shared_and_exclusive() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let (x, y) = (a.lock("key").unwrap(), b.lock("key").unwrap());
    let readers =
        [x.shared().try_acquire().await, y.shared().try_acquire().await, y.shared().try_acquire().await];
    let readers = readers.map(|reader| reader.unwrap().unwrap());
    assert!(y.exclusive().try_acquire().await.unwrap().is_none());
    for reader in readers {
        reader.release().await.unwrap();
    }
    let writer = x.exclusive().try_acquire().await.unwrap().unwrap();
    assert!(y.shared().try_acquire().await.unwrap().is_none());
    assert!(y.exclusive().try_acquire().await.unwrap().is_none());
    let error = y.exclusive().wait(SECOND / 5).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    writer.release().await.unwrap();
    assert!(y.shared().try_acquire().await.unwrap().is_some());
}

/// A2, A3, A31, A32, A37: who loses a race for a free key joins or queues in the same request; nobody gives up after so many tries.
#[tokio::test]
async fn a2_a31_races_are_decided_by_the_server() {
    let server = server();
    let clients =
        [client(&server).await, client(&server).await, client(&server).await, client(&server).await];
    let readers = (0..32).map(|n| {
        let lock = clients[n % 4].lock("key").unwrap();
        tokio::spawn(async move { lock.shared().wait(LONG).acquire().await.unwrap() })
    });
    let mut guards = Vec::new();
    for reader in readers.collect::<Vec<_>>() {
        guards.push(reader.await.unwrap());
    }
    assert_eq!(clients[0].lock("key").unwrap().inspect().await.unwrap().holders.len(), 32, "all at once");
    drop(guards);
    let writers = (0..32).map(|n| {
        let lock = clients[n % 4].lock("key").unwrap();
        tokio::spawn(async move {
            let guard = lock.exclusive().wait(LONG).acquire().await.unwrap();
            let token = guard.token();
            guard.release().await.unwrap();
            token
        })
    });
    let mut tokens = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        tokens.push(writer.await.unwrap());
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 32, "one after another");
}

/// A4, A33: three seconds without a server are ridden out, also by an acquire that was given no wait.
#[tokio::test(flavor = "multi_thread")]
async fn a4_a33_short_unavailability_is_ridden_out() {
    let server = server();
    let locks = client(&server).await;
    server.kill().unwrap();
    let lock = locks.lock("key").unwrap();
    let acquiring = tokio::spawn(async move { lock.exclusive().acquire().await });
    tokio::time::sleep(SECOND * 2).await;
    server.restart().unwrap();
    acquiring.await.unwrap().unwrap().release().await.unwrap();
}

/// A9, A37: a lock ends by itself when its time is over.
#[tokio::test]
async fn a9_a_lock_has_a_time() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let guard = exclusive(&a, SHORT).await;
    assert!(guard.remaining() <= SHORT && guard.remaining() > SHORT / 2);
    let abandoned = guard.detach().unwrap();
    let next = b.lock("key").unwrap().exclusive().wait(LONG).acquire().await.unwrap();
    assert!(next.token() > abandoned.fence().token);
}

/// A11, A37: waiting without acquiring.
#[tokio::test]
async fn a11_waiting_for_others() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let lock = b.lock("key").unwrap();
    let writer = exclusive(&a, LONG).await;
    assert!(!lock.wait_free(Mode::Shared, SECOND / 5).await.unwrap());
    let (free, released) = tokio::join!(lock.wait_free(Mode::Exclusive, LONG), writer.release());
    released.unwrap();
    assert!(free.unwrap());
    assert!(lock.inspect().await.unwrap().is_free(), "nothing is acquired by it");
}

/// A12, A13: what is left is known without a request.
#[tokio::test]
async fn a12_a13_what_is_left_is_known_here() {
    let server = server();
    let locks = client(&server).await;
    let guard = exclusive(&locks, SHORT).await;
    server.pause().unwrap();
    assert!(guard.is_held() && guard.remaining() > Duration::ZERO);
    guard.lost().await;
    assert!(!guard.is_held() && guard.remaining().is_zero());
}

/// A14, A16: a refresh counts from now, may be longer or shorter than what is left, and never takes a lost lock again.
#[tokio::test]
async fn a14_a16_refresh() {
    let server = server();
    let locks = client(&server).await;
    let mut guard = exclusive(&locks, SHORT).await;
    guard.renew_for(LONG).await.unwrap();
    assert!(guard.remaining() > LONG / 2 && guard.remaining() <= LONG);
    guard.renew_for(LONG).await.unwrap();
    assert!(guard.remaining() <= LONG, "nothing is added to what is left");
    guard.renew_for(SHORT).await.unwrap();
    assert!(guard.remaining() <= SHORT);
    let target = BreakTarget::Claim(guard.claim_id());
    locks.lock("key").unwrap().break_claims(target).await.unwrap();
    assert_eq!(guard.renew().await.unwrap_err().kind(), ErrorKind::Lost);
}

/// A15, A37: above the threshold a refresh sends nothing.
#[tokio::test]
async fn a15_refresh_below_a_threshold() {
    let server = server();
    let locks = client(&server).await;
    let mut guard = exclusive(&locks, LONG).await;
    server.pause().unwrap();
    assert!(!guard.renew_if_below(LONG / 2).await.unwrap());
    server.resume().unwrap();
    assert!(guard.renew_if_below(LONG * 2).await.unwrap());
}

/// A17: breaking one's own lock leaves those of others alone. Twice is not possible: the guard is used up.
#[tokio::test]
async fn a17_break() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let (one, other) = (shared(&a, LONG).await, shared(&b, LONG).await);
    one.release().await.unwrap();
    let holders = a.lock("key").unwrap().inspect().await.unwrap().holders;
    assert_eq!(holders.iter().map(|holder| holder.id).collect::<Vec<_>>(), [other.claim_id()]);
    other.release().await.unwrap();
}

/// A18, A37: a dropped guard releases; a detached one does not.
#[tokio::test]
async fn a18_break_on_destruct() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    drop(exclusive(&a, LONG).await);
    let detached = {
        let lock = b.lock("key").unwrap();
        lock.exclusive().wait(LONG).acquire().await.unwrap().detach().unwrap()
    };
    assert!(a.lock("key").unwrap().exclusive().try_acquire().await.unwrap().is_none());
    b.resume(&detached).await.unwrap().release().await.unwrap();
    assert!(a.lock("key").unwrap().exclusive().try_acquire().await.unwrap().is_some());
}

/// A19, A20, A25, A26: who holds it, in which mode, for how long; and whether that is somebody else.
#[tokio::test]
async fn a19_a25_who_holds_it() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let (x, y) = (a.lock("key").unwrap(), b.lock("key").unwrap());
    let mine = x.shared().owner("web-1").ttl(LONG).acquire().await.unwrap();
    assert!(x.inspect().await.unwrap().holders.iter().all(|holder| holder.id == mine.claim_id()), "no other");
    let other = y.shared().owner("web-2").ttl(LONG).acquire().await.unwrap();
    let seen = x.inspect().await.unwrap();
    let others: Vec<_> = seen.holders.iter().filter(|holder| holder.id != mine.claim_id()).collect();
    let [only] = others[..] else { panic!("{others:?}") };
    assert_eq!((only.owner.as_deref(), only.mode.is_exclusive()), (Some("web-2"), false));
    assert!(only.left > LONG / 2 && only.left <= LONG + SECOND, "{:?}", only.left);
    mine.release().await.unwrap();
    other.release().await.unwrap();
    let writer = y.exclusive().acquire().await.unwrap();
    let seen = x.inspect().await.unwrap();
    assert!(seen.holders.iter().any(|holder| holder.mode.is_exclusive()), "locked by another exclusively");
    writer.release().await.unwrap();
}

/// A23, A24: the same owner takes over when it asks to, and only then.
#[tokio::test]
async fn a23_a24_an_owner_takes_over_when_it_says_so() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let (x, y) = (a.lock("key").unwrap(), b.lock("key").unwrap());
    let before = x.exclusive().owner("job-7").ttl(LONG).acquire().await.unwrap();
    assert!(y.exclusive().owner("job-7").try_acquire().await.unwrap().is_none(), "two tasks are not one");
    assert!(y.exclusive().owner("job-8").take_over().try_acquire().await.unwrap().is_none());
    let after = y.exclusive().owner("job-7").take_over().try_acquire().await.unwrap().unwrap();
    assert!(after.token() > before.token());
    assert_eq!(x.inspect().await.unwrap().holders.len(), 1, "no second entry");
    before.lost().await;
    after.release().await.unwrap();
}

/// A27: what has expired is in nobody's way, and the last one leaves no key behind.
#[tokio::test]
async fn a27_nothing_is_left_behind() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    shared(&a, SHORT).await.detach().unwrap();
    waited(&b).await;
    let mut raw = etcd_client::Client::connect([server.addr().to_string()], None).await.unwrap();
    let options = etcd_client::GetOptions::new().with_prefix();
    assert_eq!(raw.get("lock/key/", Some(options)).await.unwrap().count(), 0);
}

/// A28, A29: a client of one's own, and a prefix of one's own.
#[tokio::test]
async fn a28_a29_client_and_prefix() {
    let server = server();
    let ready = etcd_client::Client::connect([server.addr().to_string()], None).await.unwrap();
    let backend =
        EtcdBackend::builder("etcd://ready").client(ready).prefix("my-prefix/").connect().await.unwrap();
    let (mine, usual) = (LockClient::new(backend), client(&server).await);
    let guard = exclusive(&mine, LONG).await;
    assert!(usual.lock("key").unwrap().exclusive().try_acquire().await.unwrap().is_some(), "another prefix");
    let named = EtcdBackend::connect(&format!("{}/?prefix=my-prefix/", server.url())).await.unwrap();
    assert!(LockClient::new(named).lock("key").unwrap().exclusive().try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
}

/// A30: a waiter is told; it does not poll.
#[tokio::test]
async fn a30_a_waiter_is_told() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let (x, y) = (a.lock("key").unwrap(), b.lock("key").unwrap());
    let writer = exclusive(&a, LONG).await;
    let waiting = y.exclusive().wait(LONG).acquire();
    let (next, released) =
        tokio::join!(async { waiting.await.map(|guard| (guard, Instant::now())) }, async {
            while x.inspect().await.unwrap().waiters.is_empty() {}
            let released = Instant::now();
            writer.release().await.unwrap();
            released
        });
    let (_guard, told) = next.unwrap();
    assert!(told - released < SECOND, "{:?} after the release", told - released);
}

/// A37: three shared, of which one is refreshed: an exclusive one waits until the longest ends.
#[tokio::test]
async fn a37_exclusive_after_three_shared() {
    let server = server();
    let (a, b) = (client(&server).await, client(&server).await);
    let begun = Instant::now();
    let (first, second) = (shared(&a, SHORT).await, shared(&a, SHORT).await);
    let mut third = shared(&a, SHORT).await;
    let longest = SHORT + SHORT;
    third.renew_for(longest).await.unwrap();
    let _abandoned = (first.detach().unwrap(), second.detach().unwrap(), third.detach().unwrap());
    waited(&b).await;
    assert!(begun.elapsed() >= longest, "{:?}", begun.elapsed());
}

/// A38: a user with a password is in `etcd://user:password@…`, and several members are tried in turn.
#[tokio::test]
async fn a38_several_members() {
    let server = server();
    let dead = testbed::EtcdServer::start().unwrap();
    let gone = dead.addr();
    drop(dead);
    let url = format!("etcd://{gone},{}", server.addr());
    let locks = LockClient::new(EtcdBackend::connect(&url).await.unwrap());
    for _ in 0..8 {
        locks.lock("key").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
}
