//! The grant of waiting claims: by whoever sees that their turn has come.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use lockcore::{Claim, ClaimId, Mode, Result};
use tokio::time::sleep;

use crate::core::{AT_ONCE, Core};
use crate::errors::Trouble;
use crate::keys::{Kind, Names};
use crate::news;
use crate::record::Record;
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
                Next::Grant(first) => {
                    if !self.grant_all(names, &mut view, first).await? {
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

    /// Writes the grant of the claim that is next, and with it those of the readers right behind who come beside others; `false`
    /// when something has changed since the view.
    async fn grant_all(&self, names: &Names, view: &mut View, first: usize) -> Result<bool> {
        let all = view.with_readers(first, &self.session);
        let seen = view.clone();
        let mut granting = Vec::with_capacity(all.len());
        for &at in &all {
            granting.push(self.grant_one(names, &seen, at));
        }
        let mut granting = stream::iter(granting).buffered(AT_ONCE);
        let mut all_done = Ok(true);
        // Each is told as soon as those ahead of it were, whatever became of them.
        for at in all {
            let (record, revision) = match granting.next().await {
                Some(Ok(Some(granted))) => granted,
                Some(Err(error)) => {
                    all_done = Err(error);
                    continue;
                }
                Some(Ok(None)) | None => {
                    all_done = all_done.map(|_| false);
                    continue;
                }
            };
            view.grant(at, record, revision);
            let Some(seen) = view.claims.get(at).filter(|seen| seen.record.client == self.session) else {
                continue;
            };
            if let Some(fence) = view.fence(seen) {
                self.registry.granted(seen.id, fence, revision);
            }
        }
        all_done
    }

    /// Writes the grant of one claim: as what, and by which revision; `None` when something has changed since the view.
    ///
    /// Guarded by the claim's own last write, so that a claim that was released, broken or granted since is not touched; and by
    /// the markers, so that no upgrade or take-over is overlooked that was written since. Its lease stays what it is.
    ///
    /// A reader that joins meanwhile need not wait behind readers that do. The first of these is guarded by that, or its floor
    /// would be above the token of the other: all later ones have tokens above the first one's, and are guarded by it.
    async fn grant_one(&self, names: &Names, view: &View, at: usize) -> Result<Option<(Record, i64)>> {
        let Some(seen) = view.claims.get(at) else { return Ok(None) };
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
        let mut written = self.write_grant(guard.clone(), seen, &record, floor).await;
        if written.as_ref().is_err_and(|trouble| trouble.lease_gone) {
            written = self.write_grant(guard, seen, &record, floor).await;
        }
        Ok(written?.map(|revision| (record, revision)))
    }

    async fn write_grant(
        &self,
        guard: Vec<Compare>,
        seen: &Seen,
        record: &Record,
        floor: u64,
    ) -> Result<Option<i64>, Trouble> {
        let writes = self.granting(seen, record, floor).await?;
        let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }

    /// The writes that grant a claim: its value, and a message to its client. Its lease stays what it is.
    pub(crate) async fn granting(
        &self,
        seen: &Seen,
        record: &Record,
        floor: u64,
    ) -> Result<Vec<TxnOp>, Trouble> {
        let mut writes: Vec<TxnOp> = vec![rewrite(seen.name.as_str(), record.encode())];
        if seen.record.client != self.session {
            let memory = self.leases.memory().await?;
            let message = news::granted(seen.id, floor);
            writes.push(put(self.keys.news(&seen.record.client), message, memory));
        }
        Ok(writes)
    }
}

impl View {
    /// The claim at this position, which is next. If readers hold already, and no permit bounds how many may, also the readers
    /// right behind it, who come in beside them whatever becomes of each other: as long as all are this client's, which tells
    /// them in their order.
    pub(crate) fn with_readers(&self, first: usize, client: &str) -> Vec<usize> {
        let mut all = vec![first];
        let reads = |seen: &Seen| {
            seen.record.mode == Mode::Shared && !seen.is_granted() && seen.record.client == client
        };
        let Some(place) = self.claims.get(first).filter(|seen| reads(seen)).map(Seen::place) else {
            return all;
        };
        let only_readers = self.holders().all(|seen| seen.record.mode == Mode::Shared);
        if self.oldest().is_none() || !only_readers {
            return all;
        }
        let mut behind: Vec<(usize, &Seen)> = self.claims.iter().enumerate().collect();
        behind.retain(|(_, seen)| !seen.is_granted() && seen.place() > place);
        behind.sort_by_key(|(_, seen)| seen.place());
        all.extend(behind.into_iter().take_while(|(_, seen)| reads(seen)).map(|(at, _)| at));
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::view::Next;
    use crate::view::tests::view;

    #[test]
    fn readers_come_in_together_beside_readers_only() {
        let together = |text: &str| {
            let view = view(text);
            let Next::Grant(first) = view.next() else { panic!("{text}") };
            let all = view.with_readers(first, "c");
            all.into_iter().map(|at| view.claims[at].created).collect::<Vec<_>>()
        };
        assert_eq!(together("S1 s7 s5 x8 s9"), [5, 7]);
        assert_eq!(together("s5 s7"), [5], "the first one's token is the floor of the others");
        assert_eq!(together("S1 P4.2 s5 s7"), [5], "there are four at most");
        assert_eq!(together("S1 P4.5 s7"), [7]);
        let view = view("S1 s5 s7");
        assert_eq!(view.with_readers(1, "another"), [1], "these hear of it by news");
    }
}
