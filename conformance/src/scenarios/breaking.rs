//! Taking locks off their holders.

use lockcore::{Attempt, BreakTarget, ErrorKind, FencingToken, Loss, Released};

use crate::claims::{Ask, fence, lease};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{Scene, granted, held};

pub(crate) async fn break_current(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.exclusive().ttl(scene.ttl_to_learn()).owner("first").acquire().await?;
    let waiting = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 1).await?;
    let broken = c.break_claims(BreakTarget::Token(first.token())).await?;
    ensure_eq!(broken.len(), 1, "how many claims the break says that it removed");
    ensure_eq!(broken[0].id, first.claim_id(), "whose claim was broken");
    ensure_eq!(broken[0].owner.as_deref(), Some("first"), "the owner of the broken claim");
    let second = scene.soon("the turn after a break", waiting).await???;
    ensure!(second.token() > first.token(), "token {} after {}", second.token(), first.token());
    scene.learns("the news of a break", &first, Loss::Broken).await?;
    held(&second, "the holder after a break")?;
    second.release().await?;
    Ok(())
}

pub(crate) async fn break_wrong_token(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let old = a.exclusive().acquire().await?;
    let (stale, id) = (old.token(), old.claim_id());
    old.release().await?;
    let guard = a.exclusive().acquire().await?;
    let wrong = [
        BreakTarget::Token(stale),
        BreakTarget::Token(FencingToken::FIRST),
        BreakTarget::Claim(id),
        BreakTarget::Owner("nobody".into()),
    ];
    for target in wrong {
        let broken = b.break_claims(target.clone()).await?;
        ensure!(broken.is_empty(), "{target:?} broke {broken:?}");
    }
    scene.sleep(1).await;
    held(&guard, "a claim that no break named")?;
    ensure_eq!(b.inspect().await?.holders.len(), 1, "holders after breaks that name nobody");
    guard.release().await?;
    ensure!(b.break_claims(BreakTarget::All).await?.is_empty(), "a break of a free lock broke something");
    Ok(())
}

pub(crate) async fn break_shared_one(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let one = a.shared().ttl(scene.ttl_to_learn()).acquire().await?;
    let other = b.shared().acquire().await?;
    let broken = c.break_claims(BreakTarget::Token(one.token())).await?;
    ensure_eq!(broken.len(), 1, "how many of two readers were broken");
    scene.learns("the news of a break", &one, Loss::Broken).await?;
    held(&other, "the reader that was not broken")?;
    ensure!(c.exclusive().try_acquire().await?.is_none(), "a writer got in beside the reader that is left");
    other.release().await?;
    granted(c.exclusive().try_acquire().await?, "a writer after both")?.release().await?;
    Ok(())
}

pub(crate) async fn break_then_old_release(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let (old, new) = (scene.exclusive("k")?, scene.exclusive("k")?);
    let token = fence(backend.join(&old).await?)?.token;
    backend.clone().break_claims(old.key().clone(), BreakTarget::Token(token)).await?;
    let next = fence(backend.join(&new).await?)?.token;
    ensure!(next > token, "token {next} after {token}");
    ensure_eq!(backend.let_go(&old, true).await?, Released::NotHeld, "the release of a broken claim");
    let renewed = backend.renew_to(&old, scene.units(9), 1).await.map(drop);
    ensure_eq!(renewed.map_err(|e| e.kind()), Err(ErrorKind::Lost), "the renewal of a broken claim");
    ensure_eq!(backend.join(&old).await?, Attempt::Gone, "the acquire of a broken claim");
    let holders = backend.clone().inspect(new.key().clone()).await?.holders;
    ensure_eq!(holders.len(), 1, "holders after all that");
    ensure_eq!(holders[0].token, Some(next), "who holds after all that");
    lease(backend.join(&new).await?)?;
    Ok(())
}

pub(crate) async fn break_owner(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let ann = a.shared().ttl(scene.ttl_to_learn()).owner("ann").acquire().await?;
    let bob = b.shared().owner("bob").acquire().await?;
    let waiting = tokio::spawn(a.exclusive().owner("ann").acquire());
    scene.until(&c, 2, 1).await?;
    let broken = c.break_claims(BreakTarget::Owner("ann".into())).await?;
    ensure_eq!(broken.len(), 2, "how many of ann's claims were broken: {broken:?}");
    scene.learns("the news of a break of the holder", &ann, Loss::Broken).await?;
    scene.turned_away("the wait that was broken", waiting).await?;
    held(&bob, "bob's claim")?;
    Ok(())
}

pub(crate) async fn break_all(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let first = a.exclusive().ttl(scene.ttl_to_learn()).acquire().await?;
    let waiting = tokio::spawn(b.exclusive().acquire());
    scene.until(&c, 1, 1).await?;
    let broken = c.break_claims(BreakTarget::All).await?;
    let roles: Vec<bool> = broken.iter().map(|info| info.token.is_some()).collect();
    ensure_eq!(roles, [true, false], "a holder and a waiter that were broken");
    scene.learns("the news of a break of the holder", &first, Loss::Broken).await?;
    scene.turned_away("the wait that was broken", waiting).await?;
    scene.until_free(&c).await?;
    let next = c.exclusive().try_acquire().await?.ok_or_else(|| Stop::failed("not free"))?;
    ensure!(next.token() > first.token(), "token {} after {}", next.token(), first.token());
    Ok(())
}
