//! The grant of whoever is next by the very write that makes room.

use lockcore::{Key, Release};

use crate::acquire::granted_by;
use crate::core::{Core, oldest, oldest_view};
use crate::keys::{Kind, Names};
use crate::record::Record;
use crate::registry::{Own, Standing};
use crate::txn::{Answer, Compare, TxnOp, nothing_new, unchanged};
use crate::view::{Seen, View};

/// Whom a release lets in, and how.
pub(crate) struct Heir {
    seen: Seen,
    record: Record,
    pub(crate) guard: Vec<Compare>,
    pub(crate) writes: Vec<TxnOp>,
}

impl Core {
    /// Who is next when this claim goes, as the lock was last seen.
    ///
    /// Only a claim that holds alone has an heir: it was let in as that by its last write, which the guard compares. Then nobody
    /// was let in since; nobody is between the two, as was read; and nobody comes ahead without a marker.
    pub(crate) async fn heir(&self, names: &Names, release: &Release, own: &Own) -> Option<Heir> {
        let front = self.fronts.of(release.claim.key()).filter(|_| release.answered && own.is_alone())?;
        let seen = front.heir(release.claim.id())?.clone();
        // It comes alone, so that its floor is its own token.
        let record = seen.record.clone().granted(0);
        let guard = vec![
            unchanged(&own.name, own.modified),
            unchanged(&seen.name, seen.modified),
            nothing_new(names.all(Kind::Marker), front.revision),
        ];
        let mut writes = self.granting(&seen, &record, 0).await.ok()?;
        if !record.mode.is_exclusive() {
            // Others may come in with it.
            writes.extend(oldest(names));
        }
        Some(Heir { seen, record, guard, writes })
    }

    /// What follows when the write went through.
    pub(crate) async fn handed_over(
        &self,
        names: &Names,
        release: &Release,
        own: Own,
        heir: Heir,
        answer: &Answer,
    ) {
        self.registry.vacate(release.claim.id());
        if heir.seen.record.client == self.session {
            self.registry.granted(heir.seen.id, granted_by(answer.revision, 0), answer.revision);
        }
        if !heir.record.mode.is_exclusive()
            && let Ok(view) = oldest_view(names, answer.revision, &answer.gets)
        {
            self.hand_over(names, release.claim.key(), view).await;
        }
        self.give_back(own).await;
    }

    /// Grants all who may hold now, for an operation that is done already: a failure costs a waiter its slow poll.
    pub(crate) async fn hand_over(&self, names: &Names, key: &Key, view: View) {
        match self.settle(names, view).await {
            Ok(view) => {
                self.tell_own(&view);
                self.fronts.saw(key, view);
            }
            Err(error) => {
                tracing::debug!(lock = names.as_str(), %error, "a hand-over is left to the next who looks");
            }
        }
    }

    /// Tells claims of this client that were let in by a write whose answer was lost.
    fn tell_own(&self, view: &View) {
        for seen in view.holders().filter(|seen| seen.record.client == self.session) {
            let waits = self.registry.get(seen.id).is_some_and(|own| own.standing == Standing::Queued);
            if let Some(fence) = view.fence(seen).filter(|_| waits) {
                self.registry.granted(seen.id, fence, seen.modified);
            }
        }
    }
}
