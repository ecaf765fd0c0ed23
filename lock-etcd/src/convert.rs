//! Changing the mode of a holder.

use lockcore::{Attempt, Conversion, Error, ErrorKind, Queued, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, all, crowded, lost};
use crate::errors::afterwards;
use crate::keys::{Kind, Names};
use crate::record::Grant;
use crate::txn::{Txn, TxnOp, get_range, nothing_new, put, rewrite, unchanged};
use crate::view::{Seen, View};

/// What a conversion comes to.
enum Step {
    /// Nothing is written: it is so already.
    Stands,
    /// Back to what it is: a waiting upgrade is withdrawn.
    Withdraw,
    Downgrade,
    Upgrade,
}

impl Core {
    pub(crate) async fn convert(&self, conversion: &Conversion) -> Result<Attempt> {
        let asked = Moment::now();
        let claim = &conversion.claim;
        self.registry.listen(claim);
        let names = self.keys.of(claim.key());
        for _ in 0..TRIES {
            let view = self.read(&names).await?;
            let view = self.settle(&names, view).await?;
            let Some(seen) = view.find(claim.id()).filter(|seen| seen.is_granted()) else {
                return Err(lost());
            };
            let step = step(&view, seen, conversion)?;
            if matches!(step, Step::Stands) {
                return self.converted(&view, conversion, asked).await;
            }
            let written = self.write_step(&names, &view, seen, conversion, &step).await?;
            let Some(view) = written else { continue };
            // A holder that was told that nothing happened would go on as it was, beside those who are let in.
            let settled = self.settle(&names, view).await.map_err(afterwards)?;
            return self.converted(&settled, conversion, asked).await.map_err(afterwards);
        }
        Err(crowded())
    }

    /// Writes one step, guarded by the claim's last write; the lock as it stands then, or `None` when that was not the last.
    ///
    /// An upgrade writes its marker first and reads after it, in one transaction: from then on nobody joins, and no grant that
    /// was decided before goes through.
    async fn write_step(
        &self,
        names: &Names,
        view: &View,
        seen: &Seen,
        conversion: &Conversion,
        step: &Step,
    ) -> Result<Option<View>> {
        let Some(fence) = self.fence(view, seen) else { return Err(lost()) };
        let mut record = seen.settled_record();
        record.granted = Some(Grant::of(fence));
        record.converted = conversion.order;
        record.upgrading = false;
        let marker = names.marker(&seen.name);
        let mut guard = vec![unchanged(&seen.name, seen.modified)];
        let mut writes: Vec<TxnOp> = Vec::with_capacity(3);
        match step {
            Step::Upgrade => {
                record.upgrading = true;
                record.marked = true;
                guard.push(nothing_new(names.all(Kind::Marker), view.revision));
                // On the lease of the claim, so that both end together.
                writes.push(put(marker, "", seen.lease));
            }
            // A marker stays for life: a grant that was decided before the upgrade may still be under way.
            Step::Downgrade | Step::Withdraw | Step::Stands => {}
        }
        if matches!(step, Step::Downgrade) {
            record.mode = conversion.to;
        }
        writes.push(rewrite(seen.name.as_str(), record.encode()));
        writes.push(get_range(names.everything()));
        let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
        if !answer.succeeded {
            return Ok(None);
        }
        self.registry.stands(seen.id, crate::registry::Standing::Granted(fence), answer.revision);
        all(names, &answer, answer.gets.first()).map(Some).map_err(afterwards)
    }

    async fn converted(&self, view: &View, conversion: &Conversion, asked: Moment) -> Result<Attempt> {
        let seen = view.find(conversion.claim.id()).ok_or_else(lost)?;
        let lease = self.lease(view, seen, asked).await?.ok_or_else(lost)?;
        if !seen.record.upgrading {
            return Ok(Attempt::Granted(lease));
        }
        let recheck = self.recheck_others(view, seen, asked).await?;
        Ok(Attempt::Queued(Queued { left: lease.left, recheck }))
    }

    async fn recheck_others(
        &self,
        view: &View,
        seen: &Seen,
        asked: Moment,
    ) -> Result<Option<std::time::Duration>> {
        let mut others = view.clone();
        others.claims.retain(|other| other.id != seen.id);
        self.recheck(&others, asked, true).await
    }
}

/// What a conversion comes to as things stand.
fn step(view: &View, seen: &Seen, conversion: &Conversion) -> Result<Step> {
    if conversion.order < seen.record.converted {
        return Ok(Step::Stands);
    }
    let (from, to) = (seen.record.mode, conversion.to);
    if from == to {
        return Ok(Step::Withdraw);
    }
    match (from.is_exclusive(), to.is_exclusive()) {
        (true, false) => Ok(Step::Downgrade),
        (false, true) => match view.upgrading().and_then(|at| view.claims.get(at)) {
            Some(other) if other.id != seen.id => Err(Error::new(
                ErrorKind::WouldDeadlock,
                "another holder waits to upgrade already; both would wait for each other",
            )),
            _ => Ok(Step::Upgrade),
        },
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "only exclusive and shared, or exclusive and permit, convert into each other",
        )),
    }
}
