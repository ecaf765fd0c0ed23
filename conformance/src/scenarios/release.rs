//! Letting go of exactly one's own claim.

use lockcore::Released;

use crate::claims::{Ask, fence, lease, queued};
use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::scene::{Scene, held};

pub(crate) async fn release_twice(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let claim = scene.exclusive("k")?;
    lease(backend.join(&claim).await?)?;
    ensure_eq!(backend.let_go(&claim, true).await?, Released::Released, "the first release");
    ensure_eq!(backend.let_go(&claim, true).await?, Released::NotHeld, "the second release");
    let waiter = scene.exclusive("k")?;
    let holder = scene.exclusive("k")?;
    lease(backend.join(&holder).await?)?;
    queued(backend.join(&waiter).await?)?;
    ensure_eq!(backend.let_go(&waiter, true).await?, Released::Released, "the release of a waiter");
    ensure_eq!(backend.let_go(&waiter, true).await?, Released::NotHeld, "its second release");
    ensure_eq!(backend.let_go(&holder, true).await?, Released::Released, "the holder's release");
    ensure!(backend.clone().inspect(claim.key().clone()).await?.is_free(), "something is left");
    Ok(())
}

pub(crate) async fn release_foreign(scene: &Scene) -> Outcome {
    let (one, other) = (scene.backend().await?, scene.backend().await?);
    let (holder, waiter, stranger) = (scene.exclusive("k")?, scene.exclusive("k")?, scene.exclusive("k")?);
    let token = fence(one.join(&holder).await?)?.token;
    queued(one.join(&waiter).await?)?;
    ensure_eq!(other.let_go(&stranger, true).await?, Released::NotHeld, "a release by a stranger");
    ensure_eq!(other.withdraw(&stranger).await?, Released::NotHeld, "a withdrawal by a stranger");
    let snapshot = one.clone().inspect(holder.key().clone()).await?;
    ensure_eq!((snapshot.holders.len(), snapshot.waiters.len()), (1, 1), "holders and waiters afterwards");
    ensure_eq!(snapshot.holders[0].token, Some(token), "who holds afterwards");
    Ok(())
}

pub(crate) async fn release_stale_same_client(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let (old, new) = (scene.exclusive("k")?, scene.exclusive("k")?);
    lease(backend.join(&old).await?)?;
    backend.let_go(&old, true).await?;
    let token = fence(backend.join(&new).await?)?.token;
    ensure_eq!(backend.let_go(&old, true).await?, Released::NotHeld, "the late release of an older claim");
    let holders = backend.clone().inspect(new.key().clone()).await?.holders;
    ensure_eq!(holders.len(), 1, "holders after the late release of the same client's older claim");
    ensure_eq!(holders[0].token, Some(token), "who holds afterwards");
    Ok(())
}

pub(crate) async fn release_waiting_only(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let (holder, waiter) = (scene.exclusive("k")?, scene.exclusive("k")?);
    let token = fence(backend.join(&holder).await?)?.token;
    queued(backend.join(&waiter).await?)?;
    match backend.withdraw(&holder).await? {
        Released::Granted(lease) => ensure_eq!(lease.fence.token, token, "the grant that stays"),
        other @ (Released::Released | Released::NotHeld) => {
            ensure!(false, "{other:?} for the withdrawal of a claim that holds");
        }
    }
    ensure_eq!(backend.withdraw(&waiter).await?, Released::Released, "the withdrawal of a waiter");
    let snapshot = backend.clone().inspect(holder.key().clone()).await?;
    ensure_eq!((snapshot.holders.len(), snapshot.waiters.len()), (1, 0), "holders and waiters afterwards");
    Ok(())
}

pub(crate) async fn release_with_lost_reply(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (lock, other) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    let guard = lock.exclusive().acquire().await?;
    link.lose_replies(true)?;
    let releasing = tokio::spawn(guard.release());
    let next = scene.patiently("the release's effect", other.exclusive().acquire()).await??;
    link.lose_replies(false)?;
    let outcome = scene.patiently("the end of a release without answers", releasing).await??;
    if let Err(error) = outcome {
        ensure!(error.is_retryable(), "a release that had worked says {error}");
    }
    scene.sleep(5).await;
    held(&next, "the next holder, after the release was tried again")?;
    ensure_eq!(other.inspect().await?.holders.len(), 1, "holders after the release was tried again");
    next.release().await?;
    Ok(())
}
