//! The grant of waiting claims: by whoever sees that their turn has come.

use std::time::Duration;

use lockcore::{Claim, ClaimId, Mode, Result};
use tokio::time::sleep;

use crate::core::Core;
use crate::errors::Trouble;
use crate::keys::{Kind, Names};
use crate::news;
use crate::txn::{Compare, Txn, TxnOp, nothing_new, put, rewrite, unchanged};
use crate::view::{Next, Seen, View};

/// The first and the longest pause of one whom another has forestalled.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(256);

impl Core {
    /// Grants all who may hold, in their order, and answers the lock as it stands then.
    pub(crate) async fn settle(&self, names: &Names, view: View) -> Result<View> {
        self.settle_until(names, view, None).await
    }

    /// The same for a claim that waits: once it holds, the rest is left to those who do the same for theirs.
    pub(crate) async fn settle_for(&self, names: &Names, view: View, claim: &Claim) -> Result<View> {
        self.settle_until(names, view, Some(claim.id())).await
    }

    async fn settle_until(&self, names: &Names, mut view: View, own: Option<ClaimId>) -> Result<View> {
        let mut pause = PAUSE_MIN;
        loop {
            match view.next() {
                Next::Nobody => return Ok(view),
                Next::Unknown => view = self.read(names).await?,
                Next::Grant(at) => {
                    if !self.grant_next(names, &mut view, at).await? {
                        // Another is at it. A crowd that goes on all at once would read the lock as often as it has claims.
                        sleep(pause.mul_f64(fastrand::f64())).await;
                        pause = (2 * pause).min(PAUSE_MAX);
                        view = self.read(names).await?;
                        if own.and_then(|id| view.find(id)).is_some_and(Seen::is_granted) {
                            return Ok(view);
                        }
                    }
                }
            }
        }
    }

    /// Like [`settle`](Self::settle), for an operation that is done already: a failure costs a waiter its slow poll.
    pub(crate) async fn hand_over(&self, names: &Names, view: View) {
        if let Err(error) = self.settle(names, view).await {
            tracing::debug!(lock = names.as_str(), %error, "a hand-over is left to the next who looks");
        }
    }

    /// Writes the grant of one claim; `false` when something has changed since the view.
    ///
    /// Guarded by the claim's own last write, so that a claim that was released, broken or granted since is not touched; and by
    /// the markers, so that no upgrade or take-over is overlooked that was written since. Its lease stays what it is.
    ///
    /// A reader that joins meanwhile need not wait behind readers that do. The first of these is guarded by that, or its floor
    /// would be above the token of the other: all later ones have tokens above the first one's, and are guarded by it.
    async fn grant_next(&self, names: &Names, view: &mut View, at: usize) -> Result<bool> {
        let Some(seen) = view.claims.get(at).cloned() else { return Ok(false) };
        let mut record = seen.record.clone();
        // An upgraded holder is alone: its floor is its token.
        let floor = if seen.is_granted() { 0 } else { view.floor() };
        if seen.is_granted() {
            record.mode = Mode::Exclusive;
            record.upgrading = false;
        }
        let record = record.granted(floor);
        let mut guard =
            vec![unchanged(&seen.name, seen.modified), nothing_new(names.all(Kind::Marker), view.revision)];
        if !record.mode.is_exclusive() {
            guard.push(match view.oldest() {
                Some(oldest) => unchanged(&oldest.name, oldest.modified),
                None => nothing_new(names.all(Kind::Shared), view.revision),
            });
        }
        let value = record.encode();
        let mut written = self.write_grant(guard.clone(), &seen, &value, floor).await;
        if written.as_ref().is_err_and(|trouble| trouble.lease_gone) {
            written = self.write_grant(guard, &seen, &value, floor).await;
        }
        let Some(revision) = written? else { return Ok(false) };
        view.grant(at, record, revision);
        if seen.record.client == self.session
            && let Some(fence) = view.claims.get(at).and_then(|seen| view.fence(seen))
        {
            self.registry.granted(seen.id, fence, revision);
        }
        Ok(true)
    }

    async fn write_grant(
        &self,
        guard: Vec<Compare>,
        seen: &Seen,
        value: &[u8],
        floor: u64,
    ) -> Result<Option<i64>, Trouble> {
        let mut writes: Vec<TxnOp> = vec![rewrite(seen.name.as_str(), value)];
        if seen.record.client != self.session {
            let memory = self.leases.memory().await?;
            let message = news::granted(seen.id, floor);
            writes.push(put(self.keys.news(&seen.record.client), message, memory));
        }
        let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}
