//! The grant of waiting claims: by whoever sees that their turn has come.

use std::time::Duration;

use lockcore::{Claim, ClaimId, Result};
use tokio::time::sleep;

use crate::core::Core;
use crate::errors::Trouble;
use crate::grants::Grants;
use crate::keys::{Kind, Names};
use crate::token::MOST;
use crate::txn::{Compare, Txn, nothing_new, unchanged};
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
        let (mut pause, mut most) = (PAUSE_MIN, MOST);
        loop {
            match view.next() {
                Next::Nobody => return Ok(view),
                Next::Unknown => view = self.read(names).await?,
                Next::Grant(first) => {
                    if !self.grant(names, &mut view, first, most).await? {
                        // The more at once, the likelier one of them goes meanwhile.
                        most = (most / 2).max(1);
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

    /// Writes the grant of the claim that is next, and with it those of all who come in beside it, at most so many; `false` when
    /// something has changed since the view.
    ///
    /// Guarded by each claim's own last write, so that one that was released, broken or granted since is not touched; and by the
    /// markers, so that no upgrade or take-over is overlooked that was written since.
    ///
    /// A reader that joins meanwhile need not wait behind readers that do. So these are guarded by the oldest holder; where there
    /// is none, by that nobody joins, or their floor would be above the token of the other.
    async fn grant(&self, names: &Names, view: &mut View, first: usize, most: usize) -> Result<bool> {
        let all = view.together(first, most);
        let claims: Vec<Seen> = all.iter().filter_map(|&at| view.claims.get(at).cloned()).collect();
        // An upgraded holder is alone: its floor is its token.
        let floor = if claims.iter().any(Seen::is_granted) { 0 } else { view.floor() };
        let grants = Grants::new(claims, floor);
        let mut written = self.write_grants(names, view, &grants).await;
        if written.as_ref().is_err_and(|trouble| trouble.lease_gone) {
            written = self.write_grants(names, view, &grants).await;
        }
        let Some(revision) = written? else { return Ok(false) };
        self.tell_granted(&grants, revision);
        for (at, (_, record)) in all.into_iter().zip(grants.claims) {
            view.grant(at, record, revision);
        }
        Ok(true)
    }

    async fn write_grants(
        &self,
        names: &Names,
        view: &View,
        grants: &Grants,
    ) -> Result<Option<i64>, Trouble> {
        let mut guard: Vec<Compare> = grants.guard().collect();
        guard.push(nothing_new(names.all(Kind::Marker), view.revision));
        if !grants.exclude() {
            guard.push(match view.oldest() {
                Some(oldest) => unchanged(&oldest.name, oldest.modified),
                None => nothing_new(names.all(Kind::Shared), view.revision),
            });
        }
        let writes = self.granting(grants).await?;
        let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}
