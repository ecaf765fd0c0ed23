//! A held claim that leaves its process, and is taken up in another.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::claim::{Claim, ClaimId};
use crate::client::LockClient;
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Any, LockGuard};
use crate::held::Held;
use crate::key::Key;
use crate::lock::Lock;
use crate::mode::Mode;
use crate::tenure::Numbers;
use crate::token::Fence;

/// A held claim as data: whoever has it may resume the claim until its lease runs out. Keep it as a secret of the lock's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedClaim {
    key: String,
    mode: Mode,
    id: ClaimId,
    owner: Option<Arc<str>>,
    note: Option<Arc<str>>,
    ttl: Duration,
    fence: Fence,
    numbers: Numbers,
    answered: bool,
}

impl DetachedClaim {
    /// The locked key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The token and floor that the claim was granted with.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }
}

pub(crate) fn detach(mut held: Held) -> Result<DetachedClaim> {
    if let Some(loss) = held.loss() {
        return Err(held.lost_error("detach", loss));
    }
    // Out of the registry: no renewal, and no release on drop.
    held.unregister();
    let claim = &held.claim;
    Ok(DetachedClaim {
        key: held.lock.key.as_str().to_owned(),
        mode: held.mode,
        id: claim.id(),
        owner: claim.owner().cloned(),
        note: claim.note().cloned(),
        ttl: held.ttl,
        fence: held.fence,
        numbers: claim.tenure.numbers(),
        answered: claim.is_answered(),
    })
}

pub(crate) async fn resume(client: &LockClient, detached: &DetachedClaim) -> Result<LockGuard<Any>> {
    let inner = &client.0;
    inner.ready()?;
    let lock = Lock::new(inner.clone(), Key::new(detached.key.clone())?);
    let claim = Claim::new(lock.key().clone(), detached.mode, detached.ttl)
        .with_id(detached.id)
        .with_owner(detached.owner.clone())
        .with_note(detached.note.clone());
    claim.validate()?;
    claim.tenure.resume_numbers(detached.numbers);
    if !detached.answered {
        claim.mark_unanswered();
    }
    let claim = Arc::new(claim);
    let sent = inner.clock.now();
    let order = claim.tenure.ask(sent, detached.ttl, inner.allowance);
    let renewal = crate::backend::Renewal { claim: claim.clone(), ttl: detached.ttl, order };
    let renew = inner.backend.clone().renew(vec![renewal]);
    let request =
        Box::pin(async { renew.await.pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Other, ""))) });
    let lease = crate::request::bounded(request, inner.settings.request_timeout)
        .await
        .map_err(|error| inner.at(error, "resume", Some(lock.key())))?;
    claim.tenure.begin(inner.allowance.deadline(sent, lease.left));
    let due = sent.renewal_due(lease.left);
    let never = LocalTime::NEVER;
    let slot = inner.registry.insert(Held::entry(claim.clone(), due, detached.ttl, never));
    let held = Held {
        lock: lock.0.clone(),
        claim,
        mode: detached.mode,
        fence: lease.fence,
        ttl: detached.ttl,
        automatic: true,
        slot: Some(slot),
    };
    // Looked at after the claim is where `close` finds it: one of the two sees the other.
    inner.ready().map_err(|error| held.at("resume", error))?;
    match held.loss() {
        Some(loss) => Err(held.lost_error("resume", loss)),
        None => Ok(LockGuard::new(held)),
    }
}
