//! Clients that end.

use lockcore::{ErrorKind, Loss};

use crate::outcome::{Outcome, ensure, ensure_eq};
use crate::scene::{Scene, granted};

pub(crate) async fn close_ends_everything(scene: &Scene) -> Outcome {
    let client = scene.client().await?;
    let (lock, other) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    let guard = lock.exclusive().acquire().await?;
    let token = guard.token();
    let waiting = tokio::spawn(lock.exclusive().acquire());
    scene.until(&other, 1, 1).await?;
    scene.patiently("closing a client", client.close()).await??;
    let outcome = scene.soon("the end of a closed client's wait", waiting).await??.map(drop);
    ensure_eq!(outcome.map_err(|e| e.kind()), Err(ErrorKind::Closed), "a wait of a client that was closed");
    ensure_eq!(scene.soon("the end of its lock", guard.lost()).await?, Loss::Closed, "why it is lost");
    ensure!(!guard.is_held(), "a closed client holds on");
    scene.until_free(&other).await?;
    let next = granted(other.exclusive().try_acquire().await?, "a try after the close")?;
    ensure!(next.token() > token, "token {} after {token}", next.token());
    let closed = lock.exclusive().try_acquire().await.map(drop);
    ensure_eq!(closed.map_err(|e| e.kind()), Err(ErrorKind::Closed), "a try of a client that was closed");
    drop(guard);
    scene.sleep(1).await;
    ensure!(next.is_held(), "a closed client's guard took the next holder along");
    ensure_eq!(other.inspect().await?.holders.len(), 1, "holders at the end");
    Ok(())
}

pub(crate) async fn client_outlived_by_guard(scene: &Scene) -> Outcome {
    let other = scene.lock("k").await?;
    let ttl = scene.units(6);
    let guard = {
        let client = scene.client().await?;
        client.lock(scene.key("k"))?.exclusive().ttl(ttl).acquire().await?
    };
    tokio::time::sleep(ttl * 2).await;
    ensure!(guard.is_held(), "a guard ended with the last name of its client");
    ensure!(other.exclusive().try_acquire().await?.is_none(), "another got in beside it");
    guard.release().await?;
    scene.until_free(&other).await
}
