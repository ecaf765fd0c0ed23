//! What can be done to the way of one twin to its server.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Claim, ClaimId, Error, ErrorKind, News, Result};
use tokio::sync::watch;

use super::twin::Twin;
use crate::harness::{Hook, Link};

/// The way of one client to the server.
#[derive(Clone, Debug, Default)]
pub(super) struct Way(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    plan: Mutex<Plan>,
    partitioned: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Plan {
    lose_replies: bool,
    refuse: bool,
    delay: Duration,
    lose_one: bool,
}

/// Claims of cut-off clients of all servers of this process, which no news reach: ids are unique among them.
static DEAF: Mutex<Option<HashSet<ClaimId>>> = Mutex::new(None);

/// Tells a claim its news, unless its client is cut off.
pub(super) fn ring(claim: &Arc<Claim>, news: News) {
    let deaf = DEAF.lock().unwrap_or_else(PoisonError::into_inner);
    if !deaf.as_ref().is_some_and(|deaf| deaf.contains(&claim.id())) {
        drop(deaf);
        claim.ring(news);
    }
}

impl Way {
    pub(super) async fn there(&self) -> Result<()> {
        let delay = self.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // The sender lives in `self`, so waiting cannot fail.
        let mut partitioned = self.0.partitioned.subscribe();
        let _ = partitioned.wait_for(|partitioned| !partitioned).await;
        if self.plan().refuse {
            return Err(Error::new(ErrorKind::Unavailable, "refused, as the scenario asked"));
        }
        Ok(())
    }

    pub(super) fn back(&self) -> Result<()> {
        let mut plan = self.plan();
        if plan.lose_replies || std::mem::take(&mut plan.lose_one) {
            return Err(Error::new(ErrorKind::Indeterminate, "the answer was lost, as the scenario asked"));
        }
        Ok(())
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TwinLink {
    way: Way,
    claims: Arc<Mutex<HashSet<ClaimId>>>,
}

pub(super) fn link(twin: &Twin) -> Box<dyn Link> {
    Box::new(TwinLink { way: twin.way.clone(), claims: twin.claims.clone() })
}

impl Link for TwinLink {
    fn partition(&self, on: bool) -> Hook {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deaf = DEAF.lock().unwrap_or_else(PoisonError::into_inner);
        let deaf = deaf.get_or_insert_default();
        for id in claims.iter() {
            if on {
                deaf.insert(*id);
            } else {
                deaf.remove(id);
            }
        }
        self.way.0.partitioned.send_replace(on);
        Ok(())
    }

    fn lose_replies(&self, on: bool) -> Hook {
        self.way.plan().lose_replies = on;
        Ok(())
    }

    fn refuse(&self, on: bool) -> Hook {
        self.way.plan().refuse = on;
        Ok(())
    }

    fn delay(&self, by: Duration) -> Hook {
        self.way.plan().delay = by;
        Ok(())
    }

    fn sever(&self) -> Hook {
        self.way.plan().lose_one = true;
        Ok(())
    }
}
