//! The same owner claims again.

use lockcore::{Attempt, BreakTarget, ClaimInfo, ErrorKind, Loss, Mode};

use crate::claims::{Ask, lease};
use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::scene::{Scene, held};

pub(crate) async fn takes_over_a_holder(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let old = a.exclusive().ttl(scene.ttl_to_learn()).owner("job").acquire().await?;
    let waiting = tokio::spawn(c.exclusive().owner("other").acquire());
    scene.until(&a, 1, 1).await?;
    let new = scene.soon("a take-over", b.exclusive().owner("job").take_over().acquire()).await??;
    ensure!(new.token() > old.token(), "token {} after {}", new.token(), old.token());
    scene.learns("the news of a take-over", &old, Loss::TakenOver).await?;
    ensure_eq!(
        old.release().await.map_err(|e| e.kind()),
        Err(ErrorKind::Lost),
        "releasing what was taken over"
    );
    held(&new, "who took over")?;
    ensure!(!waiting.is_finished(), "the queue overtook a take-over");
    new.release().await?;
    scene.soon("the queue's turn", waiting).await???.release().await?;
    Ok(())
}

pub(crate) async fn takes_over_a_waiter(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.exclusive().acquire().await?;
    let old = tokio::spawn(b.exclusive().owner("job").acquire());
    scene.until(&a, 1, 1).await?;
    let behind = tokio::spawn(c.exclusive().owner("other").acquire());
    scene.until(&a, 1, 2).await?;
    let new = tokio::spawn(a.exclusive().owner("job").take_over().acquire());
    scene.turned_away("the wait that was taken over", old).await?;
    let owners: Vec<_> = scene.until(&a, 1, 2).await?.waiters.into_iter().map(|info| info.owner).collect();
    ensure_eq!(owners, [Some("job".into()), Some("other".into())], "the queue after a waiter was taken over");
    first.release().await?;
    let new = scene.soon("the turn of who took over", new).await???;
    ensure!(!behind.is_finished(), "two hold exclusively");
    new.release().await?;
    scene.soon("the turn behind", behind).await???.release().await?;
    Ok(())
}

pub(crate) async fn a_try_replaces_nothing(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let mine = a.shared().ttl(scene.ttl_to_learn()).owner("job").acquire().await?;
    let other = b.shared().owner("other").acquire().await?;
    let busy = b.exclusive().owner("job").take_over().try_acquire().await?;
    ensure!(busy.is_none(), "a try took over beside another holder");
    scene.sleep(1).await;
    held(&mine, "what a try did not take over")?;
    ensure_eq!(a.inspect().await?.holders.len(), 2, "holders after a try that was not granted");
    other.release().await?;
    let taken = b.exclusive().owner("job").take_over().try_acquire().await?;
    ensure!(taken.is_some(), "a try did not take over although nobody else holds");
    scene.learns("the news of a take-over", &mine, Loss::TakenOver).await?;
    Ok(())
}

pub(crate) async fn waits_when_others_hold(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let mine = a.shared().ttl(scene.ttl_to_learn()).owner("job").acquire().await?;
    let other = b.shared().owner("other").acquire().await?;
    let queue = tokio::spawn(c.exclusive().owner("queue").acquire());
    scene.until(&a, 2, 1).await?;
    let new = tokio::spawn(a.exclusive().owner("job").take_over().acquire());
    // Lost at once, even though the new claim must wait for the other reader.
    scene.learns("the news of a take-over", &mine, Loss::TakenOver).await?;
    let snapshot = scene.until(&b, 1, 2).await?;
    ensure_eq!(snapshot.waiters[0].owner.as_deref(), Some("job"), "who stands ahead of the queue");
    ensure!(b.shared().try_acquire().await?.is_none(), "a reader joined past a waiting take-over");
    other.release().await?;
    let new = scene.soon("the turn of who took over", new).await???;
    new.release().await?;
    scene.soon("the queue's turn", queue).await???.release().await?;
    Ok(())
}

pub(crate) async fn late_copy_evicts_nobody(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let of_job = |take_over: bool| -> Outcome<_> {
        let claim = scene.claim("k", Mode::Exclusive)?.with_owner(Some("job".into()));
        Ok(std::sync::Arc::new(claim.taking_over(take_over)))
    };
    let (first, second) = (of_job(true)?, of_job(true)?);
    lease(backend.join(&first).await?)?;
    lease(backend.join(&second).await?)?;
    ensure_eq!(backend.join(&first).await?, Attempt::Gone, "a late copy of the older take-over");
    let holders = backend.clone().inspect(first.key().clone()).await?.holders;
    ensure_eq!(holders.len(), 1, "holders after the late copy");
    ensure_eq!(holders[0].id, second.id(), "who holds after the late copy");
    // The newer one asks again, and is itself.
    lease(backend.join(&second).await?)?;
    let broken = backend.clone().break_claims(first.key().clone(), BreakTarget::Owner("job".into())).await?;
    ensure_eq!(broken.len(), 1, "claims of the owner");
    Ok(())
}

pub(crate) async fn unheard_take_over(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let [a, b] = scene.locks("k").await?;
    let holder = a.exclusive().owner("other").acquire().await?;
    let old = tokio::spawn(client.lock(scene.key("k"))?.exclusive().owner("job").take_over().acquire());
    scene.until(&a, 1, 1).await?;
    link.partition(true)?;
    let new = tokio::spawn(b.exclusive().owner("job").note("newer").take_over().acquire());
    let is_newer = |waiters: &[ClaimInfo]| matches!(waiters, [only] if only.note.as_deref() == Some("newer"));
    let in_place = async || Ok(is_newer(&a.inspect().await?.waiters).then_some(()));
    scene.eventually("the newer claim to stand there alone", in_place).await?;
    link.partition(false)?;
    // It hears of it now, or finds its claim gone and joins again.
    let told = async || {
        let rejoined = a.inspect().await?.waiters.len() > 1;
        Ok((old.is_finished() || rejoined).then_some(()))
    };
    scene.eventually("the older claim to find out", told).await?;
    holder.release().await?;
    let new = scene.soon("the turn of who took over", new).await???;
    scene.sleep(2).await;
    held(&new, "who took over, after the older claim found out")?;
    old.abort();
    new.release().await?;
    scene.until_free(&a).await
}
