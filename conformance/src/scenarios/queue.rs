//! Who is next.

use std::time::Duration;

use lockcore::{Lock, LockGuard, LockMode, Mode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::history::{Act, Options, Track};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{LONG, Scene, granted};

type Waiting<M> = JoinHandle<lockcore::Result<LockGuard<M>>>;

pub(crate) async fn fifo_excl(scene: &Scene) -> Outcome {
    let locks: [Lock; 4] = scene.locks("k").await?;
    let first = locks[0].exclusive().acquire().await?;
    let mut waiting: Vec<Waiting<_>> = Vec::new();
    for at in 0..20 {
        waiting.push(tokio::spawn(locks[at % locks.len()].exclusive().acquire()));
        scene.until(&locks[0], 1, at + 1).await?;
    }
    let mut token = first.token();
    first.release().await?;
    for (at, next) in waiting.into_iter().enumerate() {
        let guard = scene.soon(&format!("the turn of waiter {at}"), next).await???;
        ensure!(guard.token() > token, "waiter {at} has token {} after {token}", guard.token());
        token = guard.token();
        guard.release().await?;
    }
    Ok(())
}

pub(crate) async fn fifo_mixed(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.shared().acquire().await?;
    let writer = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    ensure!(c.shared().try_acquire().await?.is_none(), "a try overtook a waiting writer");
    let reader = tokio::spawn(c.shared().acquire());
    scene.until(&a, 1, 2).await?;
    scene.sleep(2).await;
    ensure!(!reader.is_finished(), "a reader overtook a waiting writer");
    first.release().await?;
    let writer = scene.soon("the writer's turn", writer).await???;
    ensure!(!reader.is_finished(), "a reader holds beside the writer");
    let token = writer.token();
    writer.release().await?;
    let reader = scene.soon("the reader's turn", reader).await???;
    ensure!(reader.token() > token, "the reader's token {} after {token}", reader.token());
    reader.release().await?;
    Ok(())
}

pub(crate) async fn writer_not_starved(scene: &Scene) -> Outcome {
    let locks: [Lock; 4] = scene.locks("k").await?;
    let writer = scene.lock("k").await?;
    let mut readers = tokio::task::JoinSet::new();
    let hold = scene.timing.unit / 2;
    for lock in locks {
        readers.spawn(async move {
            loop {
                let guard = lock.shared().acquire().await?;
                sleep(hold).await;
                guard.release().await?;
            }
            #[expect(unreachable_code, reason = "names the type of the task's errors")]
            Outcome::Ok(())
        });
    }
    for at in 0..5 {
        let guard = scene.soon(&format!("turn {at} of the writer"), writer.exclusive().acquire()).await??;
        guard.release().await?;
    }
    if let Some(ended) = readers.try_join_next() {
        ended??;
    }
    Ok(())
}

pub(crate) async fn hundred_keys(scene: &Scene) -> Outcome {
    let client = scene.client().await?;
    let mut acquires = tokio::task::JoinSet::new();
    for key in 0..100 {
        let lock = client.lock(scene.key(&key.to_string()))?;
        acquires.spawn(async move { lock.exclusive().acquire().await });
    }
    let mut guards = Vec::new();
    while let Some(guard) = scene.patiently("a hundred acquires at once", acquires.join_next()).await? {
        guards.push(guard??);
    }
    ensure!(guards.iter().all(LockGuard::is_held), "not all of a hundred keys are held at once");
    Ok(())
}

pub(crate) async fn independent_keys(scene: &Scene) -> Outcome {
    let (a, b) = (scene.client().await?, scene.client().await?);
    let one = a.lock(scene.key("one"))?.exclusive().acquire().await?;
    let waiting = tokio::spawn(b.lock(scene.key("one"))?.exclusive().acquire());
    scene.until(&a.lock(scene.key("one"))?, 1, 1).await?;
    let other = b.lock(scene.key("other"))?;
    let other = granted(other.exclusive().try_acquire().await?, "another key than the held one")?;
    ensure!(!waiting.is_finished(), "two hold one key");
    other.release().await?;
    one.release().await?;
    scene.soon("the hand-over on the first key", waiting).await???.release().await?;
    Ok(())
}

/// How many wait at once.
const HERD: usize = 200;

pub(crate) async fn thundering_herd(scene: &Scene) -> Outcome {
    let locks: [Lock; 8] = scene.locks("k").await?;
    let first = locks[0].exclusive().acquire().await?;
    let mut herd = tokio::task::JoinSet::new();
    for at in 0..HERD {
        let (lock, history) = (locks[at % locks.len()].clone(), scene.history.clone());
        herd.spawn(async move {
            let track = history.asks(lock.key().as_str(), Mode::Exclusive);
            let guard = lock.exclusive().acquire().await?;
            track.granted(&guard);
            tokio::task::yield_now().await;
            track.release(guard).await
        });
    }
    scene.until(&locks[0], 1, HERD).await?;
    first.release().await?;
    while let Some(served) = scene.patiently("the herd", herd.join_next()).await? {
        served??;
    }
    let options = Options { complete: true, ..Options::default() };
    let summary = scene.history.check(options).map_err(Stop::failed)?;
    ensure_eq!(summary.grants, HERD, "how many of the herd were granted");
    scene.until_free(&locks[0]).await
}

pub(crate) async fn fifo_history(scene: &Scene) -> Outcome {
    let locks: [Lock; 3] = scene.locks("k").await?;
    let first = locks[0].exclusive().acquire().await?;
    let mut random = scene.random();
    let mut waiting = tokio::task::JoinSet::new();
    for at in 0..30 {
        let mode = if random.bool() { Mode::Exclusive } else { Mode::Shared };
        let track = scene.history.asks(locks[0].key().as_str(), mode);
        let (lock, noting) = (locks[at % locks.len()].clone(), track.clone());
        let hold = scene.timing.unit.mul_f64(random.f64() / 10.0);
        waiting.spawn(async move {
            if mode.is_exclusive() {
                hold_for(lock.exclusive().acquire().await?, &noting, hold).await
            } else {
                hold_for(lock.shared().acquire().await?, &noting, hold).await
            }
        });
        scene.until(&locks[0], 1, at + 1).await?;
        track.note(Act::Queued);
    }
    first.release().await?;
    while let Some(served) = scene.patiently("all turns", waiting.join_next()).await? {
        served??;
    }
    let options = Options { fair: true, complete: true, drained_within: Some(scene.promptly()) };
    scene.history.check(options).map_err(Stop::failed)?;
    Ok(())
}

async fn hold_for<M: LockMode>(guard: LockGuard<M>, track: &Track, hold: Duration) -> lockcore::Result<()> {
    track.granted(&guard);
    sleep(hold).await;
    track.release(guard).await
}

pub(crate) async fn try_never_overtakes(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.shared().acquire().await?;
    let writer = tokio::spawn(b.exclusive().wait(scene.units(LONG)).acquire());
    scene.until(&a, 1, 1).await?;
    let start = Instant::now();
    while start.elapsed() < scene.units(2) {
        ensure!(c.shared().try_acquire().await?.is_none(), "a try to share overtook the queue");
        scene.pause().await;
    }
    first.release().await?;
    scene.soon("the writer's turn", writer).await???.release().await?;
    granted(c.shared().try_acquire().await?, "a try after the queue is served")?.release().await?;
    Ok(())
}
