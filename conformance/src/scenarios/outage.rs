//! Servers that restart or stand still, and messages that are lost.

use lockcore::FenceGate;

use crate::harness::Hook;
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{LONG, PATIENCE, Scene, held};

/// In seconds: longer than any lease here.
const HOUR: i64 = 3600;

pub(crate) async fn restart_while_held(scene: &Scene) -> Outcome {
    one_passes_the_gate(scene, "the restart", scene.server.restart()).await
}

/// Whether the server keeps its state or not over what happens: at most one passes the gate, and after a lease one holds.
async fn one_passes_the_gate(scene: &Scene, what: &str, happens: impl Future<Output = Hook>) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(12);
    let gate = FenceGate::new();
    let guard = a.exclusive().ttl(ttl).acquire().await?;
    gate.enter(guard.fence()).map_err(Stop::failed)?;
    happens.await?;
    let next = b.exclusive().wait(scene.units(LONG)).acquire();
    tokio::pin!(next);
    let granted = tokio::time::timeout(ttl + scene.promptly(), &mut next).await.ok().transpose()?;
    if let Some(next) = granted {
        ensure!(next.token() > guard.token(), "token {} after {}", next.token(), guard.token());
        gate.enter(next.fence()).map_err(Stop::failed)?;
        ensure!(gate.check(guard.fence()).is_err(), "the gate let the holder of before {what} write");
        scene.within(ttl + scene.promptly(), "the news for the old holder", guard.lost()).await?;
        held(&next, "the holder after it")?;
        next.release().await?;
    } else {
        held(&guard, "a lock that the server kept")?;
        guard.release().await?;
        scene.patiently("the turn after the release", next).await??.release().await?;
    }
    scene.until_free(&b).await
}

pub(crate) async fn clock_step_forward(scene: &Scene) -> Outcome {
    one_passes_the_gate(scene, "the step of the clock", scene.server.set_clock_ahead(HOUR)).await
}

pub(crate) async fn clock_step_back(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let [a, b] = scene.locks("k").await?;
    let (dead, free) = (client.lock(scene.key("dead"))?, scene.lock("dead").await?);
    let ttl = scene.units(6);
    let guard = a.exclusive().ttl(ttl).acquire().await?;
    let cut_off = dead.exclusive().ttl(ttl).acquire().await?;
    link.partition(true)?;
    scene.server.set_clock_ahead(-HOUR).await?;
    // Whoever renews holds on, and nobody gets in beside it.
    ensure!(b.exclusive().try_acquire().await?.is_none(), "granted beside a holder");
    scene.sleep(9).await;
    held(&guard, "a lock that was renewed after the clock went back")?;
    guard.release().await?;
    let next = scene.soon("the grant after the release", b.exclusive().acquire()).await??;
    // What nobody renews ends by the time that has passed, not by what the clock shows.
    let patience = ttl + scene.units(PATIENCE);
    let heir = scene.within(patience, "the heir of who was cut off", free.exclusive().acquire()).await??;
    ensure!(!cut_off.is_held(), "who was cut off believes to hold beside the heir");
    ensure!(heir.token() > cut_off.token(), "token {} after {}", heir.token(), cut_off.token());
    held(&next, "the holder after it")?;
    Ok(())
}

pub(crate) async fn restart_while_waiting(scene: &Scene) -> Outcome {
    let a = scene.lock("k").await?;
    let waiter_ttl = scene.units(9);
    let b = scene.client_with(|builder| builder.waiter_ttl(waiter_ttl)).await?.lock(scene.key("k"))?;
    let first = a.exclusive().ttl(scene.units(12)).acquire().await?;
    let waiting = tokio::spawn(b.exclusive().wait(scene.units(LONG)).acquire());
    scene.until(&a, 1, 1).await?;
    scene.server.restart().await?;
    scene.sleep(3).await;
    drop(first);
    match scene.patiently("a wait over a restart", waiting).await?? {
        Ok(guard) => {
            let holders = scene.until(&scene.lock("k").await?, 1, 0).await?.holders;
            ensure_eq!(holders[0].id, guard.claim_id(), "who holds after the restart");
            guard.release().await?;
        }
        Err(error) => ensure!(error.is_retryable(), "a restart is said to be {error}"),
    }
    scene.until_free(&scene.lock("k").await?).await
}

pub(crate) async fn server_stands_still(scene: &Scene) -> Outcome {
    let client = scene.client_with(|builder| builder.request_timeout(scene.units(3))).await?;
    let (lock, other) = (client.lock(scene.key("k"))?, client.lock(scene.key("other"))?);
    let ttl = scene.units(9);
    let guard = lock.exclusive().ttl(ttl).acquire().await?;
    scene.server.pause(true).await?;
    let wait = scene.units(4);
    let start = tokio::time::Instant::now();
    let outcome = other.exclusive().wait(wait).acquire().await.map(drop);
    let took = start.elapsed();
    let error = outcome.err().ok_or_else(|| Stop::failed("granted by a server that stands still"))?;
    ensure!(error.is_retryable(), "a server that stands still is said to be {error}");
    ensure!(took <= wait + scene.units(6) + scene.promptly(), "a wait of {wait:?} took {took:?}");
    let limit = ttl + scene.promptly();
    scene.within(limit, "the deadline of a holder whose server stands still", guard.lost()).await?;
    scene.server.pause(false).await?;
    // What was under way arrives now. Nothing of it may stay.
    for lock in [&lock, &other] {
        let next =
            scene.patiently("the server that goes on", lock.exclusive().wait(scene.units(LONG)).acquire());
        next.await??.release().await?;
        scene.until_free(lock).await?;
    }
    ensure!(!guard.is_held(), "a lost guard came back with its server");
    Ok(())
}

pub(crate) async fn lost_news_cost_a_heartbeat(scene: &Scene) -> Outcome {
    let waiter_ttl = scene.units(12);
    let (backend, link) = scene.server.connect_through().await?;
    let client = scene.builder(backend).waiter_ttl(waiter_ttl).request_timeout(scene.units(5)).build();
    let (waiter, a) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    for cut in [false, true] {
        let first = a.exclusive().acquire().await?;
        let waiting = tokio::spawn(waiter.exclusive().wait(scene.units(LONG)).acquire());
        scene.until(&a, 1, 1).await?;
        link.partition(true)?;
        first.release().await?;
        if cut {
            link.sever()?;
        }
        link.partition(false)?;
        // It looks when its heartbeat is due, which is a third of its lease at most; never a ttl.
        let limit = waiter_ttl / 3 + scene.units(5) + scene.promptly();
        let guard = scene.within(limit, "a grant whose message was lost", waiting).await???;
        held(&guard, "a claim that was not told of its grant")?;
        guard.release().await?;
    }
    scene.until_free(&a).await
}
