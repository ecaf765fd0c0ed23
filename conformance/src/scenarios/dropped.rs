//! Futures and guards that are dropped.

use std::pin::pin;
use std::task::Poll;

use lockcore::{Lock, LockGuard};

use crate::outcome::{Outcome, ensure};
use crate::pausing::{Pausing, poll_once};
use crate::scene::{LONG, Scene, granted, held};

pub(crate) async fn drop_waiting_future(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    let dropped = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    let next = tokio::spawn(c.exclusive().acquire());
    scene.until(&a, 1, 2).await?;
    dropped.abort();
    scene.until(&a, 1, 1).await?;
    first.release().await?;
    let next = scene.soon("the turn of whoever waited behind a dropped future", next).await???;
    next.release().await?;
    scene.until_free(&a).await
}

pub(crate) async fn drop_guard_releases(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    let waiting = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    drop(first);
    let next = scene.soon("the turn after a dropped guard", waiting).await???;
    held(&next, "the holder after a dropped guard")?;
    drop(next);
    scene.until_free(&a).await?;
    // Also when nobody awaits anything any more.
    let guard = granted(a.shared().try_acquire().await?, "a try after the drop")?;
    drop((guard, a));
    scene.until_free(&b).await
}

pub(crate) async fn drop_without_a_server(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (lock, observer) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    let guard = lock.exclusive().acquire().await?;
    link.refuse(true)?;
    drop(guard);
    scene.sleep(2).await;
    link.refuse(false)?;
    // It is tried again, long before the lease is over.
    scene.until_free(&observer).await
}

/// More polls than any acquire needs here; the loop ends with the first one that is done before.
const MOST_POLLS: usize = 60;

pub(crate) async fn cancel_every_poll_point(scene: &Scene) -> Outcome {
    let client = scene.builder(Pausing::new(scene.backend().await?)).build();
    let observer = scene.lock("k").await?;
    let lock = client.lock(scene.key("k"))?;
    for busy in [false, true] {
        for polls in 0..MOST_POLLS {
            let holder = if busy { Some(observer.exclusive().acquire().await?) } else { None };
            let finished = dropped_after(scene, &lock, holder, polls).await?;
            // The request that was under way may arrive yet, and be let go of then.
            let next =
                scene.soon("the turn after a dropped acquire", observer.exclusive().acquire()).await??;
            next.release().await?;
            if finished {
                break;
            }
            ensure!(polls + 1 < MOST_POLLS, "an acquire is not done after {polls} polls");
        }
    }
    scene.sleep(2).await;
    let left = observer.inspect().await?;
    ensure!(left.is_free(), "dropped acquires left {left:?}");
    Ok(())
}

/// Drops an acquire after so many polls; whether it was done before. The holder lets go in the middle of it.
async fn dropped_after(
    scene: &Scene,
    lock: &Lock,
    mut holder: Option<LockGuard<lockcore::Exclusive>>,
    polls: usize,
) -> Outcome<bool> {
    let mut acquire = pin!(lock.exclusive().wait(scene.units(LONG)).acquire());
    for polled in 0..polls {
        if polled > 0 {
            // What is under way gets the time to arrive, so that the next poll goes a step further. Not after the last one:
            // the future is dropped with its request on the way.
            scene.pause().await;
            if lock.inspect().await?.waiters.len() == 1
                && let Some(holder) = holder.take()
            {
                holder.release().await?;
            }
        }
        if let Poll::Ready(guard) = poll_once(acquire.as_mut()).await {
            drop(guard?);
            return Ok(true);
        }
    }
    Ok(false)
}
