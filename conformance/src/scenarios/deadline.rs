//! What a client believes of its lease is never more than what the server knows.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Lock, LockGuard, LockMode, Renew};
use tokio::time::Instant;

use crate::faulty::{Fault, Faulty};
use crate::harness::Client;
use crate::outcome::{Outcome, Stop, ensure};
use crate::scene::{LONG, Scene, granted};

/// The guard's own deadline must not lie behind the server's.
async fn not_beyond<M: LockMode>(scene: &Scene, guard: &LockGuard<M>, lock: &Lock, when: &str) -> Outcome {
    let (remaining, start) = (guard.remaining(), Instant::now());
    if remaining.is_zero() {
        return Ok(());
    }
    let holders = lock.inspect().await?.holders;
    let holder = holders.iter().find(|info| info.id == guard.claim_id());
    let left = holder.map(|info| info.left).unwrap_or_default();
    // The server's moment lies between the two looks at the own clock. Two clocks are not read more exactly than that.
    let slack = start.elapsed() + if scene.timing.paused { Duration::ZERO } else { Duration::from_millis(1) };
    ensure!(remaining <= left + slack, "{when}: the guard counts on {remaining:?}, the server on {left:?}");
    Ok(())
}

/// In units: how long answers take.
const SLOW: u32 = 2;

fn slow(scene: &Scene, backend: Client) -> Arc<Faulty> {
    let backend = Faulty::new(backend);
    backend.always(Fault::LateAnswer(scene.units(SLOW)));
    backend
}

pub(crate) async fn slow_answers(scene: &Scene) -> Outcome {
    let observer = scene.lock("k").await?;
    let backend = slow(scene, scene.backend().await?);
    let client = scene.builder(backend).waiter_ttl(scene.units(12)).request_timeout(scene.units(20)).build();
    let lock = client.lock(scene.key("k"))?;
    let ttl = scene.units(9);

    let mut guard = lock.shared().ttl(ttl).renew(Renew::Manual).acquire().await?;
    not_beyond(scene, &guard, &observer, "after an acquire").await?;
    guard.renew().await?;
    not_beyond(scene, &guard, &observer, "after a renewal").await?;
    guard.renew_for(ttl / 2).await?;
    not_beyond(scene, &guard, &observer, "after a renewal that made it shorter").await?;
    guard.renew_for(ttl * 2).await?;
    not_beyond(scene, &guard, &observer, "after a renewal that made it longer").await?;
    if scene.capabilities.convert {
        let upgraded = guard.upgrade().await?;
        not_beyond(scene, &upgraded, &observer, "after an upgrade").await?;
        upgraded.release().await?;
    } else {
        guard.release().await?;
    }

    let detached = lock.exclusive().ttl(ttl).acquire().await?.detach()?;
    let resumed = client.resume(&detached).await?;
    not_beyond(scene, &resumed, &observer, "after a claim was resumed").await?;
    for _ in 0..9 {
        scene.sleep(1).await;
        not_beyond(scene, &resumed, &observer, "while the client renews").await?;
    }
    resumed.release().await?;
    scene.until_free(&observer).await
}

pub(crate) async fn slow_answers_at_handover(scene: &Scene) -> Outcome {
    let renewed = async |renew: Renew| {
        let (key, ttl) = (format!("{renew:?}"), scene.units(LONG));
        let observer = scene.lock(&key).await?;
        let backend = slow(scene, scene.backend().await?);
        let (waiter_ttl, patience) = (scene.units(12), scene.units(20));
        let client = scene.builder(backend).waiter_ttl(waiter_ttl).request_timeout(patience).build();
        let lock = client.lock(scene.key(&key))?;
        let first = observer.exclusive().acquire().await?;
        let waiting = tokio::spawn(lock.exclusive().ttl(ttl).renew(renew).acquire());
        scene.until(&observer, 1, 1).await?;
        scene.sleep(5).await;
        first.release().await?;
        let guard = scene.patiently("the hand-over", waiting).await???;
        not_beyond(scene, &guard, &observer, "after a hand-over").await?;
        if renew == Renew::Manual {
            // Whoever renews by hand is given the whole ttl once.
            let given = guard.remaining();
            ensure!(given > ttl / 2, "{given:?} of {ttl:?} for who renews by hand");
        }
        for _ in 0..15 {
            scene.sleep(1).await;
            not_beyond(scene, &guard, &observer, "some time after a hand-over").await?;
        }
        guard.release().await?;
        scene.until_free(&observer).await
    };
    tokio::try_join!(renewed(Renew::Automatic), renewed(Renew::Manual)).map(drop)
}

pub(crate) async fn held_until_the_successor(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(4);
    for _ in 0..3 {
        let guard = a.exclusive().ttl(ttl).renew(Renew::Manual).acquire().await?;
        let belief = guard.remaining();
        ensure!(belief <= ttl, "{belief:?} of {ttl:?} left");
        ensure!(belief > ttl / 2, "only {belief:?} of {ttl:?} left");
        guard.ensure(belief / 2).map_err(Stop::failed)?;
        ensure!(guard.ensure(ttl * 2).is_err(), "more than the whole lease is said to be left");
        loop {
            // The order matters: who looks first at itself and then at the server must not see both.
            let held = guard.is_held();
            let next = b.exclusive().try_acquire().await?;
            if held && guard.is_held() {
                ensure!(next.is_none(), "two believe to hold");
            }
            if let Some(next) = next {
                ensure!(!guard.is_held(), "whose lease has run out believes to hold");
                next.release().await?;
                break;
            }
            scene.pause().await;
        }
    }
    granted(a.exclusive().try_acquire().await?, "the lock after all that")?.release().await?;
    Ok(())
}

pub(crate) async fn late_answer_revives_nobody(scene: &Scene) -> Outcome {
    let renewed = async |renew: Renew| {
        let key = format!("{renew:?}");
        let observer = scene.lock(&key).await?;
        let backend = Faulty::new(scene.backend().await?);
        let client = scene.builder(backend.clone()).request_timeout(scene.units(60)).build();
        let lock = client.lock(scene.key(&key))?;
        let ttl = scene.units(18);
        let mut guard = lock.exclusive().ttl(ttl).renew(renew).acquire().await?;
        // A renewal is sent after a third of the lease, and answered after its end: too late to count, although the server
        // has renewed it.
        backend.always(Fault::LateAnswer(scene.units(14)));
        if renew == Renew::Manual {
            scene.sleep(6).await;
            let renewed = guard.renew().await;
            ensure!(
                renewed.is_err(),
                "a renewal that was answered after the deadline is said to have worked"
            );
        } else {
            scene.within(ttl + scene.promptly(), "the deadline", guard.lost()).await?;
            scene.sleep(3).await;
        }
        ensure!(!guard.is_held(), "an answer that came after the deadline revived a guard ({renew:?})");
        backend.always(Fault::None);
        drop(guard);
        scene.until_free(&observer).await
    };
    tokio::try_join!(renewed(Renew::Automatic), renewed(Renew::Manual)).map(drop)
}
