//! What a claim that waits asks: has its turn come, and does its lease live on?

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Attempt, Claim, ErrorKind, Queued, Renewal, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, crowded, looked_up, oldest, oldest_view};
use crate::errors::Trouble;
use crate::keys::Names;
use crate::registry::{Own, Standing};
use crate::txn::{Txn, absent, delete, get, put, unchanged};
use crate::view::{Next, View};

/// Of how many holders the leases are asked for.
const MOST_ASKED: usize = 4;

impl Core {
    /// A waiter's heartbeat: keeps its lease, and looks whether its turn has come.
    pub(crate) async fn heartbeat(&self, claim: &Arc<Claim>, own: Own, asked: Moment) -> Result<Attempt> {
        let names = self.keys.of(claim.key());
        let waits = own.standing == Standing::Queued;
        let waiter_ttl = Duration::from_secs(self.leases.seconds(claim.waiter_ttl()).unsigned_abs());
        if !waits && own.lease.ttl < waiter_ttl && own.left(asked) < waiter_ttl {
            // A renewal has made the lease shorter than what asking again brings.
            let renewal = Renewal { claim: claim.clone(), ttl: claim.waiter_ttl(), order: own.renewed };
            return match self.renew_alone(&renewal, asked).await {
                Err(error) if error.kind() == ErrorKind::Lost => self.is_gone(claim, &names).await,
                renewed => renewed.map(Attempt::Granted),
            };
        }
        // Asking again must not cut short what a renewal has set since.
        let keep = waits || own.lease.left(asked) < claim.waiter_ttl();
        let recently = if own.lease.shared { own.lease.ttl / 8 } else { Duration::ZERO };
        if keep && !own.lease.keep(&self.link, recently).await.map_err(Trouble::beforehand)? {
            return self.is_gone(claim, &names).await;
        }
        let mut looks = vec![get(own.name.as_str())];
        looks.extend(oldest(&names));
        let answer = self.txn(Txn::new().and_then(looks)).await?;
        let found = looked_up(&names, claim.id(), &answer, answer.gets.first())?;
        let Some(seen) = found else { return self.is_gone(claim, &names).await };
        if keep {
            // The key was there after the lease had been set.
            self.registry.lives_on(claim.id(), &own.lease);
        }
        let mut view = oldest_view(&names, answer.revision, answer.gets.get(1..).unwrap_or_default())?;
        if seen.is_granted() {
            if view.find(seen.id).is_none() {
                view.claims.push(seen);
            }
            return self.answer(claim, &view, asked, true).await;
        }
        if view.next() != Next::Nobody {
            view = self.settle_for(&names, view, claim).await?;
        }
        self.answer(claim, &view, asked, true).await
    }

    /// The claim's key is not there any more. That it never comes back is remembered before it is said.
    pub(crate) async fn is_gone(&self, claim: &Claim, names: &Names) -> Result<Attempt> {
        let memory = self.leases.memory().await?;
        let ended = names.ended(claim.id());
        for _ in 0..TRIES {
            let look = self.look(names, claim.id());
            let txn = Txn::new()
                .when([absent(ended.as_str())])
                .and_then([put(ended.as_str(), "E", memory), look.clone()])
                .or_else([look]);
            let answer = self.txn(txn).await?;
            // A copy of its join that was late, but not later than the memory of its end.
            let late = looked_up(names, claim.id(), &answer, answer.gets.first())?;
            let Some(late) = late.filter(|late| late.record.client == self.session) else {
                if let Some(own) = self.registry.remove(claim.id()) {
                    self.give_back(own).await;
                }
                return Ok(Attempt::Gone);
            };
            let writes = [delete(late.name.as_str()), delete(names.marker(&late.name))];
            let guard = [unchanged(&late.name, late.modified)];
            if self.txn(Txn::new().when(guard).and_then(writes)).await?.succeeded
                && let Ok(view) = self.read(names).await
            {
                self.hand_over(names, claim.key(), view).await;
            }
        }
        Err(crowded())
    }

    /// How a claim stands that is in the view, or was.
    pub(crate) async fn answer(
        &self,
        claim: &Claim,
        view: &View,
        asked: Moment,
        exactly: bool,
    ) -> Result<Attempt> {
        let own = self.registry.get(claim.id());
        let Some(seen) = view.find(claim.id()) else {
            // It waits behind those that were read, or it has ended.
            return Ok(match own {
                Some(own) if !view.complete => {
                    Attempt::Queued(Queued { left: own.left(asked), recheck: None })
                }
                _ => Attempt::Gone,
            });
        };
        if let Some(lease) = self.lease(view, seen, asked).await? {
            self.registry.stands(claim.id(), Standing::Granted(lease.fence), seen.modified);
            return Ok(Attempt::Granted(lease));
        }
        let left = self.sure_left(seen, asked).await?;
        let is_next =
            view.upgrading().is_none() && view.waiters().first().is_some_and(|first| first.id == seen.id);
        let recheck = if is_next { self.recheck(view, asked, exactly).await? } else { None };
        Ok(Attempt::Queued(Queued { left, recheck }))
    }

    /// When the first of the holders' leases may end: what a claim that is next looks out for, because no message tells it.
    pub(crate) async fn recheck(
        &self,
        view: &View,
        asked: Moment,
        exactly: bool,
    ) -> Result<Option<Duration>> {
        /// The server looks for leases that have ended twice a second.
        const SWEEP: Duration = Duration::from_millis(500);
        let mut first: Option<Duration> = None;
        for holder in view.holders().take(MOST_ASKED) {
            // The first time the whole length will do: whoever comes to wait must not be slowed down by asking.
            let left = match self.registry.get(holder.id) {
                Some(own) => own.lease.left(asked),
                None if exactly => self.link.time_to_live(holder.lease).await?,
                None => Duration::from_secs(holder.record.ttl),
            };
            first = Some(first.map_or(left, |first| first.min(left)));
        }
        Ok(first.map(|left| left + SWEEP))
    }
}
