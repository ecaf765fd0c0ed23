//! The grant of waiting claims: by whoever sees that their turn has come.

use lockcore::{Mode, Result};

use crate::core::Core;
use crate::errors::Trouble;
use crate::keys::{Kind, Names};
use crate::news;
use crate::txn::{Txn, TxnOp, nothing_new, put, rewrite, unchanged};
use crate::view::{Next, Seen, View};

impl Core {
    /// Grants all who may hold, in their order, and answers the lock as it stands then.
    pub(crate) async fn settle(&self, names: &Names, mut view: View) -> Result<View> {
        loop {
            match view.next() {
                Next::Nobody => return Ok(view),
                Next::Unknown => view = self.read(names).await?,
                Next::Grant(at) => {
                    if !self.grant_next(names, &mut view, at).await? {
                        view = self.read(names).await?;
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
        let mut written = self.write_grant(names, view.revision, &seen, &record.encode(), floor).await;
        if written.as_ref().is_err_and(|trouble| trouble.lease_gone) {
            written = self.write_grant(names, view.revision, &seen, &record.encode(), floor).await;
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
        names: &Names,
        read_at: i64,
        seen: &Seen,
        value: &[u8],
        floor: u64,
    ) -> Result<Option<i64>, Trouble> {
        let guard = [unchanged(&seen.name, seen.modified), nothing_new(names.all(Kind::Marker), read_at)];
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
