//! Conversions, with news and answers that come when they like.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lock_memory::{MemoryBackend, MemoryServer};
use lockcore::{Attempt, Claim, ErrorKind, LockBackend, LockClient, Loss, News, Renew};
use tokio::time::sleep;

use crate::scripted::{Scripted, away, script};
use crate::{millis, secs};

/// S17: late news of the first grant are not the upgrade's: another reader is still inside.
#[tokio::test(start_paused = true)]
async fn old_news_do_not_grant_an_upgrade() {
    let server = MemoryServer::new();
    let seen = Arc::new(Mutex::new(None::<Arc<Claim>>));
    let mut backend = Scripted::new(server.client());
    backend.acquire = {
        let seen = seen.clone();
        Some(script(move |memory: Arc<MemoryBackend>, (claim, queue)| {
            *seen.lock().unwrap() = Some(Arc::clone(&claim));
            async move { memory.acquire(claim, queue).await }
        }))
    };
    let (a, b) = (backend.client(), LockClient::new(server.client()));
    let other = b.lock("k").unwrap().shared().acquire().await.unwrap();
    let guard = a.lock("k").unwrap().shared().acquire().await.unwrap();
    let (token, old_news) = (guard.token(), News::Granted(guard.fence()));
    let claim = seen.lock().unwrap().take().unwrap();
    let upgrade = tokio::spawn(guard.upgrade());
    for _ in 0..3 {
        sleep(secs(1)).await;
        claim.ring(old_news);
    }
    sleep(secs(1)).await;
    assert!(!upgrade.is_finished(), "exclusive, with a reader inside");
    other.release().await.unwrap();
    assert!(upgrade.await.unwrap().unwrap().token() > token);
}

/// A lease that its user renews by hand is not renewed any more after a conversion, also when an answer comes late.
#[tokio::test(start_paused = true)]
async fn a_conversion_does_not_make_renewal_automatic() {
    let server = MemoryServer::new();
    let mut backend = Scripted::new(server.client());
    backend.renew = Some(script(async |memory: Arc<MemoryBackend>, renewal| {
        sleep(millis(500)).await;
        memory.renew(vec![renewal]).await.remove(0)
    }));
    let (a, b) = (backend.client(), LockClient::new(server.client()));
    let other = b.lock("k").unwrap().shared().acquire().await.unwrap();
    let manual = a.lock("k").unwrap().shared().ttl(secs(3)).renew(Renew::Manual);
    let upgrade = tokio::spawn(manual.acquire().await.unwrap().upgrade());
    sleep(millis(1200)).await;
    other.release().await.unwrap();
    let upgraded = upgrade.await.unwrap().unwrap();
    sleep(secs(10)).await;
    assert!(!upgraded.is_held(), "nobody renewed it by hand");
}

/// An upgrade gives up after three tries in a row, not after three in all.
#[tokio::test(start_paused = true)]
async fn an_upgrade_survives_a_server_that_is_away_now_and_then() {
    let server = MemoryServer::new();
    let requests = AtomicUsize::new(0);
    let mut backend = Scripted::new(server.client());
    backend.convert = Some(script(move |memory: Arc<MemoryBackend>, conversion| {
        let fails = requests.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        async move { if fails { Err(away()) } else { memory.convert(conversion).await } }
    }));
    let (a, b) = (backend.client(), LockClient::new(server.client()));
    let other = b.lock("k").unwrap().shared().acquire().await.unwrap();
    let guard = a.lock("k").unwrap().shared().acquire().await.unwrap();
    let upgrade = tokio::spawn(guard.upgrade());
    sleep(secs(200)).await;
    other.release().await.unwrap();
    assert!(upgrade.await.unwrap().is_ok());
}

/// A guard that comes back with `Lost` is lost, whatever the backend answered.
#[tokio::test(start_paused = true)]
async fn a_guard_is_lost_when_its_conversion_says_so() {
    let mut backend = Scripted::new(MemoryBackend::new());
    backend.convert = Some(script(async |_, _| Ok(Attempt::Gone)));
    let locks = backend.client();
    let guard = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let (guard, error) = guard.downgrade().await.unwrap_err().into_parts();
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert!(!guard.is_held());
    assert_eq!(guard.lost().await, Loss::Unknown);
}

/// A server that says "ask again now" is not asked in a busy loop.
#[tokio::test(start_paused = true)]
async fn an_upgrade_does_not_spin() {
    let server = MemoryServer::new();
    let requests = Arc::new(AtomicUsize::new(0));
    let mut backend = Scripted::new(server.client());
    backend.convert = {
        let requests = requests.clone();
        Some(script(move |memory: Arc<MemoryBackend>, conversion| {
            requests.fetch_add(1, Ordering::Relaxed);
            async move {
                Ok(match memory.convert(conversion).await? {
                    Attempt::Queued(queued) => {
                        Attempt::Queued(lockcore::Queued { recheck: Some(millis(0)), ..queued })
                    }
                    settled @ (Attempt::Granted(_) | Attempt::Busy | Attempt::Gone) => settled,
                })
            }
        }))
    };
    let (a, b) = (backend.client(), LockClient::new(server.client()));
    let _other = b.lock("k").unwrap().shared().acquire().await.unwrap();
    let guard = a.lock("k").unwrap().shared().acquire().await.unwrap();
    let error = guard.upgrade_within(secs(1)).await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Timeout);
    assert!(requests.load(Ordering::Relaxed) < 1100);
}
