//! Holders that share, and permits.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use lockcore::{Lock, LockGuard, Shared};

use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::scene::{Scene, granted, held};

async fn readers(lock: &Lock, n: usize) -> Outcome<Vec<LockGuard<Shared>>> {
    let mut guards = Vec::with_capacity(n);
    for at in 0..n {
        guards.push(granted(lock.shared().try_acquire().await?, &format!("reader {at}"))?);
    }
    Ok(guards)
}

pub(crate) async fn shared_many(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let mut guards = readers(&a, 5).await?;
    guards.extend(readers(&b, 5).await?);
    ensure_eq!(c.inspect().await?.holders.len(), 10, "how many share");
    let writer = c.exclusive().try_acquire().await?;
    ensure!(writer.is_none(), "a writer got in beside ten readers");
    while let Some(guard) = guards.pop() {
        guard.release().await?;
        ensure_eq!(c.inspect().await?.holders.len(), guards.len(), "how many share after one has left");
        for guard in &guards {
            held(guard, "a reader that others leave")?;
        }
    }
    granted(c.exclusive().try_acquire().await?, "a writer after the last reader")?.release().await?;
    Ok(())
}

pub(crate) async fn shared_then_excl(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let mut guards = readers(&a, 2).await?;
    guards.extend(readers(&b, 1).await?);
    let writer = tokio::spawn(c.exclusive().acquire());
    scene.until(&a, 3, 1).await?;
    while let Some(guard) = guards.pop() {
        ensure!(!writer.is_finished(), "a writer holds beside {} readers", guards.len() + 1);
        guard.release().await?;
        if !guards.is_empty() {
            scene.sleep(1).await;
        }
    }
    let writer = scene.soon("the writer's turn", writer).await???;
    ensure!(a.shared().try_acquire().await?.is_none(), "a reader got in beside the writer");
    writer.release().await?;
    Ok(())
}

pub(crate) async fn excl_then_shared_batch(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let writer = a.exclusive().acquire().await?;
    let mut waiting = Vec::new();
    for at in 0..6 {
        let lock = if at % 2 == 0 { &b } else { &c };
        waiting.push(tokio::spawn(lock.shared().acquire()));
        scene.until(&a, 1, at + 1).await?;
    }
    writer.release().await?;
    let mut guards = Vec::new();
    for (at, waiting) in waiting.into_iter().enumerate() {
        guards.push(scene.soon(&format!("reader {at} of the batch"), waiting).await???);
    }
    ensure_eq!(a.inspect().await?.holders.len(), 6, "how many of the batch hold together");
    for guard in guards {
        guard.release().await?;
    }
    scene.until_free(&a).await
}

fn at_most(n: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(n - 1)
}

pub(crate) async fn permits_bounded(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let mut guards = Vec::new();
    for lock in [&a, &b, &a] {
        guards.push(granted(lock.permit(at_most(3)).try_acquire().await?, "one of three permits")?);
    }
    ensure!(b.permit(at_most(3)).try_acquire().await?.is_none(), "a fourth of three permits");
    ensure!(b.exclusive().try_acquire().await?.is_none(), "a writer beside three permits");
    let fourth = tokio::spawn(b.permit(at_most(3)).acquire());
    scene.until(&a, 3, 1).await?;
    if let Some(guard) = guards.pop() {
        guard.release().await?;
    }
    let fourth = scene.soon("the permit that was let go", fourth).await???;
    ensure_eq!(a.inspect().await?.holders.len(), 3, "how many hold permits");
    fourth.release().await?;
    Ok(())
}

pub(crate) async fn permits_of_several_bounds(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let narrow = granted(a.permit(at_most(2)).try_acquire().await?, "a permit of two")?;
    let wide = granted(b.permit(at_most(9)).try_acquire().await?, "a permit of nine beside one of two")?;
    let third = b.permit(at_most(9)).try_acquire().await?;
    ensure!(third.is_none(), "a third holder although one tolerates two");
    ensure!(b.shared().try_acquire().await?.is_none(), "a reader as the third although one tolerates two");
    narrow.release().await?;
    let two = granted(a.shared().try_acquire().await?, "a reader beside a permit of nine")?;
    ensure!(a.permit(at_most(2)).try_acquire().await?.is_none(), "a permit of two as the third holder");
    drop((wide, two));
    scene.until_free(&a).await
}

pub(crate) async fn token_unique_shared(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let writer = a.exclusive().acquire().await?;
    let before = writer.token();
    let mut waiting = Vec::new();
    for at in 0..8 {
        let lock = if at % 2 == 0 { &b } else { &c };
        waiting.push(tokio::spawn(lock.shared().acquire()));
        scene.until(&a, 1, at + 1).await?;
    }
    writer.release().await?;
    let mut tokens = Vec::new();
    let mut guards = Vec::new();
    for reader in waiting {
        let guard = scene.soon("a reader of the batch", reader).await???;
        ensure!(guard.token() > before, "a reader's token {} after {before}", guard.token());
        ensure!(guard.fence().floor > before, "a reader's floor {} after {before}", guard.fence().floor);
        tokens.push(guard.token());
        guards.push(guard);
    }
    let seen: Vec<_> = a.inspect().await?.holders.iter().filter_map(|info| info.token).collect();
    let shown = tokens.iter().copied().collect::<BTreeSet<_>>();
    ensure_eq!(shown.len(), tokens.len(), "how many tokens {tokens:?} are different");
    ensure_eq!(seen, shown.into_iter().collect::<Vec<_>>(), "the tokens that an inspection shows");
    let earliest = tokens.iter().min().copied();
    let batch_floors = guards.iter().all(|guard| Some(guard.fence().floor) == earliest);
    ensure!(batch_floors, "the floor of co-holders is the earliest of their tokens: {guards:?}");
    Ok(())
}

pub(crate) async fn one_reader_partitioned(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(9);
    let cut_off = client.lock(scene.key("k"))?.shared().ttl(ttl).acquire().await?;
    let other = a.shared().ttl(ttl).acquire().await?;
    link.partition(true)?;
    let writer = tokio::spawn(b.exclusive().acquire());
    // Its lease is the bound, for itself and for the others, who go on meanwhile.
    scene.within(ttl + scene.promptly(), "the end of a lease without a server", cut_off.lost()).await?;
    scene.until(&a, 1, 1).await?;
    held(&other, "the reader beside it")?;
    ensure!(!writer.is_finished(), "a writer got in beside a reader");
    other.release().await?;
    let writer = scene.patiently("the writer's turn", writer).await???;
    link.partition(false)?;
    ensure!(cut_off.release().await.is_err(), "a release that came too late says nothing");
    held(&writer, "the writer, after the reader came back")?;
    ensure_eq!(a.inspect().await?.holders.len(), 1, "holders after the reader came back");
    writer.release().await?;
    scene.until_free(&a).await
}
