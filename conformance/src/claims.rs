//! Claims and requests at the level of the trait, without a client's help.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Attempt, Claim, Conversion, Fence, Lease, Mode, Queue, Queued, Release, Released, Renewal, Result,
};

use crate::harness::Client;
use crate::outcome::{Outcome, Stop};
use crate::scene::{LONG, Scene};

impl Scene {
    /// A claim that nobody has sent yet, with a long lease.
    pub(crate) fn claim(&self, key: &str, mode: Mode) -> Outcome<Claim> {
        let ttl = self.units(LONG);
        Ok(Claim::new(self.trait_key(key)?, mode, ttl).with_waiter_ttl(ttl))
    }

    pub(crate) fn exclusive(&self, key: &str) -> Outcome<Arc<Claim>> {
        self.claim(key, Mode::Exclusive).map(Arc::new)
    }

    pub(crate) fn shared(&self, key: &str) -> Outcome<Arc<Claim>> {
        self.claim(key, Mode::Shared).map(Arc::new)
    }
}

/// Short names for single requests of one client.
pub(crate) trait Ask {
    async fn join(&self, claim: &Arc<Claim>) -> Result<Attempt>;
    async fn attempt(&self, claim: &Arc<Claim>) -> Result<Attempt>;
    async fn renew_to(&self, claim: &Arc<Claim>, ttl: Duration, order: u64) -> Result<Lease>;
    async fn convert_to(&self, claim: &Arc<Claim>, to: Mode, order: u64) -> Result<Attempt>;
    async fn let_go(&self, claim: &Arc<Claim>, answered: bool) -> Result<Released>;
    async fn withdraw(&self, claim: &Arc<Claim>) -> Result<Released>;
}

fn only<T>(mut answers: Vec<Result<T>>) -> Result<T> {
    let missing = || lockcore::Error::new(lockcore::ErrorKind::Other, "the backend gave no answer at all");
    answers.pop().unwrap_or_else(|| Err(missing()))
}

impl Ask for Client {
    async fn join(&self, claim: &Arc<Claim>) -> Result<Attempt> {
        self.clone().acquire(claim.clone(), Queue::Join).await
    }

    async fn attempt(&self, claim: &Arc<Claim>) -> Result<Attempt> {
        self.clone().acquire(claim.clone(), Queue::Never).await
    }

    async fn renew_to(&self, claim: &Arc<Claim>, ttl: Duration, order: u64) -> Result<Lease> {
        only(self.clone().renew(vec![Renewal { claim: claim.clone(), ttl, order }]).await)
    }

    async fn convert_to(&self, claim: &Arc<Claim>, to: Mode, order: u64) -> Result<Attempt> {
        self.clone().convert(Conversion { claim: claim.clone(), to, order }).await
    }

    async fn let_go(&self, claim: &Arc<Claim>, answered: bool) -> Result<Released> {
        only(
            self.clone().release(vec![Release { claim: claim.clone(), answered, only_waiting: false }]).await,
        )
    }

    async fn withdraw(&self, claim: &Arc<Claim>) -> Result<Released> {
        let release = Release { claim: claim.clone(), answered: true, only_waiting: true };
        only(self.clone().release(vec![release]).await)
    }
}

/// The lease of an attempt that must have been granted.
#[track_caller]
pub(crate) fn lease(attempt: Attempt) -> Outcome<Lease> {
    match attempt {
        Attempt::Granted(lease) => Ok(lease),
        Attempt::Queued(_) | Attempt::Busy | Attempt::Gone => {
            Err(Stop::failed(format_args!("{attempt:?} instead of a grant")))
        }
    }
}

#[track_caller]
pub(crate) fn fence(attempt: Attempt) -> Outcome<Fence> {
    lease(attempt).map(|lease| lease.fence)
}

/// The standing of an attempt that must have been queued.
#[track_caller]
pub(crate) fn queued(attempt: Attempt) -> Outcome<Queued> {
    match attempt {
        Attempt::Queued(queued) => Ok(queued),
        Attempt::Granted(_) | Attempt::Busy | Attempt::Gone => {
            Err(Stop::failed(format_args!("{attempt:?} instead of a place in the queue")))
        }
    }
}
