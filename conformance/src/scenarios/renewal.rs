//! Renewing by hand and by the client.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{ErrorKind, Mode, Renew};
use tokio::time::{Instant, sleep};

use super::lease::surely;
use crate::claims::{Ask, lease, queued};
use crate::counting::Counting;
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{LONG, Scene, granted, held};

pub(crate) async fn renew_extends(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(12);
    let mut guard = a.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    let token = guard.token();
    for _ in 0..3 {
        sleep(ttl / 2).await;
        let before = guard.remaining();
        guard.renew().await?;
        let after = guard.remaining();
        ensure!(after > before, "{after:?} left after a renewal, {before:?} before");
        ensure!(after <= ttl, "{after:?} of {ttl:?} left: a renewal counts from now, it is not added");
    }
    held(&guard, "a lease that was renewed three times")?;
    ensure!(b.exclusive().try_acquire().await?.is_none(), "another got in beside a renewed lease");
    ensure_eq!(guard.token(), token, "the token of a renewed claim");
    let holders = b.inspect().await?.holders;
    ensure!(holders.iter().all(|info| info.left <= ttl), "more is left than the ttl: {holders:?}");
    guard.release().await?;
    Ok(())
}

pub(crate) async fn renew_threshold(scene: &Scene) -> Outcome {
    let counting = Counting::new(scene.backend().await?);
    let client = scene.builder(counting.clone()).build();
    let lock = client.lock(scene.key("k"))?;
    let ttl = scene.units(40);
    let mut guard = lock.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    let requests = counting.requests();
    for _ in 0..10 {
        ensure!(!guard.renew_if_below(ttl / 4).await?, "renewed although more was left");
    }
    ensure_eq!(counting.requests(), requests, "requests after renewals that were not needed");
    ensure!(guard.renew_if_below(ttl * 2).await?, "not renewed although less was left");
    ensure_eq!(counting.requests(), requests + 1, "requests after one renewal");
    guard.release().await?;
    Ok(())
}

pub(crate) async fn renew_after_expiry(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let ttl = scene.units(2);
    let claim = Arc::new(scene.claim("k", Mode::Exclusive)?.with_ttl(ttl));
    lease(backend.join(&claim).await?)?;
    let lock = scene.lock("k").await?;
    scene.until_free(&lock).await?;
    let renewed = backend.renew_to(&claim, ttl, 1).await.map(drop);
    ensure_eq!(
        renewed.map_err(|e| e.kind()),
        Err(ErrorKind::Lost),
        "a renewal after the expiry, on a free key"
    );
    ensure!(lock.inspect().await?.is_free(), "a renewal brought an expired claim back");
    let mut guard = lock.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    sleep(ttl).await;
    ensure_eq!(guard.renew().await.map_err(|e| e.kind()), Err(ErrorKind::Lost), "a guard's renewal too late");
    scene.until_free(&lock).await
}

pub(crate) async fn renew_after_successor(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let claim = Arc::new(scene.claim("k", Mode::Exclusive)?.with_ttl(scene.units(2)));
    lease(backend.join(&claim).await?)?;
    let next = scene.exclusive("k")?;
    scene
        .eventually("the successor's grant", async || {
            Ok(matches!(backend.join(&next).await?, lockcore::Attempt::Granted(_)).then_some(()))
        })
        .await?;
    let before = backend.clone().inspect(next.key().clone()).await?;
    let renewed = backend.renew_to(&claim, scene.units(LONG), 1).await.map(drop);
    ensure_eq!(renewed.map_err(|e| e.kind()), Err(ErrorKind::Lost), "a renewal after the successor");
    let after = backend.clone().inspect(next.key().clone()).await?;
    ensure_eq!(after.holders.len(), 1, "holders after the late renewal");
    ensure_eq!(after.holders[0].id, next.id(), "who holds after the late renewal");
    ensure!(after.holders[0].left <= before.holders[0].left, "the late renewal renewed the successor");
    Ok(())
}

pub(crate) async fn renew_reply_lost(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let lock = client.lock(scene.key("k"))?;
    let ttl = scene.units(60);
    let mut guard = lock.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
    scene.sleep(2).await;
    link.lose_replies(true)?;
    let before = guard.remaining();
    let outcome = guard.renew().await;
    ensure!(outcome.is_err(), "a renewal whose answer was lost is said to have worked");
    ensure!(guard.remaining() <= before, "a renewal without an answer made the lease longer");
    held(&guard, "a lock after one lost answer")?;
    link.lose_replies(false)?;
    scene
        .eventually("a renewal that is answered again", async || {
            Ok(guard.renew().await.is_ok().then_some(()))
        })
        .await?;
    ensure!(guard.remaining() > before, "a renewal that was answered did not make the lease longer");
    Ok(())
}

pub(crate) async fn renew_shorter(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let mut guard = a.exclusive().renew(Renew::Manual).acquire().await?;
    let ttl = scene.units(3);
    let start = Instant::now();
    guard.renew_for(ttl).await?;
    ensure!(guard.remaining() <= ttl, "{:?} left of {ttl:?}", guard.remaining());
    let limit = ttl + scene.promptly();
    let next = scene.within(limit, "the turn after a shortened lease", b.exclusive().acquire()).await??;
    ensure!(start.elapsed() >= surely(ttl), "a lease of {ttl:?} was over after {:?}", start.elapsed());
    ensure!(!guard.is_held(), "held beyond its shortened lease");
    next.release().await?;
    Ok(())
}

pub(crate) async fn late_renewal(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let claim = scene.exclusive("k")?;
    lease(backend.join(&claim).await?)?;
    let short = scene.units(20);
    backend.renew_to(&claim, short, 5).await?;
    let late = backend.renew_to(&claim, scene.units(LONG), 4).await?;
    ensure!(late.left <= short, "a late copy of an older renewal set the lease to {:?}", late.left);
    let again = backend.renew_to(&claim, scene.units(10), 6).await?;
    ensure!(again.left <= scene.units(10), "a newer renewal left {:?}", again.left);
    Ok(())
}

pub(crate) async fn waiter_cannot_renew(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    lease(backend.join(&scene.exclusive("k")?).await?)?;
    let waiter = scene.exclusive("k")?;
    queued(backend.join(&waiter).await?)?;
    let renewed = backend.renew_to(&waiter, scene.units(LONG), 1).await.map(drop);
    ensure_eq!(renewed.map_err(|e| e.kind()), Err(ErrorKind::Lost), "a renewal of a claim that waits");
    let stranger = scene.exclusive("k")?;
    let renewed = backend.renew_to(&stranger, scene.units(LONG), 1).await.map(drop);
    ensure_eq!(renewed.map_err(|e| e.kind()), Err(ErrorKind::Lost), "a renewal of a claim that nobody knows");
    let snapshot = backend.clone().inspect(waiter.key().clone()).await?;
    ensure_eq!((snapshot.holders.len(), snapshot.waiters.len()), (1, 1), "holders and waiters afterwards");
    Ok(())
}

pub(crate) async fn autorenew_holds(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(6);
    let guard = a.exclusive().ttl(ttl).acquire().await?;
    let start = Instant::now();
    while start.elapsed() < ttl * 5 {
        held(&guard, "a lock that the client renews")?;
        ensure!(b.exclusive().try_acquire().await?.is_none(), "another got in after {:?}", start.elapsed());
        scene.sleep(1).await;
    }
    guard.release().await?;
    Ok(())
}

pub(crate) async fn autorenew_after_handover(scene: &Scene) -> Outcome {
    let a = scene.lock("k").await?;
    let waiter_ttl = scene.units(6);
    let b = scene.client_with(|builder| builder.waiter_ttl(waiter_ttl)).await?.lock(scene.key("k"))?;
    let first = a.exclusive().acquire().await?;
    let waiting = tokio::spawn(b.exclusive().ttl(scene.units(9)).acquire());
    scene.until(&a, 1, 1).await?;
    // Longer than a waiter's lease: only its heartbeat keeps it in the queue.
    sleep(waiter_ttl * 2).await;
    ensure_eq!(a.inspect().await?.waiters.len(), 1, "waiters beyond the waiter's lease");
    first.release().await?;
    let guard = scene.soon("the hand-over", waiting).await???;
    let start = Instant::now();
    while start.elapsed() < scene.units(27) {
        held(&guard, "a lock that was handed over on a waiter's lease")?;
        ensure!(a.exclusive().try_acquire().await?.is_none(), "another got in after {:?}", start.elapsed());
        scene.sleep(1).await;
    }
    guard.release().await?;
    Ok(())
}

pub(crate) async fn autorenew_stops_on_drop(scene: &Scene) -> Outcome {
    let counting = Counting::new(scene.backend().await?);
    let client = scene.builder(counting.clone()).build();
    let lock = client.lock(scene.key("k"))?;
    let ttl = scene.units(6);
    let guard = lock.exclusive().ttl(ttl).acquire().await?;
    sleep(ttl * 2).await;
    held(&guard, "a lock that the client renews")?;
    ensure!(counting.renewals() >= 2, "{} renewals in two leases", counting.renewals());
    drop(guard);
    scene.until_free(&lock).await?;
    let renewals = counting.renewals();
    sleep(ttl * 2).await;
    ensure_eq!(counting.renewals(), renewals, "renewals after the guard was dropped");
    ensure!(lock.inspect().await?.is_free(), "the lock came back after the guard was dropped");
    Ok(())
}

pub(crate) async fn autorenew_survives_a_failure(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let lock = client.lock(scene.key("k"))?;
    let other = scene.lock("k").await?;
    let ttl = scene.units(15);
    let guard = lock.exclusive().ttl(ttl).acquire().await?;
    link.refuse(true)?;
    // A renewal is due after a third of the lease, and fails.
    sleep(ttl / 2).await;
    held(&guard, "a lock of which one renewal failed")?;
    link.refuse(false)?;
    let start = Instant::now();
    while start.elapsed() < ttl * 2 {
        held(&guard, "a lock whose server came back in time")?;
        ensure!(other.exclusive().try_acquire().await?.is_none(), "another got in after one failed renewal");
        scene.sleep(1).await;
    }
    Ok(())
}

pub(crate) async fn autorenew_after_reconnect(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let lock = client.lock(scene.key("k"))?;
    let ttl = scene.units(18);
    let guard = lock.exclusive().ttl(ttl).acquire().await?;
    for _ in 0..4 {
        link.sever()?;
        sleep(ttl / 2).await;
        held(&guard, "a lock whose connection was cut and came back")?;
    }
    ensure_eq!(scene.lock("k").await?.inspect().await?.holders.len(), 1, "holders after reconnecting");
    Ok(())
}

pub(crate) async fn executor_blocked(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(4);
    let guard = a.exclusive().ttl(ttl).acquire().await?;
    if scene.timing.paused {
        // Time jumps over the renewals, as it does for a process that was stopped.
        tokio::time::advance(ttl).await;
    } else {
        std::thread::sleep(ttl);
    }
    ensure!(!guard.is_held(), "a guard that could not be renewed for a whole lease counts as held");
    let ensured = guard.ensure(Duration::ZERO).map_err(|error| error.kind());
    ensure_eq!(ensured, Err(ErrorKind::Lost), "what a guard says before the next use");
    ensure_eq!(guard.remaining(), Duration::ZERO, "what is left of it");
    let next = scene.soon("the successor", b.exclusive().acquire()).await??;
    ensure!(!guard.is_held(), "a lost guard came back");
    ensure!(next.token() > guard.token(), "token {} after {}", next.token(), guard.token());
    let gate = lockcore::FenceGate::new();
    gate.enter(next.fence()).map_err(Stop::failed)?;
    ensure!(gate.check(guard.fence()).is_err(), "the gate let a stale holder write");
    Ok(())
}

pub(crate) async fn detach_and_resume(scene: &Scene) -> Outcome {
    let (a, b) = (scene.client().await?, scene.client().await?);
    let lock = a.lock(scene.key("k"))?;
    let ttl = scene.units(12);
    let guard = lock.exclusive().ttl(ttl).owner("me").note("moves").acquire().await?;
    let (token, id) = (guard.token(), guard.claim_id());
    let detached = guard.detach()?;
    ensure_eq!(lock.inspect().await?.holders.len(), 1, "holders after the guard let its claim out");
    ensure!(lock.exclusive().try_acquire().await?.is_none(), "another got in beside a detached claim");
    let resumed = b.resume(&detached).await?;
    ensure_eq!((resumed.token(), resumed.claim_id()), (token, id), "token and name of a resumed claim");
    sleep(ttl * 2).await;
    held(&resumed, "a resumed claim, which its new client renews")?;
    resumed.release().await?;
    granted(lock.exclusive().try_acquire().await?, "a try after the release")?.release().await?;
    let again = b.resume(&detached).await.map(drop);
    ensure_eq!(again.map_err(|e| e.kind()), Err(ErrorKind::Lost), "resuming a claim that has ended");
    scene.until_free(&lock).await
}
