//! Renewing: a keepalive sets the lease, and a read of the claim's key afterwards proves that it still is ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, Fence, Lease, Renewal, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, crowded, lost, missing, together};
use crate::errors::Trouble;
use crate::leases::Lease as ServerLease;
use crate::record::Grant;
use crate::registry::{Own, Standing};
use crate::txn::{Get, Read, Txn, TxnOp, put, unchanged};
use crate::view::Seen;

/// How many keys one transaction reads: as many as a server allows by default.
const PROOFS: usize = 128;

/// A renewal that a keepalive can do.
struct Easy {
    at: usize,
    own: Own,
    fence: Fence,
}

impl Core {
    /// Renews many at once: a keepalive for each lease, then the proofs in batches. One answer for each, in their order.
    pub(crate) async fn renew_all(&self, renewals: &[Renewal]) -> Vec<Result<Lease>> {
        let asked = Moment::now();
        let mut answers: Vec<Option<Result<Lease>>> = renewals.iter().map(|_| None).collect();
        let easy: Vec<Easy> = renewals
            .iter()
            .enumerate()
            .filter_map(|(at, renewal)| self.easy(renewal).map(|(own, fence)| Easy { at, own, fence }))
            .collect();
        let kept = self.keep_leases(&easy).await;
        let mut ended = Vec::new();
        let alive = |each: &Easy| matches!(kept.get(&each.own.lease.id), Some(Ok(true)));
        for each in easy.iter().filter(|each| !alive(each)) {
            answers[each.at] = match kept.get(&each.own.lease.id) {
                Some(Err(trouble)) => Some(Err(trouble.clone().error())),
                _ if each.own.lease.shared => {
                    ended.push(&renewals[each.at].claim);
                    Some(Err(lost()))
                }
                // It may lie on another one by now, if another client had resumed it.
                _ => None,
            };
        }
        let living: Vec<&Easy> = easy.iter().filter(|each| alive(each)).collect();
        let mut proofs = Vec::new();
        for some in living.chunks(PROOFS) {
            proofs.push(self.prove(some));
        }
        let proofs = together(proofs).await.into_iter().flatten();
        for (each, proof) in living.iter().zip(proofs) {
            let renewal = &renewals[each.at];
            answers[each.at] = match proof {
                Ok(Proof::Ours) => Some(Ok(self.renewed(renewal, each, asked))),
                Ok(Proof::Gone) => {
                    ended.push(&renewal.claim);
                    Some(Err(lost()))
                }
                // Written since: looked at by itself, below.
                Ok(Proof::Written) => None,
                Err(error) => Some(Err(error)),
            };
        }
        self.ended_before(&ended).await;
        let rest: Vec<usize> = (0..renewals.len()).filter(|&at| answers[at].is_none()).collect();
        let mut alone = Vec::with_capacity(rest.len());
        for &at in &rest {
            alone.push(self.renew_alone(&renewals[at], asked));
        }
        for (at, answer) in rest.iter().copied().zip(together(alone).await) {
            answers[at] = Some(answer);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(missing()))).collect()
    }

    /// Whether a keepalive is all that a renewal needs: a known holder, on a lease of just that length.
    fn easy(&self, renewal: &Renewal) -> Option<(Own, Fence)> {
        self.registry.listen(&renewal.claim);
        let own = self.registry.get(renewal.claim.id())?;
        let Standing::Granted(fence) = own.standing else { return None };
        let seconds = u64::try_from(self.leases.seconds(renewal.ttl)).unwrap_or(u64::MAX);
        let fits = own.lease.ttl.as_secs() == seconds && renewal.order >= own.renewed;
        // A shared lease is kept alive for others: it does for whoever is renewed to just its length, for ever.
        let may_share = !own.lease.shared || (renewal.claim.kept() && renewal.ttl == renewal.claim.ttl());
        (fits && may_share && !own.moving && !own.lease.is_gone()).then_some((own, fence))
    }

    async fn keep_leases(&self, easy: &[Easy]) -> HashMap<i64, Result<bool, Trouble>> {
        let mut leases: HashMap<i64, Arc<ServerLease>> = HashMap::new();
        for each in easy {
            leases.entry(each.own.lease.id).or_insert_with(|| each.own.lease.clone());
        }
        let leases: Vec<Arc<ServerLease>> = leases.into_values().collect();
        let mut keeping = Vec::with_capacity(leases.len());
        for lease in &leases {
            let recently = if lease.shared { lease.ttl / 16 } else { Duration::ZERO };
            keeping.push(lease.keep(&self.link, recently));
        }
        let kept = together(keeping).await;
        leases.iter().map(|lease| lease.id).zip(kept).collect()
    }

    /// Reads the keys, each of which must be as its last known write left it. After the keepalive, so that it cannot have gone
    /// unnoticed before.
    async fn prove(&self, some: &[&Easy]) -> Vec<Result<Proof>> {
        let looks: Vec<TxnOp> = some
            .iter()
            .map(|each| TxnOp::Get(Get { start: each.own.name.clone(), keys_only: true, ..Get::default() }))
            .collect();
        let answer = match self.txn(Txn::new().and_then(looks)).await {
            Ok(answer) if answer.gets.len() == some.len() => answer,
            Ok(_) => return some.iter().map(|_| Err(missing())).collect(),
            Err(trouble) => return some.iter().map(|_| Err(Error::from(trouble.clone()))).collect(),
        };
        let judge = |(each, get): (&&Easy, &Read)| {
            Ok(match get.kvs.first() {
                None => Proof::Gone,
                Some(kv) if kv.modified == each.own.modified && kv.lease == each.own.lease.id => Proof::Ours,
                Some(_) => Proof::Written,
            })
        };
        some.iter().zip(&answer.gets).map(judge).collect()
    }

    fn renewed(&self, renewal: &Renewal, each: &Easy, asked: Moment) -> Lease {
        let lease = &each.own.lease;
        self.registry.lives_on(renewal.claim.id(), lease);
        self.registry.update(renewal.claim.id(), |own| own.renewed = own.renewed.max(renewal.order));
        // Who asked for less than a whole second more must not count on the rest.
        Lease { fence: each.fence, left: lease.left(asked).min(renewal.ttl) }
    }

    /// A renewal that moves the claim to another lease, or of a claim of which little is known here.
    pub(crate) async fn renew_alone(&self, renewal: &Renewal, asked: Moment) -> Result<Lease> {
        let claim = &renewal.claim;
        let names = self.keys.of(claim.key());
        // One move of a claim at a time: a lease is only revoked when nothing may come to lie on it any more.
        let _one_at_a_time = self.moving(claim.id()).lock().await;
        let mut lease: Option<Arc<ServerLease>> = None;
        for _ in 0..TRIES {
            let mut view = self.read(&names).await?;
            if view.find(claim.id()).is_some_and(|seen| !seen.is_granted()) {
                // Its turn may have come by the end of a lease, which nobody has seen yet.
                view = self.settle(&names, view).await?;
            }
            let found = view.find(claim.id()).filter(|seen| seen.is_granted());
            let Some((seen, fence)) = found.and_then(|seen| Some((seen, self.fence(&view, seen)?))) else {
                if let Some(lease) = lease {
                    self.leases.give_back(&lease).await;
                }
                return Err(lost());
            };
            let known = self.registry.get(claim.id()).map_or(0, |own| own.renewed).max(seen.record.renewed);
            if renewal.order < known {
                return self.lease(&view, seen, asked).await?.ok_or_else(lost);
            }
            let lease = match &lease {
                Some(lease) => lease.clone(),
                None => lease.insert(self.lease_for(renewal, seen).await?).clone(),
            };
            let stays = lease.id == seen.lease;
            if stays && !lease.keep(&self.link, Duration::ZERO).await? {
                return Err(lost());
            }
            if stays && !self.registry.get(claim.id()).is_some_and(|own| own.moving) {
                // It lies there already, and nothing moves it from there: proven by one more look.
                let proof = self.read(&names).await?;
                if proof.find(claim.id()).is_some_and(|again| again.modified == seen.modified) {
                    self.lies_on(renewal, seen, seen.modified, fence, &lease).await;
                    return Ok(Lease { fence, left: lease.left(asked).min(renewal.ttl) });
                }
                continue;
            }
            if self.relocate(renewal, seen, fence, &lease).await? {
                return Ok(Lease { fence, left: lease.left(asked).min(renewal.ttl) });
            }
        }
        Err(crowded())
    }

    /// The lease that a renewed claim lies on from now on.
    async fn lease_for(&self, renewal: &Renewal, seen: &Seen) -> Result<Arc<ServerLease>> {
        let claim = &renewal.claim;
        if claim.kept() && renewal.ttl == claim.ttl() {
            return Ok(self
                .leases
                .shared(self.leases.seconds(renewal.ttl))
                .await
                .map_err(Trouble::beforehand)?);
        }
        let own = self.registry.get(claim.id()).map(|own| own.lease);
        let fits = |lease: &Arc<ServerLease>| {
            !lease.shared
                && lease.id == seen.lease
                && lease.ttl.as_secs() == self.leases.seconds(renewal.ttl).unsigned_abs()
        };
        match own.filter(fits) {
            Some(lease) => Ok(lease),
            None => Ok(self.leases.own(renewal.ttl).await.map_err(Trouble::beforehand)?),
        }
    }

    /// Writes the claim anew on another lease, guarded by its last write; `false` when it was written since.
    async fn relocate(
        &self,
        renewal: &Renewal,
        seen: &Seen,
        fence: Fence,
        lease: &Arc<ServerLease>,
    ) -> Result<bool> {
        let claim = &renewal.claim;
        let names = self.keys.of(claim.key());
        let mut record = seen.settled_record();
        record.granted = Some(Grant::of(fence));
        record.renewed = renewal.order;
        record.ttl = lease.ttl.as_secs();
        record.client.clone_from(&self.session);
        let mut writes = vec![put(seen.name.as_str(), record.encode(), lease.id)];
        if record.marked {
            writes.push(put(names.marker(&seen.name), "", lease.id));
        }
        let guard = [unchanged(&seen.name, seen.modified)];
        self.registry.update(seen.id, |own| {
            own.moving = true;
            own.waiting = Some(lease.clone());
        });
        let answer = self.txn(Txn::new().when(guard).and_then(writes)).await?;
        // Written by this request or by another one: what came before it and was guarded by less is late for ever.
        self.registry.update(seen.id, |own| own.moving = false);
        if !answer.succeeded {
            return Ok(false);
        }
        self.lies_on(renewal, seen, answer.revision, fence, lease).await;
        Ok(true)
    }

    /// Notes where a renewed claim lies, and gives its old lease back.
    async fn lies_on(
        &self,
        renewal: &Renewal,
        seen: &Seen,
        modified: i64,
        fence: Fence,
        lease: &Arc<ServerLease>,
    ) {
        let claim = &renewal.claim;
        if !self.registry.knows(claim.id()) {
            self.registry.adopt(claim, seen.name.clone(), modified, fence, lease.clone());
        }
        self.registry.stands(claim.id(), Standing::Granted(fence), modified);
        let mut left_behind = None;
        self.registry.update(claim.id(), |own| {
            own.renewed = own.renewed.max(renewal.order);
            // A later write, whose answer came sooner, may lie elsewhere: the next proof shows it. Nothing is revoked then.
            if modified >= own.modified {
                left_behind = Some(std::mem::replace(&mut own.lease, lease.clone()));
                own.waiting = None;
                own.expires = Moment::now().plus(lease.ttl);
            }
        });
        if let Some(old) = left_behind.filter(|old| old.id != lease.id) {
            self.leases.give_back(&old).await;
        }
    }
}

/// What a key was found to be.
enum Proof {
    Ours,
    Written,
    Gone,
}
