//! The task that keeps the watch on this client's news, and takes out claims that nobody renews any more.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{ClaimId, Ending};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::core::{Core, oldest, oldest_view};
use crate::errors::Trouble;
use crate::link::Watch;
use crate::registry::Own;
use crate::txn::{Txn, delete, put, unchanged};

/// The first and the longest pause between two attempts to watch.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often claims that nobody renews are looked for, and how much later than their lease they are taken out.
const SWEEP: Duration = Duration::from_secs(1);

/// Opens the watch on this client's news, from now on: never from an earlier revision, which etcd serves late. It is there
/// when this returns.
pub(crate) async fn watch(core: &Core, patience: Duration) -> Result<Box<dyn Watch>, Trouble> {
    core.link.watch(core.keys.news(&core.session), patience).await
}

/// Keeps the watch, for ever. After each gap every claim is told to look for itself.
pub(crate) async fn keep(core: Arc<Core>, mut watching: Box<dyn Watch>, patience: Duration) {
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = watching.next() => match news {
                Ok(news) => core.dispatch(&news).await,
                Err(trouble) => {
                    tracing::debug!(?trouble, "the watch has ended");
                    watching = again(&core, patience).await;
                    // News may have been missed.
                    core.registry.everybody_look();
                }
            },
            _ = sweep.tick() => {
                for (id, own) in core.registry.overdue(SWEEP) {
                    core.take_out(id, own).await;
                }
            }
        }
    }
}

async fn again(core: &Core, patience: Duration) -> Box<dyn Watch> {
    let mut pause = PAUSE_MIN;
    loop {
        match watch(core, patience).await {
            Ok(watching) => return watching,
            Err(trouble) => tracing::debug!(?trouble, "cannot watch"),
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

impl Core {
    /// Ends a claim of this client whose own lease would be over, on a lease that lives on for others.
    ///
    /// Guarded by its last known write: another client may have resumed it since. One whose first acquire was never answered
    /// has none: it may be granted just now.
    async fn take_out(&self, id: ClaimId, own: Own) {
        let names = self.keys.of(&own.key);
        let Ok(memory) = self.leases.memory().await else { return };
        // Others were seen to first. Its holder is told before it is taken out, and only if it has not been heard of since.
        if !self.registry.expire(id, SWEEP) {
            return;
        }
        let guard = [unchanged(&own.name, own.modified)];
        let mut writes = vec![
            delete(own.name.as_str()),
            delete(names.marker(&own.name)),
            put(names.ended(id), "E", memory),
        ];
        writes.extend(oldest(&names));
        match self.txn(Txn::new().when(guard).and_then(writes)).await {
            Ok(answer) if answer.succeeded => {
                self.registry.ended(id, Ending::Expired);
                if let Ok(view) = oldest_view(&names, answer.revision, &answer.gets) {
                    self.hand_over(&names, &own.key, view).await;
                }
            }
            Ok(_) => self.take_out_if_ours(id, &own, memory).await,
            Err(trouble) => tracing::debug!(?trouble, claim = %id, "an overdue claim is taken out later"),
        }
    }

    /// The key was written since: granted by another client, whose news were lost, or resumed by one. Or it is not there.
    async fn take_out_if_ours(&self, id: ClaimId, own: &Own, memory: i64) {
        let names = self.keys.of(&own.key);
        let Ok(view) = self.read(&names).await else { return };
        let found = view.find(id).filter(|seen| seen.record.client == self.session);
        // Its holder is told before it is taken out, and only if it has not been heard of meanwhile.
        if !self.registry.expire(id, SWEEP) {
            return;
        }
        // It may also have ended before, without anybody remembering it.
        let is_others = found.is_none() && view.find(id).is_some();
        if !is_others {
            let guard: Vec<_> = found.iter().map(|seen| unchanged(&seen.name, seen.modified)).collect();
            let mut writes = vec![put(names.ended(id), "E", memory)];
            writes.extend(
                found.iter().flat_map(|seen| [delete(&*seen.name), delete(names.marker(&seen.name))]),
            );
            if !self.txn(Txn::new().when(guard).and_then(writes)).await.is_ok_and(|answer| answer.succeeded) {
                return;
            }
        }
        self.registry.remove(id);
        if found.is_some()
            && let Ok(view) = self.read(&names).await
        {
            self.hand_over(&names, &own.key, view).await;
        }
    }
}
