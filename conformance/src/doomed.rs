//! A client that dies: a process that is killed, or where the server lives in this one, a client that is cut off for ever.

use std::process::Child;
use std::time::Duration;

use crate::child::{self, Part};
use crate::harness::{HookError, Link};
use crate::outcome::{Outcome, Stop};
use crate::scene::Scene;

/// A client that acquires a lock exclusively, holds it, and dies when it is told to.
pub(crate) enum Doomed {
    Process(Child),
    CutOff(Box<dyn Link>),
}

impl Doomed {
    /// Starts it; that it holds or waits is to be seen by inspection, under the name `owner`.
    pub(crate) async fn start(
        scene: &Scene,
        key: &str,
        owner: &str,
        ttl: Duration,
        waiter_ttl: Duration,
    ) -> Outcome<Doomed> {
        let key = scene.key(key);
        let owner = owner.to_owned();
        match scene.server.address() {
            Ok(address) => {
                let part = Part { address, key, ttl, waiter_ttl, owner };
                let started = child::start(&part);
                started
                    .map(Doomed::Process)
                    .map_err(|error| Stop::failed(format_args!("no process: {error}")))
            }
            Err(HookError::NotSupported(_)) => {
                let (backend, link) = scene.server.connect_through().await?;
                let client = scene.builder(backend).waiter_ttl(waiter_ttl).build();
                let acquire = client.lock(key)?.exclusive().ttl(ttl).owner(owner);
                tokio::spawn(async move {
                    if let Ok(guard) = acquire.acquire().await {
                        // What it believes does not matter any more; that it never lets go does.
                        std::future::pending::<()>().await;
                        drop(guard);
                    }
                });
                Ok(Doomed::CutOff(link))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it without a word to the server.
    pub(crate) fn kill(&mut self) -> Outcome {
        match self {
            Doomed::Process(child) => {
                let killed = child.kill().and_then(|()| child.wait());
                killed.map(drop).map_err(|error| Stop::failed(format_args!("cannot kill: {error}")))
            }
            Doomed::CutOff(link) => Ok(link.partition(true)?),
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Doomed::Process(child) = self {
            // Fails only when it has ended already.
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}
