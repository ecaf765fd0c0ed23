//! Upgrades and downgrades.

use std::num::NonZeroU32;

use lockcore::{Attempt, ErrorKind, Mode};

use crate::claims::{Ask, fence, lease, queued};
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{Scene, granted, held};

pub(crate) async fn upgrade_waits(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let one = a.shared().acquire().await?;
    let other = b.shared().acquire().await?;
    let before = one.token();
    let queue = tokio::spawn(c.exclusive().acquire());
    scene.until(&c, 2, 1).await?;
    let upgrade = tokio::spawn(one.upgrade());
    scene
        .eventually("the upgrade to wait", async || {
            Ok(c.inspect().await?.holders.iter().any(|info| info.upgrading).then_some(()))
        })
        .await?;
    ensure!(c.shared().try_acquire().await?.is_none(), "a reader joined past a waiting upgrade");
    scene.sleep(2).await;
    ensure!(!upgrade.is_finished(), "upgraded beside another reader");
    held(&other, "the reader that an upgrade waits for")?;
    other.release().await?;
    let upgraded = scene.soon("the upgrade", upgrade).await???;
    ensure!(upgraded.token() > before, "token {} after {before}", upgraded.token());
    ensure_eq!(upgraded.fence().floor, upgraded.token(), "the floor of an upgraded holder");
    ensure_eq!(upgraded.mode(), Mode::Exclusive, "the mode after an upgrade");
    ensure!(!queue.is_finished(), "the queue overtook an upgrade");
    let shown = c.inspect().await?.holders;
    ensure_eq!(shown.len(), 1, "holders after the upgrade");
    ensure_eq!((shown[0].mode, shown[0].token), (Mode::Exclusive, Some(upgraded.token())), "as shown");
    upgraded.release().await?;
    scene.soon("the queue's turn", queue).await???.release().await?;
    Ok(())
}

pub(crate) async fn second_upgrade_fails(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let one = a.shared().acquire().await?;
    let other = b.shared().acquire().await?;
    let upgrade = tokio::spawn(one.upgrade());
    scene
        .eventually("the upgrade to wait", async || {
            Ok(b.inspect().await?.holders.iter().any(|info| info.upgrading).then_some(()))
        })
        .await?;
    let refused = scene.soon("a second upgrade", other.upgrade()).await?;
    let refused = refused.map(drop).err().ok_or_else(|| Stop::failed("two upgraded at once"))?;
    ensure_eq!(refused.error().kind(), ErrorKind::WouldDeadlock, "a second upgrade");
    let other = refused.into_guard();
    held(&other, "who was refused the upgrade")?;
    other.release().await?;
    scene.soon("the first upgrade", upgrade).await???.release().await?;
    scene.until_free(&a).await
}

pub(crate) async fn upgrade_times_out(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let one = a.shared().acquire().await?;
    let other = b.shared().acquire().await?;
    let failed = one.upgrade_within(scene.units(2)).await.map(drop);
    let failed = failed.err().ok_or_else(|| Stop::failed("upgraded beside another reader"))?;
    ensure_eq!(failed.error().kind(), ErrorKind::Timeout, "an upgrade whose wait is over");
    let one = failed.into_guard();
    held(&one, "who could not upgrade")?;
    ensure_eq!(one.mode(), Mode::Shared, "its mode");
    let third = granted(b.shared().try_acquire().await?, "a reader after the upgrade was withdrawn")?;
    drop((other, third));
    scene.until(&b, 1, 0).await?;
    let upgraded = scene.soon("an upgrade of the only reader", one.upgrade()).await??;
    held(&upgraded, "who upgraded")?;
    upgraded.release().await?;
    Ok(())
}

pub(crate) async fn upgrade_dropped(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let one = a.shared().acquire().await?;
    let other = b.shared().acquire().await?;
    let upgrade = tokio::spawn(one.upgrade());
    scene
        .eventually("the upgrade to wait", async || {
            Ok(c.inspect().await?.holders.iter().any(|info| info.upgrading).then_some(()))
        })
        .await?;
    upgrade.abort();
    scene.until(&c, 1, 0).await?;
    let third = granted(c.shared().try_acquire().await?, "a reader after a waiting upgrade was dropped")?;
    held(&other, "the other reader")?;
    drop((other, third));
    scene.until_free(&c).await
}

pub(crate) async fn downgrade_admits(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let writer = a.exclusive().acquire().await?;
    let token = writer.token();
    let reader = tokio::spawn(b.shared().acquire());
    scene.until(&c, 1, 1).await?;
    let behind = tokio::spawn(c.exclusive().acquire());
    scene.until(&c, 1, 2).await?;
    let shared = writer.downgrade().await?;
    ensure_eq!(shared.token(), token, "the token after a downgrade");
    ensure_eq!(shared.mode(), Mode::Shared, "the mode after a downgrade");
    let reader = scene.soon("the waiting reader after a downgrade", reader).await???;
    held(&shared, "who downgraded")?;
    ensure!(reader.token() > token, "token {} after {token}", reader.token());
    ensure_eq!(reader.fence().floor, token, "the floor of who was let in by a downgrade");
    scene.sleep(1).await;
    ensure!(!behind.is_finished(), "a writer got in beside two readers");
    shared.release().await?;
    reader.release().await?;
    scene.soon("the writer's turn", behind).await???.release().await?;
    Ok(())
}

pub(crate) async fn downgrade_to_permit(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let at_most = NonZeroU32::MIN.saturating_add(1);
    let writer = a.exclusive().acquire().await?;
    let permit = writer.downgrade_to_permit(at_most).await?;
    ensure_eq!(permit.mode(), Mode::Permit { at_most }, "the mode after a downgrade");
    let second = granted(b.permit(at_most).try_acquire().await?, "the second permit of two")?;
    ensure!(b.permit(at_most).try_acquire().await?.is_none(), "a third permit of two");
    second.release().await?;
    let writer = scene.soon("an upgrade of the only permit", permit.upgrade()).await??;
    ensure!(b.permit(at_most).try_acquire().await?.is_none(), "a permit beside a writer");
    writer.release().await?;
    Ok(())
}

pub(crate) async fn late_conversion(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    let (one, other) = (scene.exclusive("k")?, scene.shared("k")?);
    let token = fence(backend.join(&one).await?)?.token;
    let down = fence(backend.convert_to(&one, Mode::Shared, 1).await?)?;
    ensure_eq!(down.token, token, "the token after a downgrade");
    ensure_eq!(
        fence(backend.convert_to(&one, Mode::Shared, 1).await?)?,
        down,
        "the same conversion asked twice"
    );
    lease(backend.join(&other).await?)?;
    queued(backend.convert_to(&one, Mode::Exclusive, 2).await?)?;
    queued(backend.convert_to(&one, Mode::Exclusive, 2).await?)?;
    lease(backend.convert_to(&one, Mode::Shared, 3).await?)?;
    // A late copy of the upgrade that was withdrawn must not wait again.
    backend.convert_to(&one, Mode::Exclusive, 2).await?;
    let holders = backend.clone().inspect(one.key().clone()).await?.holders;
    ensure_eq!(holders.len(), 2, "holders after the late copy");
    ensure!(
        !holders.iter().any(|info| info.upgrading),
        "a late copy of a withdrawn upgrade waits: {holders:?}"
    );
    let stranger = scene.shared("k")?;
    let lost = backend.convert_to(&stranger, Mode::Exclusive, 1).await.map(drop);
    ensure_eq!(lost.map_err(|e| e.kind()), Err(ErrorKind::Lost), "the conversion of who holds nothing");
    let third = backend.attempt(&scene.shared("k")?).await?;
    ensure!(matches!(third, Attempt::Granted(_)), "a reader after the upgrade was withdrawn: {third:?}");
    Ok(())
}
