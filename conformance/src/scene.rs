//! What a scenario plays with: clients, keys, time, and conditions to wait for.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Capabilities, ErrorKind, Key, Lock, LockClient, LockClientBuilder, LockGuard, LockMode, Loss, Snapshot,
    Wake,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Client, Link, Server, Timing};
use crate::history::Recorder;
use crate::outcome::{Outcome, Stop, ensure, ensure_eq};

/// The world of one trial: a server, a part of its keys, and a unit of time.
pub struct Scene {
    pub(crate) server: Arc<dyn Server>,
    pub(crate) capabilities: Capabilities,
    pub(crate) timing: Timing,
    pub(crate) seed: u64,
    /// What the concurrent scenarios note; printed when one fails.
    pub(crate) history: Recorder,
    prefix: String,
}

/// The ttl of claims that do not say otherwise, in units: longer than a scenario takes.
pub(crate) const LONG: u32 = 200;

/// How long is in vain, in units: ten times and more of what anything takes here.
pub(crate) const PATIENCE: u32 = 100;

/// In units: what must happen at once, with slack for a busy machine.
pub(crate) const PROMPTLY: u32 = 10;

impl Scene {
    pub(crate) fn new(
        timing: Timing,
        server: Arc<dyn Server>,
        capabilities: Capabilities,
        name: &str,
        seed: u64,
    ) -> Scene {
        // Unlike that of any other trial, of this run or another, on the same server.
        let prefix = format!("{name}-{:08x}", fastrand::u32(..));
        Scene { server, capabilities, timing, seed, history: Recorder::new(), prefix }
    }

    /// The key `name` of this trial.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// This many units of time.
    pub(crate) fn units(&self, n: u32) -> Duration {
        self.timing.unit * n
    }

    pub(crate) fn promptly(&self) -> Duration {
        self.units(PROMPTLY)
    }

    /// A new client as the backend gives it.
    pub(crate) async fn backend(&self) -> Outcome<Client> {
        Ok(self.server.connect().await?)
    }

    /// A new client, independent of all others.
    pub(crate) async fn client(&self) -> Outcome<LockClient> {
        self.client_with(|builder| builder).await
    }

    pub(crate) async fn client_with(
        &self,
        settings: impl FnOnce(LockClientBuilder) -> LockClientBuilder,
    ) -> Outcome<LockClient> {
        Ok(settings(self.builder(self.backend().await?)).build())
    }

    /// A new client whose way to the server can be broken.
    pub(crate) async fn breakable_client(&self) -> Outcome<(LockClient, Box<dyn Link>)> {
        let (backend, link) = self.server.connect_through().await?;
        let request_timeout = self.units(5);
        Ok((self.builder(backend).request_timeout(request_timeout).build(), link))
    }

    pub(crate) fn builder(&self, backend: Client) -> LockClientBuilder {
        LockClient::builder(backend).ttl(self.units(LONG)).waiter_ttl(self.units(LONG))
    }

    /// The lock on the key `name` of this trial, as a new client sees it.
    pub(crate) async fn lock(&self, name: &str) -> Outcome<Lock> {
        Ok(self.client().await?.lock(self.key(name))?)
    }

    /// Several clients' views of one lock.
    pub(crate) async fn locks<const N: usize>(&self, name: &str) -> Outcome<[Lock; N]> {
        let mut locks = Vec::with_capacity(N);
        for _ in 0..N {
            locks.push(self.lock(name).await?);
        }
        locks.try_into().map_err(|_| Stop::failed("as many locks as were asked for"))
    }

    /// Lets time pass.
    pub(crate) async fn sleep(&self, units: u32) {
        sleep(self.units(units)).await;
    }

    /// A short pause between two looks at the server.
    pub(crate) async fn pause(&self) {
        sleep(self.timing.unit / 20).await;
    }

    /// Asks again and again until there is an answer; `what` completes "waited in vain for …".
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            ensure!(start.elapsed() < self.units(PATIENCE), "waited in vain for {what}");
            self.pause().await;
        }
    }

    /// Waits for `future`, which must not take longer than a long time.
    pub(crate) async fn patiently<T>(&self, what: &str, future: impl Future<Output = T>) -> Outcome<T> {
        self.within(self.units(PATIENCE), what, future).await
    }

    /// Waits for what must happen without anybody's timer running out.
    pub(crate) async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> Outcome<T> {
        self.within(self.promptly(), what, future).await
    }

    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        future: impl Future<Output = T>,
    ) -> Outcome<T> {
        match timeout(limit, future).await {
            Ok(output) => Ok(output),
            Err(_) => Err(Stop::failed(format_args!("{what} took longer than {limit:?}"))),
        }
    }

    /// The ttl of a claim that is to learn soon that it was ended: without news that is at its next renewal.
    pub(crate) fn ttl_to_learn(&self) -> Duration {
        self.units(if self.capabilities.wake == Wake::Poll { PROMPTLY / 2 } else { LONG })
    }

    /// Waits until a guard with [that ttl](Self::ttl_to_learn) learns that its claim was ended, and checks why; a renewal does
    /// not tell why.
    pub(crate) async fn learns<M: LockMode>(&self, of: &str, guard: &LockGuard<M>, why: Loss) -> Outcome {
        let told = if self.capabilities.wake == Wake::Poll { Loss::Unknown } else { why };
        ensure_eq!(self.soon(of, guard.lost()).await?, told, "why it is lost");
        Ok(())
    }

    /// Checks that a waiter learns that its claim was ended. Without news it only finds that its claim is gone and joins anew, until it
    /// is stopped here.
    pub(crate) async fn turned_away<T: Send + 'static>(
        &self,
        what: &str,
        waiting: JoinHandle<lockcore::Result<T>>,
    ) -> Outcome {
        if self.capabilities.wake == Wake::Poll {
            waiting.abort();
            // Either way it is over.
            let _ = waiting.await;
            return Ok(());
        }
        let outcome = self.soon(what, waiting).await??.map(drop);
        ensure_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::Lost), "{what}");
        Ok(())
    }

    /// Waits until so many hold and so many wait.
    pub(crate) async fn until(&self, lock: &Lock, holders: usize, waiters: usize) -> Outcome<Snapshot> {
        let mut last = None;
        let found = self
            .eventually("", async || {
                let snapshot = lock.inspect().await?;
                let found = snapshot.holders.len() == holders && snapshot.waiters.len() == waiters;
                last = Some(snapshot.clone());
                Ok(found.then_some(snapshot))
            })
            .await;
        found.map_err(|stop| match (stop, last) {
            (Stop::Failed(_), Some(last)) => Stop::failed(format_args!(
                "waited in vain for {holders} to hold and {waiters} to wait; at last {} held and {} waited, first of all {:?}",
                last.holders.len(),
                last.waiters.len(),
                last.holders.iter().chain(&last.waiters).take(8).collect::<Vec<_>>(),
            )),
            (stop, _) => stop,
        })
    }

    /// Waits until nobody holds the key or waits for it.
    pub(crate) async fn until_free(&self, lock: &Lock) -> Outcome {
        self.until(lock, 0, 0).await.map(drop)
    }

    /// The trait's view of a key of this trial.
    pub(crate) fn trait_key(&self, name: &str) -> Outcome<Key> {
        Ok(Key::new(self.key(name))?)
    }

    /// A random number below `end`, the same each time that the trial is replayed.
    pub(crate) fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// The guard, if the try was granted.
pub(crate) fn granted<T: Debug>(attempt: Option<T>, what: &str) -> Outcome<T> {
    attempt.ok_or_else(|| Stop::failed(format_args!("{what} was not granted")))
}

/// Fails when the guard is lost.
pub(crate) fn held<M: LockMode>(guard: &LockGuard<M>, what: &str) -> Outcome {
    ensure!(guard.is_held(), "{what} is not held any more");
    Ok(())
}
