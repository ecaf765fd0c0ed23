//! Leases that run out, not too early and not too late.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{ErrorKind, Mode, Renew};
use tokio::time::Instant;

use crate::claims::{Ask, lease, queued};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{Scene, granted};

/// What of a lease must pass before it may be over: two clocks may differ in speed a little.
pub(crate) fn surely(ttl: Duration) -> Duration {
    ttl.mul_f64(0.99)
}

pub(crate) async fn ttl_expiry_grants_next(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(4);
    let start = Instant::now();
    let first = a.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    let second =
        scene.within(ttl + scene.promptly(), "the turn after an expiry", b.exclusive().acquire()).await??;
    let took = start.elapsed();
    ensure!(took >= surely(ttl), "a lease of {ttl:?} was over after {took:?}");
    ensure!(!first.is_held(), "whose lease ran out believes to hold beside its successor");
    ensure!(second.token() > first.token(), "token {} after {}", second.token(), first.token());
    let outcome = first.release().await.map_err(|error| error.kind());
    ensure_eq!(outcome, Err(ErrorKind::Lost), "the release of an expired claim");
    ensure!(second.is_held(), "the late release of an expired claim took its successor along");
    ensure_eq!(a.inspect().await?.holders.len(), 1, "holders after the late release");
    second.release().await?;
    Ok(())
}

pub(crate) async fn ttl_not_early(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(6);
    let start = Instant::now();
    let _first = a.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    loop {
        let attempt = b.exclusive().try_acquire().await?;
        let now = start.elapsed();
        if now < surely(ttl) {
            ensure!(attempt.is_none(), "a lease of {ttl:?} was over after {now:?}");
        } else if attempt.is_some() {
            return Ok(());
        }
        ensure!(now < ttl + scene.promptly(), "a lease of {ttl:?} was not over after {now:?}");
        scene.pause().await;
    }
}

pub(crate) async fn ttl_min_and_rounding(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let step = scene.capabilities.ttl_step;
    let least = scene.capabilities.min_ttl;
    // What the client would round up to; a backend is never asked for less.
    let asked = [scene.units(3), scene.units(3) + step / 3, scene.units(7) + Duration::from_nanos(1)];
    for (at, ttl) in asked.into_iter().map(|ttl| ttl.max(least)).enumerate() {
        let claim = Arc::new(scene.claim(&at.to_string(), Mode::Exclusive)?.with_ttl(ttl));
        let left = lease(backend.join(&claim).await?)?.left;
        ensure!(left + step >= ttl, "a lease of {ttl:?} was answered with {left:?}");
        ensure!(left <= ttl + step, "a lease of {ttl:?} in steps of {step:?} was answered with {left:?}");
        let shown = backend.clone().inspect(claim.key().clone()).await?.holders;
        let shown = shown.first().ok_or_else(|| Stop::failed("the holder is not shown"))?.left;
        ensure!(shown <= left + step, "a lease of {left:?} is shown as {shown:?}");
    }
    // One that is over before anybody can use it is an error, or a lock that is soon free; never a lock that stays.
    let lock = scene.lock("tiny").await?;
    let tiny = lock.exclusive().ttl(Duration::from_nanos(1)).renew(Renew::Manual).wait(scene.units(2));
    drop(tiny.acquire().await.map_err(|error| error.kind()));
    scene.until_free(&lock).await
}

pub(crate) async fn expiry_without_waiters(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(3);
    let start = Instant::now();
    let first = a.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    let token = first.token();
    // Nobody asks meanwhile.
    tokio::time::sleep(ttl + scene.units(1)).await;
    ensure!(!first.is_held(), "held beyond its lease");
    let second = granted(b.exclusive().try_acquire().await?, "a try after the lease ran out")?;
    ensure!(start.elapsed() >= surely(ttl), "over too early");
    ensure!(second.token() > token, "token {} after {token}", second.token());
    second.release().await?;
    Ok(())
}

pub(crate) async fn handover_keeps_the_lease(scene: &Scene) -> Outcome {
    let (one, other) = (scene.backend().await?, scene.backend().await?);
    let first = scene.exclusive("k")?;
    lease(one.join(&first).await?)?;
    let waiter_ttl = scene.units(8);
    let next = Arc::new(scene.claim("k", Mode::Exclusive)?.with_waiter_ttl(waiter_ttl));
    let start = Instant::now();
    let standing = queued(other.join(&next).await?)?;
    let step = scene.capabilities.ttl_step;
    ensure!(standing.left <= waiter_ttl + step, "a waiter's lease of {waiter_ttl:?}: {:?}", standing.left);
    one.let_go(&first, true).await?;
    let holders = one.clone().inspect(first.key().clone()).await?.holders;
    let holder = holders.first().ok_or_else(|| Stop::failed("nobody holds after the hand-over"))?;
    ensure_eq!(holder.id, next.id(), "who holds after the hand-over");
    ensure!(
        holder.left <= waiter_ttl + step,
        "the hand-over made a lease of {waiter_ttl:?} one of {:?}",
        holder.left
    );
    // Asking again is a heartbeat of the waiter, and not a renewal.
    let asked = lease(other.join(&next).await?)?;
    ensure!(asked.left <= waiter_ttl + step, "a heartbeat set a lease of {:?}", asked.left);
    // Whoever was handed the lock and is dead costs a waiter's lease, not a ttl.
    let lock = scene.lock("k").await?;
    let limit = waiter_ttl + scene.promptly();
    let third = scene.within(limit, "the turn after a dead waiter", lock.exclusive().acquire()).await??;
    ensure!(start.elapsed() >= surely(waiter_ttl), "the waiter's lease was over too early");
    third.release().await?;
    Ok(())
}

pub(crate) async fn bad_arguments(scene: &Scene) -> Outcome {
    let client = scene.client().await?;
    let lock = client.lock(scene.key("k"))?;
    let kinds = [
        ("an empty key", client.lock("").map(drop)),
        ("a key of 513 bytes", client.lock("k".repeat(513)).map(drop)),
        ("a ttl of zero", lock.exclusive().ttl(Duration::ZERO).acquire().await.map(drop)),
        ("a ttl without end", lock.exclusive().ttl(Duration::MAX).acquire().await.map(drop)),
        ("an empty owner", lock.exclusive().owner("").acquire().await.map(drop)),
        ("a note of 2 KB", lock.exclusive().note("n".repeat(2048)).acquire().await.map(drop)),
        ("taking over in nobody's name", lock.exclusive().take_over().acquire().await.map(drop)),
        ("a longest hold of zero", lock.exclusive().max_hold(Duration::ZERO).acquire().await.map(drop)),
    ];
    for (what, outcome) in kinds {
        ensure_eq!(outcome.map_err(|e| e.kind()), Err(ErrorKind::InvalidArgument), "{what}");
    }
    let patient = lock.exclusive().ttl(lockcore::MAX_TTL).wait(Duration::MAX).acquire();
    let guard = scene.soon("a ttl of 100 years and a wait without end", patient).await??;
    ensure!(guard.is_held(), "a lease of 100 years is over");
    guard.release().await?;
    scene.until_free(&lock).await
}

pub(crate) async fn max_hold(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let start = Instant::now();
    let longest = scene.units(8);
    let guard = a.exclusive().ttl(scene.units(3)).max_hold(longest).acquire().await?;
    let lost = scene.within(longest + scene.promptly(), "the end of the longest hold", guard.lost()).await?;
    ensure!(start.elapsed() >= surely(scene.units(5)), "{lost} after {:?}", start.elapsed());
    scene.soon("the turn after the longest hold", b.exclusive().acquire()).await??.release().await?;
    Ok(())
}
