//! Guards that learn that they hold no more.

use std::sync::Arc;

use lockcore::{BreakTarget, ErrorKind, Loss, Renew};
use tokio::time::Instant;

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::Scene;

pub(crate) async fn lost_on_break(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let guard = Arc::new(a.exclusive().ttl(scene.ttl_to_learn()).acquire().await?);
    let waiting = guard.clone();
    let waiting = tokio::spawn(async move { waiting.lost().await });
    b.break_claims(BreakTarget::Holders).await?;
    scene.learns("the news of a break", &guard, Loss::Broken).await?;
    scene.soon("who waited for it", waiting).await??;
    let guard = Arc::into_inner(guard).ok_or_else(|| Stop::failed("somebody has the guard still"))?;
    ensure!(!guard.is_held(), "a broken guard is held");
    ensure_eq!(guard.release().await.map_err(|e| e.kind()), Err(ErrorKind::Lost), "releasing a broken claim");
    Ok(())
}

pub(crate) async fn lost_with_the_state(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(60);
    let guard = a.exclusive().ttl(ttl).acquire().await?;
    let token = guard.token();
    scene.server.lose_state().await?;
    // At the next renewal, long before the deadline.
    let limit = ttl / 3 + scene.promptly();
    let loss = scene.within(limit, "the news that the server lost its state", guard.lost()).await?;
    ensure_eq!(loss, Loss::Unknown, "why it is lost");
    ensure!(!guard.is_held(), "a lost guard is held");
    let next = scene.soon("the next grant of an empty server", b.exclusive().acquire()).await??;
    ensure!(next.token() > token, "token {} after {token} of before the loss", next.token());
    let released = guard.release().await.map_err(|error| error.kind());
    ensure_eq!(released, Err(ErrorKind::Lost), "releasing what the server lost");
    ensure!(next.is_held(), "the late release took the next holder along");
    Ok(())
}

pub(crate) async fn lost_is_final(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let mut guard = a.exclusive().renew(Renew::Manual).ttl(scene.ttl_to_learn()).acquire().await?;
    b.break_claims(BreakTarget::Token(guard.token())).await?;
    let loss = scene.soon("the first to ask", guard.lost()).await?;
    // Free again, and still not mine.
    scene.until_free(&b).await?;
    for _ in 0..3 {
        ensure!(!guard.is_held(), "a lost guard is held again");
        ensure_eq!(scene.soon("another to ask", guard.lost()).await?, loss, "why it is lost");
        ensure_eq!(guard.renew().await.map_err(|e| e.kind()), Err(ErrorKind::Lost), "renewing a lost guard");
        scene.pause().await;
    }
    ensure!(b.inspect().await?.is_free(), "a lost guard took the lock again");
    ensure_eq!(guard.release().await.map_err(|e| e.kind()), Err(ErrorKind::Lost), "releasing a lost guard");
    Ok(())
}

pub(crate) async fn lost_by_the_deadline(scene: &Scene) -> Outcome {
    // Without answers, and with the answer that nobody is there: neither is proof of a renewal.
    for away in [false, true] {
        let (client, link) = scene.breakable_client().await?;
        let (a, b) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
        let ttl = scene.units(9);
        let guard = a.exclusive().ttl(ttl).acquire().await?;
        if away {
            link.refuse(true)?;
        } else {
            link.partition(true)?;
        }
        let (left, start) = (guard.remaining(), Instant::now());
        let successor = async {
            let next = b.exclusive().acquire().await;
            // Looked at before anything else happens.
            (next, guard.is_held())
        };
        let limit = ttl + scene.promptly();
        let both = async { tokio::join!(guard.lost(), successor) };
        let (loss, (next, believed)) =
            scene.within(limit, "the end of a lease without a server", both).await?;
        let next = next?;
        ensure!(!believed, "who has no server believes to hold beside its successor");
        // News of the expiry may still reach who is only refused.
        ensure!(matches!(loss, Loss::Expired | Loss::Unknown), "lost because {loss}");
        ensure!(start.elapsed() >= left, "lost after {:?}, with {left:?} to go", start.elapsed());
        ensure!(next.token() > guard.token(), "token {} after {}", next.token(), guard.token());
        if away {
            link.refuse(false)?;
        } else {
            link.partition(false)?;
        }
        let released = guard.release().await.map_err(|error| error.kind());
        ensure!(released.is_err(), "a release that came too late says nothing");
        ensure!(next.is_held(), "the late release took the successor along");
        ensure_eq!(b.inspect().await?.holders.len(), 1, "holders after the late release");
        next.release().await?;
        scene.until_free(&b).await?;
    }
    Ok(())
}

pub(crate) async fn overlap_is_fenced(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (a, b) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    let gate = lockcore::FenceGate::new();
    let paused = a.exclusive().ttl(scene.units(4)).acquire().await?;
    gate.enter(paused.fence()).map_err(Stop::failed)?;
    gate.check(paused.fence()).map_err(Stop::failed)?;
    // As a process that is stopped: it neither renews nor looks at its clock before it writes.
    link.partition(true)?;
    let next = scene.patiently("the successor of a paused holder", b.exclusive().acquire()).await??;
    gate.enter(next.fence()).map_err(Stop::failed)?;
    ensure!(gate.check(paused.fence()).is_err(), "a stale write went through the gate");
    gate.check(next.fence()).map_err(Stop::failed)?;
    Ok(())
}

pub(crate) async fn run_ends_with_the_lock(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let answer = a.exclusive().run(async |guard| guard.token()).await?;
    ensure!(b.inspect().await?.is_free(), "held after the work of token {answer} was done");
    let ttl = scene.ttl_to_learn();
    let running = tokio::spawn(async move {
        a.exclusive()
            .ttl(ttl)
            .run(async |_| std::future::pending::<()>().await)
            .await
            .map_err(|error| error.kind())
    });
    scene.until(&b, 1, 0).await?;
    b.break_claims(BreakTarget::All).await?;
    let outcome = scene.soon("the end of work whose lock was broken", running).await??;
    ensure_eq!(outcome, Err(ErrorKind::Lost), "work whose lock was broken");
    scene.until_free(&b).await
}
