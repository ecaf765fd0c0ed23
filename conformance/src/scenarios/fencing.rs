//! Tokens that grow, and the gate that goes by them.

use lockcore::{FenceGate, FencingToken};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{Scene, granted};

pub(crate) async fn token_increases(scene: &Scene) -> Outcome {
    let locks: [lockcore::Lock; 2] = scene.locks("k").await?;
    let mut last: Option<FencingToken> = None;
    for at in 0..1000 {
        let attempt = if at % 3 == 0 {
            locks[at % 2].shared().try_acquire().await?.map(lockcore::LockGuard::into_any)
        } else {
            locks[at % 2].exclusive().try_acquire().await?.map(lockcore::LockGuard::into_any)
        };
        let guard = granted(attempt, &format!("grant {at} of a free lock"))?;
        let fence = guard.fence();
        ensure!(Some(fence.token) > last, "token {} after {last:?}", fence.token);
        ensure_eq!(fence.floor, fence.token, "the floor of a holder alone");
        ensure!(fence.token.get() <= FencingToken::MAX, "token {} does not fit a BIGINT", fence.token);
        last = Some(fence.token);
        guard.release().await?;
    }
    Ok(())
}

pub(crate) async fn token_across_restart(scene: &Scene) -> Outcome {
    let token = {
        let lock = scene.lock("k").await?;
        let guard = lock.exclusive().acquire().await?;
        let token = guard.token();
        guard.release().await?;
        token
    };
    scene.server.restart().await?;
    let lock = scene.lock("k").await?;
    let guard = scene.patiently("an acquire after the restart", lock.exclusive().acquire()).await??;
    ensure!(guard.token() > token, "token {} after {token} of before the restart", guard.token());
    guard.release().await?;
    Ok(())
}

pub(crate) async fn token_across_clients(scene: &Scene) -> Outcome {
    let mut last: Option<FencingToken> = None;
    for _ in 0..5 {
        let client = scene.client().await?;
        let guard = client.lock(scene.key("k"))?.exclusive().acquire().await?;
        ensure!(Some(guard.token()) > last, "token {} after {last:?}", guard.token());
        last = Some(guard.token());
        guard.release().await?;
        client.close().await?;
    }
    Ok(())
}

pub(crate) async fn token_after_idle(scene: &Scene) -> Outcome {
    // Other keys are used meanwhile, so that whatever a server keeps per key is pushed out, if it is.
    let client = scene.client().await?;
    let lock = client.lock(scene.key("k"))?;
    let guard = lock.exclusive().acquire().await?;
    let token = guard.token();
    guard.release().await?;
    for key in 0..50 {
        let guard = client.lock(scene.key(&format!("other-{key}")))?.exclusive().acquire().await?;
        guard.release().await?;
    }
    scene.sleep(2).await;
    let guard = lock.exclusive().acquire().await?;
    ensure!(guard.token() > token, "token {} after {token} of before the key was idle", guard.token());
    Ok(())
}

pub(crate) async fn gate_admits_co_holders(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let gate = FenceGate::new();
    let writer = a.exclusive().acquire().await?;
    let stale = writer.fence();
    ensure_eq!(stale.floor, stale.token, "the floor of an exclusive holder");
    gate.enter(stale).map_err(Stop::failed)?;
    writer.release().await?;
    let one = granted(a.shared().try_acquire().await?, "the first reader")?;
    let other = granted(b.shared().try_acquire().await?, "the second reader")?;
    // The later one enters first: the earlier co-holder must still pass.
    gate.enter(other.fence()).map_err(Stop::failed)?;
    gate.enter(one.fence()).map_err(Stop::failed)?;
    gate.check(one.fence()).map_err(Stop::failed)?;
    gate.check(other.fence()).map_err(Stop::failed)?;
    ensure!(gate.check(stale).is_err(), "the gate let the writer of before write");
    ensure_eq!(other.fence().floor, one.token(), "the floor of the later of two readers");
    drop((one, other));
    let writer = scene.soon("a writer after the readers", a.exclusive().acquire()).await??;
    gate.enter(writer.fence()).map_err(Stop::failed)?;
    Ok(())
}
