//! Clients that die without a word.

use lockcore::Lock;
use tokio::time::Instant;

use super::lease::surely;
use crate::doomed::Doomed;
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{LONG, Scene};

/// Long enough that a process that lives renews it on the busiest machine.
const TTL: u32 = 12;

pub(crate) async fn crashed_holder(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(TTL);
    let mut doomed = Doomed::start(scene, "k", "doomed", ttl, ttl).await?;
    scene.until(&a, 1, 0).await?;
    // Alive, it is renewed.
    tokio::time::sleep(ttl + scene.units(2)).await;
    ensure!(a.exclusive().try_acquire().await?.is_none(), "a process that lives lost its lock");
    let waiting = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    let left = a.inspect().await?.holders.first().map(|info| info.left).unwrap_or_default();
    let (token, start) = (a.inspect().await?.holders[0].token, Instant::now());
    doomed.kill()?;
    let guard = scene.within(ttl + scene.promptly(), "the turn after a crash", waiting).await???;
    ensure!(Some(guard.token()) > token, "token {} after {token:?}", guard.token());
    ensure!(start.elapsed() + scene.units(1) >= surely(left), "over after {:?} of {left:?}", start.elapsed());
    guard.release().await?;
    scene.until_free(&a).await
}

pub(crate) async fn crashed_waiter_at_head(scene: &Scene) -> Outcome {
    let waiter_ttl = scene.units(TTL);
    let a = scene.lock("k").await?;
    let b = scene.client_with(|builder| builder.waiter_ttl(waiter_ttl)).await?.lock(scene.key("k"))?;
    let first = a.exclusive().acquire().await?;
    let mut doomed = Doomed::start(scene, "k", "doomed", scene.units(LONG), waiter_ttl).await?;
    scene.until(&a, 1, 1).await?;
    let behind = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 2).await?;
    doomed.kill()?;
    first.release().await?;
    // Whoever stands behind looks at its next heartbeat at the latest. All far less than the dead waiter's ttl.
    let limit = waiter_ttl + waiter_ttl / 3 + scene.promptly();
    scene.within(limit, "the turn behind a dead waiter", behind).await???.release().await?;
    scene.until_free(&a).await
}

pub(crate) async fn crashed_waiter_in_the_middle(scene: &Scene) -> Outcome {
    let locks: [Lock; 4] = scene.locks("k").await?;
    let waiter_ttl = scene.units(TTL);
    let first = locks[0].exclusive().acquire().await?;
    let one = tokio::spawn(locks[1].exclusive().owner("one").acquire());
    scene.until(&locks[0], 1, 1).await?;
    let mut doomed = Doomed::start(scene, "k", "doomed", scene.units(LONG), waiter_ttl).await?;
    scene.until(&locks[0], 1, 2).await?;
    let two = tokio::spawn(locks[2].exclusive().owner("two").acquire());
    scene.until(&locks[0], 1, 3).await?;
    let three = tokio::spawn(locks[3].exclusive().owner("three").acquire());
    scene.until(&locks[0], 1, 4).await?;
    doomed.kill()?;
    let waiters = scene.until(&locks[0], 1, 3).await?.waiters;
    let owners: Vec<_> = waiters.iter().map(|info| info.owner.as_deref().unwrap_or_default()).collect();
    ensure_eq!(owners, ["one", "two", "three"], "who still waits, in order");
    first.release().await?;
    let mut last = None;
    for next in [one, two, three] {
        let guard = scene.soon("the next turn", next).await???;
        ensure!(Some(guard.token()) > last, "token {} after {last:?}", guard.token());
        last = Some(guard.token());
        guard.release().await?;
    }
    last.map(drop).ok_or_else(|| Stop::failed("nobody was served"))
}
