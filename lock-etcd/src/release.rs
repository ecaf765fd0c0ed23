//! Letting go of exactly one's own claim.

use std::iter;
use std::sync::Arc;

use lockcore::{Claim, Release, Released, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, all, crowded, looked_up, oldest, oldest_view};
use crate::errors::{Trouble, afterwards};
use crate::keys::Names;
use crate::registry::{Own, Standing};
use crate::txn::{Txn, TxnOp, absent, delete, get_range, put, unchanged};
use crate::view::{Seen, View};

/// How many ids one transaction remembers.
const REMEMBERED: usize = 100;

impl Core {
    pub(crate) async fn release(&self, release: &Release) -> Result<Released> {
        let names = self.keys.of(release.claim.key());
        match self.registry.get(release.claim.id()) {
            Some(own) if !release.only_waiting && own.slot.is_some() => {
                self.leave(&names, release, own).await
            }
            _ => self.withdraw(&names, release).await,
        }
    }

    /// Deletes the key of a claim of this client, whatever it is by now: under this name there is no other one. First in the
    /// way that is usual for what is known of it.
    async fn leave(&self, names: &Names, release: &Release, own: Own) -> Result<Released> {
        let claim = &release.claim;
        let delete_own = || delete(own.name.as_str());
        let (heirs, usual) = match self.heirs(names, release, &own).await {
            Some((heirs, handing_over)) => (Some(heirs), Some(handing_over)),
            // Most of these have no marker, and if there is one it is seen.
            None if release.answered && own.is_alone() => {
                let writes: Vec<TxnOp> = iter::once(delete_own()).chain(oldest(names)).collect();
                (None, Some(Txn::new().and_then(writes)))
            }
            None => (None, None),
        };
        let mut gone = false;
        if let Some(usual) = usual {
            match self.txn_by_name(claim.id(), &own.name, usual).await {
                Some(Ok(answer)) => {
                    gone = answer.deleted > 0;
                    if let Some(heirs) = heirs.filter(|_| gone) {
                        self.handed_over(names, release, own, heirs, &answer).await;
                        return Ok(Released::Released);
                    }
                    let view = oldest_view(names, answer.revision, &answer.gets);
                    if gone && view.as_ref().is_ok_and(|view| !view.out_of_turn) {
                        self.let_go(names, release, Some(own), view).await;
                        return Ok(Released::Released);
                    }
                }
                // Nobody can be let in just now. That is no reason to stay; and a full database says so of its last write, too.
                Some(Err(trouble)) if trouble.lease_gone || trouble.is_full() => gone = trouble.is_full(),
                Some(Err(trouble)) => return Err(trouble.into()),
                None => return self.withdraw(names, release).await,
            }
        }
        let mut writes = vec![delete_own(), delete(names.marker(&own.name))];
        if !release.answered {
            writes.push(self.remember(names, release).await?);
        }
        writes.extend(oldest(names));
        let left = self.txn_by_name(claim.id(), &own.name, Txn::new().and_then(writes)).await;
        let Some(left) = left else { return self.withdraw(names, release).await };
        let answer =
            left.map_err(|trouble| if gone { afterwards(trouble.error()) } else { trouble.into() })?;
        gone |= answer.deleted > 0;
        if !gone {
            self.ended_before(&[claim]).await;
        }
        let view = oldest_view(names, answer.revision, &answer.gets);
        self.let_go(names, release, Some(own), view).await;
        Ok(if gone { Released::Released } else { Released::NotHeld })
    }

    /// Lets go of a claim that waits, or that another client made: only as it was last read.
    async fn withdraw(&self, names: &Names, release: &Release) -> Result<Released> {
        let id = release.claim.id();
        let asked = Moment::now();
        for _ in 0..TRIES {
            let look = Txn::new().and_then([self.look(names, id)]);
            let answer = self.txn(look).await.map_err(Trouble::beforehand)?;
            let found = looked_up(names, id, &answer, answer.gets.first())?;
            if release.only_waiting && found.as_ref().is_some_and(Seen::is_granted) {
                let view = self.read(names).await?;
                let Some(seen) = view.find(id) else { continue };
                let Some(lease) = self.lease(&view, seen, asked).await? else { continue };
                self.registry.stands(id, Standing::Granted(lease.fence), seen.modified);
                return Ok(Released::Granted(lease));
            }
            let own = self.registry.get(id);
            let mut guard = Vec::with_capacity(1);
            let mut writes: Vec<TxnOp> = Vec::with_capacity(5);
            if let Some(seen) = &found {
                guard.push(unchanged(&seen.name, seen.modified));
                writes.push(delete(seen.name.as_str()));
                writes.push(delete(names.marker(&seen.name)));
            } else if let Some(own) = own.as_ref().filter(|own| own.slot.is_some()) {
                guard.push(absent(own.name.as_str()));
                writes.push(delete(names.marker(&own.name)));
            }
            if !release.answered || (found.is_none() && own.is_some()) {
                writes.push(self.remember(names, release).await?);
            }
            // Under which name it may have come since is not known; once its end is remembered it comes no more.
            let anywhere = found.is_none() && own.is_none();
            if anywhere {
                writes.push(get_range(names.everything()));
            } else {
                writes.extend(oldest(names));
            }
            let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
            let view = if anywhere {
                all(names, &answer, answer.gets.first())
            } else {
                oldest_view(names, answer.revision, &answer.gets)
            };
            let has_come = anywhere && view.as_ref().is_ok_and(|view| view.find(id).is_some());
            if answer.succeeded && !has_come {
                self.let_go(names, release, own, view).await;
                return Ok(if found.is_some() { Released::Released } else { Released::NotHeld });
            }
        }
        Err(crowded())
    }

    /// The write that remembers the id, for a copy of an acquire that may still be under way.
    async fn remember(&self, names: &Names, release: &Release) -> Result<TxnOp> {
        let memory = self.leases.memory().await.map_err(Trouble::beforehand)?;
        Ok(put(names.ended(release.claim.id()), "R", memory))
    }

    /// Claims that this client knew are not there any more. That they never come back is remembered; then they are forgotten
    /// here. If it cannot be, they stay known, and whoever asks again finds that they are gone.
    pub(crate) async fn ended_before(&self, claims: &[&Arc<Claim>]) {
        let known: Vec<&&Arc<Claim>> =
            claims.iter().filter(|claim| self.registry.knows(claim.id())).collect();
        for some in known.chunks(REMEMBERED) {
            let Ok(memory) = self.leases.memory().await else { return };
            let writes: Vec<TxnOp> = some
                .iter()
                .map(|claim| put(self.keys.of(claim.key()).ended(claim.id()), "E", memory))
                .collect();
            if let Err(trouble) = self.txn(Txn::new().and_then(writes)).await {
                tracing::debug!(?trouble, "ended claims are remembered later");
                return;
            }
            for claim in some {
                self.registry.remove(claim.id());
            }
        }
    }

    /// What follows a release: the next claims are granted, if they can be read, and what the client kept for this one is
    /// given back.
    async fn let_go(&self, names: &Names, release: &Release, own: Option<Own>, view: Result<View>) {
        self.registry.vacate(release.claim.id());
        match view {
            Ok(view) => self.hand_over(names, release.claim.key(), view).await,
            Err(error) => tracing::debug!(lock = names.as_str(), %error, "nobody can be next"),
        }
        if let Some(own) = own {
            self.give_back(own).await;
        }
    }

    /// Ends the leases of a claim that is not there any more.
    pub(crate) async fn give_back(&self, own: Own) {
        self.leases.give_back(&own.lease).await;
        if let Some(waiting) = own.waiting.filter(|waiting| waiting.id != own.lease.id) {
            self.leases.give_back(&waiting).await;
        }
    }
}
