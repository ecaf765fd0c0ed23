//! The grant of whoever is next by the very write that makes room.

use lockcore::{Key, Release};

use crate::core::{Core, oldest, oldest_view};
use crate::grants::Grants;
use crate::keys::{Kind, Names};
use crate::registry::{Own, Standing};
use crate::txn::{Answer, Txn, delete, nothing_new, unchanged};
use crate::view::View;

impl Core {
    /// Who is next when this claim goes, as the lock was last seen, and the transaction that deletes it and lets them in.
    ///
    /// Only a claim that holds alone has heirs: it was let in as that by its last write, which the guard compares. Then nobody
    /// was let in since; nobody is between it and them, as was read; and nobody comes ahead without a marker.
    pub(crate) async fn heirs(&self, names: &Names, release: &Release, own: &Own) -> Option<(Grants, Txn)> {
        let front = self.fronts.of(release.claim.key()).filter(|_| release.answered && own.is_alone())?;
        let heirs = front.heirs(release.claim.id());
        if heirs.is_empty() {
            return None;
        }
        // They come alone.
        let grants = Grants::new(heirs, 0);
        let mut guard =
            vec![unchanged(&own.name, own.modified), nothing_new(names.all(Kind::Marker), front.revision)];
        guard.extend(grants.guard());
        let mut writes = vec![delete(own.name.as_str())];
        writes.extend(self.granting(&grants).await.ok()?);
        if !grants.exclude() {
            // Others may come in with them.
            writes.extend(oldest(names));
        }
        Some((grants, Txn::new().when(guard).and_then(writes)))
    }

    /// What follows when the write went through.
    pub(crate) async fn handed_over(
        &self,
        names: &Names,
        release: &Release,
        own: Own,
        heirs: Grants,
        answer: &Answer,
    ) {
        self.registry.vacate(release.claim.id());
        self.tell_granted(&heirs, answer.revision);
        if !heirs.exclude()
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
