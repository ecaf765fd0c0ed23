//! Joining in the ways that need to see the whole lock first: permits, take-overs, and tries among them.

use std::sync::Arc;

use lockcore::{Attempt, Claim, Ending, Queue, Result};

use crate::acquire::Leases;
use crate::clock::Moment;
use crate::core::{Core, TRIES, all, crowded, there};
use crate::errors::Trouble;
use crate::keys::Names;
use crate::news::{self, Messages};
use crate::record::Record;
use crate::registry::Standing;
use crate::token;
use crate::txn::{Txn, TxnOp, absent, delete, get, get_range, nothing_new, put, unchanged};
use crate::view::{Plan, Seen, View};

/// How many claims one transaction ends: each is a few of the 128 writes that a server allows by default.
pub(crate) const AT_ONCE: usize = 30;

/// How often a claim tries to be granted at once. In a crowd of them it queues then, and is granted like all who wait.
const DIRECTLY: usize = 4;

/// What became of a claim that was to be written as planned.
enum Entered {
    At(i64),
    /// Something was written since.
    Changed,
    /// The lease that it was to lie on is not there.
    NoLease,
}

impl Core {
    /// Reads, decides, and writes if nothing was written since; again if something was. `None` when the lease that the claim was
    /// to lie on is not there.
    pub(crate) async fn join_slowly(
        &self,
        claim: &Arc<Claim>,
        names: &Names,
        name: &str,
        leases: &Leases,
        queue: Queue,
        asked: Moment,
    ) -> Result<Option<Attempt>> {
        for tried in 0..TRIES {
            let reads = [get_range(names.everything()), get(names.ended(claim.id()))];
            let answer = self.txn(Txn::new().and_then(reads)).await.map_err(Trouble::beforehand)?;
            if there(answer.gets.get(1)) {
                return Ok(Some(Attempt::Gone));
            }
            let view = all(names, &answer, answer.gets.first())?;
            if let Some(seen) = view.find(claim.id()) {
                self.found(claim, &view, seen).await;
                let view = self.settle(names, view).await?;
                return self.answer(claim, &view, asked, false).await.map(Some);
            }
            let mut plan = view.plan(claim);
            if !plan.granted && queue == Queue::Never {
                return Ok(Some(Attempt::Busy));
            }
            if plan.replaced.len() > AT_ONCE {
                self.end_hindmost(names, &plan.replaced[AT_ONCE..]).await?;
                continue;
            }
            if tried >= DIRECTLY && queue == Queue::Join && !claim.take_over() {
                plan.granted = false;
            }
            let revision = match self.enter(claim, names, name, leases, &view, &plan).await? {
                Entered::At(revision) => revision,
                Entered::Changed => continue,
                Entered::NoLease => return Ok(None),
            };
            for seen in plan.replaced.iter().filter(|seen| seen.record.client == self.session) {
                self.registry.ended(seen.id, Ending::TakenOver);
            }
            let fence = token::fence(revision, 0, plan.floor());
            let standing = if plan.granted { Standing::Granted(fence) } else { Standing::Queued };
            self.registry.stands(claim.id(), standing, revision);
            let lease = if plan.granted { &leases.hold } else { &leases.wait }.clone();
            self.registry.update(claim.id(), |own| {
                own.expires = Moment::now().plus(lease.ttl);
                own.lease = lease;
                own.waiting = None;
            });
            let unused = if plan.granted { &leases.wait } else { &leases.hold };
            if leases.wait.id != leases.hold.id {
                self.leases.give_back(unused).await;
            }
            let view = self.read(names).await?;
            let view = self.settle_for(names, view, claim).await?;
            return self.answer(claim, &view, asked, false).await.map(Some);
        }
        Err(crowded())
    }

    /// Writes the claim as planned, unless something was written since.
    ///
    /// A claim that stands out of turn has a marker for as long as it lives: grants that were decided before it came are
    /// guarded by the markers. One that only queues stands behind whoever is there by then.
    async fn enter(
        &self,
        claim: &Claim,
        names: &Names,
        name: &str,
        leases: &Leases,
        view: &View,
        plan: &Plan,
    ) -> Result<Entered> {
        let mut guard = vec![absent(name), absent(names.ended(claim.id()))];
        if plan.granted || claim.take_over() {
            guard.push(nothing_new(names.everything(), view.revision));
        }
        guard.extend(plan.replaced.iter().map(|seen| unchanged(&seen.name, seen.modified)));
        if plan.granted {
            guard.extend(plan.oldest.iter().map(|seen| unchanged(&seen.name, seen.modified)));
        }
        let lease = if plan.granted { &leases.hold } else { &leases.wait };
        let mut record = Record::new(claim, &self.session, lease.ttl);
        record.place = plan.place;
        record.marked = plan.place.is_some();
        if plan.granted {
            record = record.granted(0, plan.floor());
        }
        let mut writes = vec![put(name, record.encode(), lease.id)];
        if record.marked {
            writes.push(put(names.marker(name), "", lease.id));
        }
        if !plan.replaced.is_empty() {
            let memory = self.leases.memory().await?;
            writes.extend(self.endings(names, &plan.replaced, Ending::TakenOver, memory));
        }
        match self.txn_to_join(claim.id(), name, Txn::new().when(guard).and_then(writes)).await {
            Ok(answer) if answer.succeeded => Ok(Entered::At(answer.revision)),
            Ok(_) => Ok(Entered::Changed),
            Err(trouble) if trouble.lease_gone => Ok(Entered::NoLease),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Takes over from so many that one transaction cannot end them: from those who stand hindmost beforehand, so that the
    /// place is there until it is taken. Who was written since is looked at again.
    async fn end_hindmost(&self, names: &Names, replaced: &[Seen]) -> Result<()> {
        for some in replaced.rchunks(AT_ONCE) {
            if !self.end(names, some, Ending::TakenOver).await? {
                break;
            }
        }
        Ok(())
    }

    /// Ends claims that did not ask for it, [`AT_ONCE`] at most; `false` when one of them was written since they were read.
    pub(crate) async fn end(&self, names: &Names, claims: &[Seen], ending: Ending) -> Result<bool> {
        let guard: Vec<_> = claims.iter().map(|seen| unchanged(&seen.name, seen.modified)).collect();
        let memory = self.leases.memory().await?;
        let writes = self.endings(names, claims, ending, memory);
        let ended = self.txn(Txn::new().when(guard).and_then(writes)).await?.succeeded;
        for seen in claims.iter().filter(|seen| ended && seen.record.client == self.session) {
            self.registry.ended(seen.id, ending);
        }
        Ok(ended)
    }

    /// The writes that end claims which did not ask for it: their keys go, their ids are remembered, their clients are told.
    fn endings(&self, names: &Names, ended: &[Seen], ending: Ending, memory: i64) -> Vec<TxnOp> {
        let mut writes = Vec::with_capacity(4 * ended.len());
        let mut messages = Messages::default();
        for seen in ended {
            writes.push(delete(seen.name.as_str()));
            writes.push(delete(names.marker(&seen.name)));
            writes.push(put(names.ended(seen.id), news::ended(seen.id, ending), memory));
            if seen.record.client != self.session {
                messages.add(&seen.record.client, &news::ended(seen.id, ending));
            }
        }
        writes.extend(messages.writes(&self.keys, memory));
        writes
    }
}
