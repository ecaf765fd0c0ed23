//! One holder at a time, tries, and waits that end.

use std::time::Duration;

use lockcore::{ErrorKind, Lock, Mode};
use tokio::time::{Instant, sleep};

use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::scene::{LONG, Scene, granted, held};

pub(crate) async fn excl_basic(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = scene.patiently("an acquire of a free lock", a.exclusive().acquire()).await??;
    held(&first, "the only holder")?;
    let token = first.token();
    first.release().await?;
    let second = granted(b.exclusive().try_acquire().await?, "a try on a lock that was released")?;
    ensure!(second.token() > token, "token {} after {token}", second.token());
    second.release().await?;
    let third = granted(a.exclusive().try_acquire().await?, "a try of the first client again")?;
    third.release().await?;
    ensure!(b.inspect().await?.is_free(), "something is left after the last release");
    Ok(())
}

pub(crate) async fn excl_blocks(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    let waiting = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    scene.sleep(3).await;
    ensure!(!waiting.is_finished(), "two hold exclusively at once");
    held(&first, "the holder that others wait for")?;
    let token = first.token();
    first.release().await?;
    // Far less than what a heartbeat or a lease would take: it was told.
    let second = scene.soon("a hand-over after the release", waiting).await???;
    ensure!(second.token() > token, "token {} after {token}", second.token());
    second.release().await?;
    Ok(())
}

pub(crate) async fn try_busy(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    for _ in 0..3 {
        let busy = scene.soon("a try on a held lock", b.exclusive().try_acquire()).await??;
        ensure!(busy.is_none(), "a try got a lock that is held exclusively");
        let busy = scene.soon("a try to share a held lock", b.shared().try_acquire()).await??;
        ensure!(busy.is_none(), "a try shared a lock that is held exclusively");
    }
    let snapshot = a.inspect().await?;
    ensure!(snapshot.waiters.is_empty(), "a try left a waiter: {:?}", snapshot.waiters);
    first.release().await?;
    granted(b.exclusive().try_acquire().await?, "a try after the release")?.release().await?;
    Ok(())
}

pub(crate) async fn wait_timeout(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    let wait = scene.units(3);
    let start = Instant::now();
    let outcome = b.exclusive().wait(wait).acquire().await.map(drop);
    let took = start.elapsed();
    ensure_eq!(outcome.map_err(|e| e.kind()), Err(ErrorKind::Timeout), "a wait that is over");
    ensure!(took >= wait, "a wait of {wait:?} was over after {took:?}");
    ensure!(took <= wait + scene.promptly(), "a wait of {wait:?} took {took:?}");
    let snapshot = a.inspect().await?;
    ensure!(snapshot.waiters.is_empty(), "a wait that is over left a waiter: {:?}", snapshot.waiters);
    first.release().await?;
    granted(b.exclusive().try_acquire().await?, "a try after the release")?.release().await?;
    Ok(())
}

pub(crate) async fn wait_zero(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().wait(Duration::ZERO).acquire().await?;
    let outcome = scene.soon("a wait of zero", b.exclusive().wait(Duration::ZERO).acquire()).await?.map(drop);
    ensure_eq!(outcome.map_err(|e| e.kind()), Err(ErrorKind::Timeout), "a wait of zero on a held lock");
    ensure!(a.inspect().await?.waiters.is_empty(), "a wait of zero left a waiter");
    first.release().await?;
    Ok(())
}

/// How often the race is run, and on how many keys at once.
const RACES: u32 = 1000;
const REAL_RACES: u32 = 200;
const KEYS: u32 = 10;

pub(crate) async fn timeout_vs_grant_race(scene: &Scene) -> Outcome {
    let races = if scene.timing.paused { RACES } else { REAL_RACES };
    let (a, b) = (scene.client().await?, scene.client().await?);
    let mut random = scene.random();
    let mut running = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let key = scene.key(&key.to_string());
        let (a, b) = (a.lock(key.clone())?, b.lock(key)?);
        let wait = scene.timing.unit / 10;
        let jitters: Vec<Duration> =
            (0..races / KEYS).map(|_| wait / 2 + wait.mul_f64(random.f64())).collect();
        running.spawn(async move {
            for hold in jitters {
                race(&a, &b, wait, hold).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(raced) = running.join_next().await {
        raced??;
    }
    Ok(())
}

async fn race(a: &Lock, b: &Lock, wait: Duration, hold: Duration) -> Outcome {
    let first = a.exclusive().acquire().await?;
    let id = first.claim_id();
    let release = async {
        sleep(hold).await;
        first.release().await
    };
    let (second, released) = tokio::join!(b.exclusive().wait(wait).acquire(), release);
    released?;
    match second {
        Ok(guard) => {
            held(&guard, "a claim granted at the end of its wait")?;
            guard.release().await?;
        }
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Timeout, "the end of a wait"),
    }
    let snapshot = a.inspect().await?;
    ensure!(snapshot.is_free(), "after a timeout, or a release, of all but {id}: {snapshot:?}");
    Ok(())
}

pub(crate) async fn same_client_twice(scene: &Scene) -> Outcome {
    let lock = scene.lock("k").await?;
    let first = lock.exclusive().acquire().await?;
    let outcome = lock.exclusive().wait(scene.units(2)).acquire().await.map(drop);
    ensure_eq!(outcome.map_err(|e| e.kind()), Err(ErrorKind::Timeout), "the same client's second acquire");
    held(&first, "the first claim of a client that waited for itself")?;
    first.release().await?;
    Ok(())
}

pub(crate) async fn wait_free(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    ensure!(!b.wait_free(Mode::Shared, scene.units(2)).await?, "a held lock counts as free");
    let waiting = {
        let (b, wait) = (b.clone(), scene.units(LONG));
        tokio::spawn(async move { b.wait_free(Mode::Exclusive, wait).await })
    };
    scene.until(&a, 1, 1).await?;
    first.release().await?;
    ensure!(
        scene.soon("waiting for a free lock", waiting).await???,
        "a released lock does not count as free"
    );
    scene.until_free(&a).await
}
