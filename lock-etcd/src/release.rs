//! Letting go of exactly one's own claim, and handing over.

use std::sync::Arc;

use lockcore::{Claim, Release, Released, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, crowded, oldest, oldest_view};
use crate::errors::Trouble;
use crate::keys::Names;
use crate::registry::{Own, Standing};
use crate::txn::{Txn, TxnOp, absent, delete, get, put, unchanged};
use crate::view::{Seen, View};

/// How many ids one transaction remembers.
const REMEMBERED: usize = 100;

impl Core {
    pub(crate) async fn release(&self, release: &Release) -> Result<Released> {
        let names = self.keys.of(release.claim.key());
        if release.only_waiting {
            return self.withdraw(&names, release).await;
        }
        let own = self.registry.get(release.claim.id());
        let mut writes: Vec<TxnOp> = self.names_of(&names, &release.claim).into_iter().map(delete).collect();
        writes.push(delete(names.marker(release.claim.id())));
        if !release.answered {
            writes.push(self.remember(&names, release).await?);
        }
        writes.extend(oldest(&names));
        // No guard: the id is in the name, and a claim that has ended never comes back.
        let answer = self.txn(Txn::new().and_then(writes)).await?;
        let view = oldest_view(&names, answer.revision, &answer.gets);
        if answer.deleted > 0 {
            self.let_go(&names, release, own, view).await;
            return Ok(Released::Released);
        }
        self.ended_before(&[&release.claim]).await;
        self.let_go(&names, release, own, view).await;
        Ok(Released::NotHeld)
    }

    /// Lets go of a claim unless it is granted.
    async fn withdraw(&self, names: &Names, release: &Release) -> Result<Released> {
        let id = release.claim.id();
        let asked = Moment::now();
        for _ in 0..TRIES {
            let found = self.look_up(names, release).await?;
            if found.as_ref().is_some_and(Seen::is_granted) {
                let view = self.read(names).await?;
                let Some(seen) = view.find(id) else { continue };
                let Some(lease) = self.lease(&view, seen, asked).await? else { continue };
                self.registry.stands(id, Standing::Granted(lease.fence), seen.modified);
                return Ok(Released::Granted(lease));
            }
            let mut guard = Vec::with_capacity(3);
            let mut writes: Vec<TxnOp> = Vec::with_capacity(5);
            if let Some(seen) = &found {
                guard.push(unchanged(&seen.name, seen.modified));
                writes.push(delete(seen.name.as_str()));
                writes.push(delete(names.marker(id)));
            } else {
                guard.extend(self.names_of(names, &release.claim).into_iter().map(absent));
            }
            let ended_before = found.is_none() && self.registry.knows(id);
            if !release.answered || ended_before {
                writes.push(self.remember(names, release).await?);
            }
            writes.extend(oldest(names));
            let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
            if answer.succeeded {
                let view = oldest_view(names, answer.revision, &answer.gets);
                self.let_go(names, release, self.registry.get(id), view).await;
                return Ok(if found.is_some() { Released::Released } else { Released::NotHeld });
            }
        }
        Err(crowded())
    }

    async fn look_up(&self, names: &Names, release: &Release) -> Result<Option<Seen>> {
        let looks: Vec<TxnOp> = self.names_of(names, &release.claim).into_iter().map(get).collect();
        let answer = self.txn(Txn::new().and_then(looks)).await.map_err(Trouble::beforehand)?;
        let found = answer.gets.iter().find_map(|get| get.kvs.first());
        found.map(|kv| Seen::read(names, kv)).transpose()
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
        match view {
            Ok(view) if !view.claims.is_empty() || !view.complete => self.hand_over(names, view).await,
            Ok(_) => {}
            Err(error) => tracing::debug!(lock = names.as_str(), %error, "nobody can be next"),
        }
        self.registry.remove(release.claim.id());
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
