//! Requests that come twice, late, or lose their answers.

use std::sync::Arc;

use lockcore::{Attempt, BreakTarget, Mode};

use crate::claims::{Ask, fence, lease, queued};
use crate::counting::Counting;
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::{LONG, Scene, held};

pub(crate) async fn same_claim_twice(scene: &Scene) -> Outcome {
    let (one, other) = (scene.backend().await?, scene.backend().await?);
    let (holder, waiter) = (scene.exclusive("k")?, scene.exclusive("k")?);
    let grant = fence(one.join(&holder).await?)?;
    ensure_eq!(fence(one.join(&holder).await?)?, grant, "the grant of the same claim, asked again");
    ensure_eq!(
        fence(other.attempt(&holder).await?)?,
        grant,
        "the grant of the same claim on another connection"
    );
    queued(one.join(&waiter).await?)?;
    queued(one.join(&waiter).await?)?;
    queued(other.attempt(&waiter).await?)?;
    let snapshot = one.clone().inspect(holder.key().clone()).await?;
    ensure_eq!((snapshot.holders.len(), snapshot.waiters.len()), (1, 1), "holders and waiters");
    ensure_eq!((snapshot.holders[0].id, snapshot.waiters[0].id), (holder.id(), waiter.id()), "their names");
    Ok(())
}

pub(crate) async fn connection_cut_mid_acquire(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (lock, observer) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    link.delay(scene.units(1))?;
    let acquiring = tokio::spawn(lock.exclusive().wait(scene.units(LONG)).acquire());
    tokio::time::sleep(scene.timing.unit / 2).await;
    link.sever()?;
    link.delay(std::time::Duration::ZERO)?;
    match scene.patiently("an acquire whose connection was cut", acquiring).await?? {
        Ok(guard) => {
            let holders = observer.inspect().await?.holders;
            ensure_eq!(holders.len(), 1, "holders after a cut connection");
            ensure_eq!(holders[0].id, guard.claim_id(), "who holds after a cut connection");
            guard.release().await?;
        }
        Err(error) => ensure!(error.is_retryable(), "a cut connection is said to be {error}"),
    }
    scene.until_free(&observer).await
}

pub(crate) async fn acquire_reply_lost(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (lock, observer) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    link.lose_replies(true)?;
    let acquiring = tokio::spawn(lock.exclusive().wait(scene.units(LONG)).acquire());
    let ghost = scene.until(&observer, 1, 0).await?.holders;
    link.lose_replies(false)?;
    let guard = scene.patiently("an acquire whose first answer was lost", acquiring).await???;
    let holders = observer.inspect().await?.holders;
    ensure_eq!(holders.len(), 1, "holders after an acquire was asked again");
    ensure_eq!(holders[0].id, guard.claim_id(), "who holds");
    ensure_eq!(
        (guard.claim_id(), Some(guard.token())),
        (ghost[0].id, ghost[0].token),
        "the grant is the first one"
    );
    guard.release().await?;
    scene.until_free(&observer).await
}

pub(crate) async fn late_acquire_is_gone(scene: &Scene) -> Outcome {
    let backend = scene.backend().await?;
    // A claim is let go of before all its acquires were answered; then a copy of one arrives.
    let released = scene.exclusive("released")?;
    lease(backend.join(&released).await?)?;
    backend.let_go(&released, false).await?;
    // A waiter is withdrawn in the same way.
    let holder = scene.exclusive("withdrawn")?;
    lease(backend.join(&holder).await?)?;
    let withdrawn = scene.exclusive("withdrawn")?;
    queued(backend.join(&withdrawn).await?)?;
    backend.let_go(&withdrawn, false).await?;
    backend.let_go(&holder, true).await?;
    // The release overtakes the only acquire there is.
    let never = scene.exclusive("never arrived")?;
    backend.let_go(&never, false).await?;
    // Broken, and expired.
    let broken = scene.shared("broken")?;
    lease(backend.join(&broken).await?)?;
    backend.clone().break_claims(broken.key().clone(), BreakTarget::Claim(broken.id())).await?;
    let ttl = scene.units(2);
    let expired = Arc::new(scene.claim("expired", Mode::Exclusive)?.with_ttl(ttl));
    lease(backend.join(&expired).await?)?;
    scene.until_free(&scene.lock("expired").await?).await?;
    for claim in [&released, &withdrawn, &never, &broken, &expired] {
        for _ in 0..2 {
            ensure_eq!(backend.join(claim).await?, Attempt::Gone, "a late acquire on {}", claim.key());
            ensure_eq!(backend.attempt(claim).await?, Attempt::Gone, "a late try on {}", claim.key());
        }
        let snapshot = backend.clone().inspect(claim.key().clone()).await?;
        ensure!(snapshot.is_free(), "a late acquire left a ghost on {}: {snapshot:?}", claim.key());
    }
    Ok(())
}

pub(crate) async fn late_requests_arrive(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let (lock, observer) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    // So that the connection stands, and what it needs is there.
    lock.shared().acquire().await?.release().await?;
    link.hold_requests(true)?;
    let outcome = lock.exclusive().wait(scene.units(4)).acquire().await.map(drop);
    ensure!(outcome.is_err(), "granted although no request arrived");
    link.sever()?;
    link.hold_requests(false)?;
    // The kept acquire arrives now, on a connection that has gone. Nothing may stay of it.
    scene.sleep(2).await;
    scene.until_free(&observer).await?;
    let guard = scene.patiently("the next acquire", observer.exclusive().acquire()).await??;
    guard.release().await?;
    Ok(())
}

pub(crate) async fn waiter_partitioned(scene: &Scene) -> Outcome {
    let waiter_ttl = scene.units(9);
    let (backend, link) = scene.server.connect_through().await?;
    let builder = scene.builder(backend).waiter_ttl(waiter_ttl).request_timeout(scene.units(5));
    let lock = builder.build().lock(scene.key("k"))?;
    let a = scene.lock("k").await?;
    let b = scene.client_with(|builder| builder.waiter_ttl(waiter_ttl)).await?.lock(scene.key("k"))?;
    let first = a.exclusive().acquire().await?;
    let cut_off = tokio::spawn(lock.exclusive().wait(scene.units(LONG)).acquire());
    scene.until(&a, 1, 1).await?;
    let behind = tokio::spawn(b.exclusive().acquire());
    scene.until(&a, 1, 2).await?;
    link.partition(true)?;
    first.release().await?;
    // Whoever stands behind looks at its next heartbeat at the latest.
    let limit = waiter_ttl + waiter_ttl / 3 + scene.promptly();
    let next = scene.within(limit, "the turn behind a waiter that is cut off", behind).await???;
    ensure!(!cut_off.is_finished(), "granted without a server");
    link.partition(false)?;
    scene.sleep(6).await;
    held(&next, "the holder, after the waiter came back")?;
    next.release().await?;
    let back = scene.patiently("the waiter that came back", cut_off).await???;
    held(&back, "the waiter that came back")?;
    ensure_eq!(a.inspect().await?.holders.len(), 1, "holders after it came back");
    back.release().await?;
    scene.until_free(&a).await
}

pub(crate) async fn slow_network(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let observer = scene.client().await?;
    link.delay(scene.units(2))?;
    // The answer takes most of the lease, or all of it: a grant must not be handed out with its deadline in the past.
    let over_it = async |ttl: u32| {
        let key = scene.key(&ttl.to_string());
        let acquire =
            client.lock(key.clone())?.exclusive().ttl(scene.units(ttl)).wait(scene.units(15)).acquire();
        match scene.patiently("an acquire over a slow network", acquire).await? {
            Ok(guard) => held(&guard, "a claim that was granted over a slow network")?,
            Err(error) => ensure!(error.is_retryable(), "a slow network is said to be {error}"),
        }
        scene.until_free(&observer.lock(key)?).await
    };
    tokio::try_join!(over_it(1), over_it(2), over_it(3), over_it(8)).map(drop)
}

pub(crate) async fn unreachable_is_unavailable(scene: &Scene) -> Outcome {
    let (client, link) = scene.breakable_client().await?;
    let lock = client.lock(scene.key("k"))?;
    lock.exclusive().acquire().await?.release().await?;
    link.refuse(true)?;
    let outcome = scene.patiently("an acquire without a server", lock.exclusive().acquire()).await?;
    let error = outcome.map(drop).err().ok_or_else(|| Stop::failed("granted without a server"))?;
    ensure!(error.is_retryable(), "a server that is away is said to be {error}");
    let outcome = scene.patiently("a try without a server", lock.exclusive().try_acquire()).await?;
    ensure!(outcome.is_err(), "a try without a server says {outcome:?}");
    let start = tokio::time::Instant::now();
    let wait = scene.units(3);
    let outcome = lock.exclusive().wait(wait).acquire().await.map(drop);
    ensure!(outcome.is_err(), "granted without a server");
    ensure!(start.elapsed() <= wait + scene.units(5) + scene.promptly(), "it took {:?}", start.elapsed());
    link.refuse(false)?;
    let wait = scene.units(LONG);
    let guard = scene.patiently("the server that came back", lock.exclusive().wait(wait).acquire()).await??;
    guard.release().await?;
    scene.until_free(&scene.lock("k").await?).await
}

pub(crate) async fn given_up_claims_stay_gone(scene: &Scene) -> Outcome {
    let (backend, link) = scene.server.connect_through().await?;
    let counting = Counting::new(backend);
    let client = scene.builder(counting.clone()).request_timeout(scene.units(3)).build();
    let (lock, observer) = (client.lock(scene.key("k"))?, scene.lock("k").await?);
    link.lose_replies(true)?;
    let given_up = lock.exclusive().wait(scene.units(4)).acquire().await.map(drop);
    ensure!(given_up.is_err(), "granted without an answer");
    let tried = lock.exclusive().try_acquire().await.map(drop);
    ensure!(tried.is_err(), "a try without an answer says {tried:?}");
    link.lose_replies(false)?;
    // That nobody holds does not say yet that all is withdrawn: a request may not have arrived at all. Closing waits for that.
    drop(scene.patiently("the withdrawals", client.close()).await?);
    scene.until_free(&observer).await?;
    // Copies of those requests arrive only now.
    let other = scene.backend().await?;
    ensure!(!counting.claims().is_empty(), "nothing was asked");
    for claim in counting.claims() {
        ensure_eq!(other.join(&claim).await?, Attempt::Gone, "the late copy of a request that was given up");
    }
    scene.until_free(&observer).await
}
