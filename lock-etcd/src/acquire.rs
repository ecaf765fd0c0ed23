//! Joining a lock: one transaction decides.

use std::sync::Arc;

use lockcore::{
    Attempt, Claim, Error, ErrorKind, Fence, FencingToken, Lease, Mode, Queue, Release, Renewal, Result,
};

use crate::clock::Moment;
use crate::core::{Core, TRIES, all, crowded, missing, oldest, oldest_view, there};
use crate::errors::afterwards;
use crate::keys::{Kind, Names};
use crate::leases::Lease as ServerLease;
use crate::record::Record;
use crate::registry::Standing;
use crate::txn::{Answer, Compare, Read, Txn, TxnOp, absent, empty, get, get_range, put};
use crate::view::View;

/// The two leases that a joining claim may lie on: granted at once, and waiting.
pub(crate) struct Leases {
    pub(crate) hold: Arc<ServerLease>,
    pub(crate) wait: Arc<ServerLease>,
}

/// What a join found.
enum Joined {
    Granted {
        revision: i64,
        floor: u64,
    },
    Queued {
        view: View,
        settle: bool,
    },
    Busy,
    Gone,
    /// The lease that it was to lie on is not there.
    NoLease,
    /// It is there already: an earlier request of it arrived.
    Known,
    /// The rule for it is more than one transaction can say.
    Unclear,
}

impl Core {
    pub(crate) async fn acquire(&self, claim: &Arc<Claim>, queue: Queue) -> Result<Attempt> {
        let asked = Moment::now();
        self.registry.listen(claim);
        if let Some(own) = self.registry.get(claim.id())
            && own.standing != Standing::Joining
        {
            return self.heartbeat(claim, own, asked).await;
        }
        for _ in 0..TRIES {
            if let Some(attempt) = self.join_once(claim, queue, asked).await? {
                return Ok(attempt);
            }
        }
        Err(crowded())
    }

    /// One try to join; `None` when the lease that it was to lie on is not there.
    async fn join_once(&self, claim: &Arc<Claim>, queue: Queue, asked: Moment) -> Result<Option<Attempt>> {
        let names = self.keys.of(claim.key());
        let leases = self.prepare(claim, queue).await?;
        let name = names.of(Kind::of(claim.mode()), claim.id());
        let is_new = !self.registry.knows(claim.id());
        if is_new {
            // Before the request: its grant may be told before the request is answered.
            self.registry.join(claim, name.clone(), leases.hold.clone(), leases.wait.clone());
        }
        let joined = if claim.take_over() || matches!(claim.mode(), Mode::Permit { .. }) {
            Ok(Joined::Unclear)
        } else {
            self.join(claim, &names, &name, &leases, queue).await
        };
        let attempt = match joined {
            Ok(Joined::Granted { revision, floor }) => {
                Ok(Some(self.joined_granted(claim, &leases, revision, floor, asked).await))
            }
            Ok(Joined::Queued { view, settle }) => {
                self.joined_queued(claim, &names, &leases, view, settle, asked).await.map(Some)
            }
            Ok(Joined::Busy) => Ok(Some(Attempt::Busy)),
            Ok(Joined::Gone) => Ok(Some(Attempt::Gone)),
            Ok(Joined::NoLease) => Ok(None),
            Ok(Joined::Known) => self.known(claim, &names, asked).await.map(Some),
            Ok(Joined::Unclear) => self.join_slowly(claim, &names, &name, &leases, queue, asked).await,
            Err(error) => Err(error),
        };
        let attempt = match attempt {
            Ok(Some(attempt)) => Ok(attempt),
            Ok(None) if is_new => {
                self.registry.remove(claim.id());
                return Ok(None);
            }
            // An earlier copy of this request may still come, and lie on the other lease.
            Ok(None) => self.is_gone(claim, &names).await,
            Err(error) if self.is_there(claim) => Err(self.take_back(claim, error).await),
            Err(error) => Err(error),
        };
        let stays = match &attempt {
            Ok(Attempt::Granted(_) | Attempt::Queued(_)) => true,
            Ok(Attempt::Busy | Attempt::Gone) => false,
            // It may be there, by this request or by an earlier one; its release takes it out.
            Err(error) => !is_new || error.may_have_happened(),
        };
        if !stays && self.registry.get(claim.id()).is_some_and(|own| own.standing == Standing::Joining) {
            self.registry.remove(claim.id());
            self.leases.give_back(&leases.hold).await;
            if leases.wait.id != leases.hold.id {
                self.leases.give_back(&leases.wait).await;
            }
        }
        attempt.map(Some)
    }

    /// Whether the claim was written by a request that was answered.
    fn is_there(&self, claim: &Claim) -> bool {
        self.registry.get(claim.id()).is_some_and(|own| own.standing != Standing::Joining)
    }

    /// A join that was written cannot be answered. Who tries again finds it; who does not must not leave it behind.
    async fn take_back(&self, claim: &Arc<Claim>, error: Error) -> Error {
        if error.is_retryable() || error.kind() == ErrorKind::Closed {
            return afterwards(error);
        }
        let release = Release { claim: claim.clone(), answered: true, only_waiting: false };
        match Box::pin(self.release(&release)).await {
            Ok(_) => error,
            Err(_) => afterwards(error),
        }
    }

    /// The leases of a claim, of which it may be unknown whether they were made. Those that an earlier request of it has used, so
    /// that a late copy lies on no other.
    async fn prepare(&self, claim: &Claim, queue: Queue) -> Result<Leases> {
        if let Some(own) = self.registry.get(claim.id()) {
            let wait = own.waiting.clone().unwrap_or_else(|| own.lease.clone());
            return Ok(Leases { hold: own.lease, wait });
        }
        let hold = self.leases.for_claim(claim, claim.ttl()).await?;
        let same = self.leases.seconds(claim.ttl()) == self.leases.seconds(claim.waiter_ttl());
        if same || queue == Queue::Never {
            return Ok(Leases { wait: hold.clone(), hold });
        }
        let wait = self.leases.for_claim(claim, claim.waiter_ttl()).await?;
        Ok(Leases { hold, wait })
    }

    /// One transaction: granted if nobody who conflicts is there, else queued.
    async fn join(
        &self,
        claim: &Claim,
        names: &Names,
        name: &str,
        leases: &Leases,
        queue: Queue,
    ) -> Result<Joined> {
        let exclusive = claim.mode().is_exclusive();
        let unknown = [absent(name), absent(names.ended(claim.id()))];
        let mut free: Vec<Compare> = unknown.to_vec();
        if exclusive {
            free.push(empty(names.everything()));
        } else {
            free.push(empty(names.all(Kind::Permit)));
            free.push(empty(names.out_of_turn_and_exclusive()));
        }
        let granted = Record::new(claim, &self.session, leases.hold.ttl).granted(0);
        let mut grant = vec![put(name, granted.encode(), leases.hold.id)];
        if !exclusive {
            grant.push(get_range(names.all(Kind::Shared)));
        }
        let looks = || [get(name), get(names.ended(claim.id()))];
        let otherwise: Vec<TxnOp> = if queue == Queue::Never {
            looks().into_iter().chain(oldest(names)).collect()
        } else {
            let queued = Record::new(claim, &self.session, leases.wait.ttl);
            let mut enter = vec![put(name, queued.encode(), leases.wait.id)];
            enter.extend(oldest(names));
            vec![TxnOp::Txn(Txn::new().when(unknown).and_then(enter).or_else(looks()))]
        };
        let txn = Txn::new().when(free).and_then(grant).or_else(otherwise);
        let answer = match self.txn(txn).await {
            Err(trouble) if trouble.lease_gone => return Ok(Joined::NoLease),
            answer => answer?,
        };
        let entered = answer.inner.as_ref().is_some_and(|(entered, _)| *entered);
        if answer.succeeded || entered {
            // Before anything else can fail.
            self.registry.stands(claim.id(), Standing::Queued, answer.revision);
        }
        if answer.succeeded {
            let floor = if exclusive { 0 } else { smallest(names, &answer, claim)? };
            return Ok(Joined::Granted { revision: answer.revision, floor });
        }
        let gets = answer.inner.as_ref().map_or(&answer.gets, |(_, gets)| gets);
        if entered {
            let view = oldest_view(names, answer.revision, gets)?;
            // Whoever waits behind an exclusive claim does; others may be let in by a rule.
            let settle = !exclusive && !view.has_exclusive();
            return Ok(Joined::Queued { view, settle });
        }
        join_refused(names, claim, answer.revision, gets)
    }

    async fn joined_granted(
        &self,
        claim: &Arc<Claim>,
        leases: &Leases,
        revision: i64,
        floor: u64,
        asked: Moment,
    ) -> Attempt {
        let fence = granted_by(revision, floor);
        let hold = leases.hold.clone();
        self.registry.update(claim.id(), |own| {
            own.lease = hold.clone();
            own.waiting = None;
            own.expires = Moment::now().plus(hold.ttl);
        });
        self.registry.stands(claim.id(), Standing::Granted(fence), revision);
        if leases.wait.id != leases.hold.id {
            self.leases.give_back(&leases.wait).await;
        }
        Attempt::Granted(Lease { fence, left: leases.hold.left(asked) })
    }

    async fn joined_queued(
        &self,
        claim: &Arc<Claim>,
        names: &Names,
        leases: &Leases,
        view: View,
        settle: bool,
        asked: Moment,
    ) -> Result<Attempt> {
        let wait = leases.wait.clone();
        self.registry.update(claim.id(), |own| {
            own.lease = wait.clone();
            own.waiting = None;
            own.expires = Moment::now().plus(wait.ttl);
        });
        self.registry.stands(claim.id(), Standing::Queued, view.revision);
        if leases.wait.id != leases.hold.id {
            self.leases.give_back(&leases.hold).await;
        }
        if !settle {
            return self.answer(claim, &view, asked, false).await;
        }
        let view = self.settle_for(names, view, claim).await?;
        let attempt = self.answer(claim, &view, asked, false).await?;
        if matches!(attempt, Attempt::Granted(_)) && leases.wait.id != leases.hold.id {
            // Granted by this very request: then it is the ttl that counts, not the waiter's.
            let renewal = Renewal { claim: claim.clone(), ttl: claim.ttl(), order: 0 };
            return match self.renew_alone(&renewal, asked).await {
                Ok(lease) => Ok(Attempt::Granted(lease)),
                Err(error) if error.kind() == ErrorKind::Lost => self.is_gone(claim, names).await,
                // Its first renewal does that.
                Err(_) => Ok(attempt),
            };
        }
        Ok(attempt)
    }

    /// An earlier request of the claim arrived: how it stands.
    async fn known(&self, claim: &Arc<Claim>, names: &Names, asked: Moment) -> Result<Attempt> {
        let view = self.read(names).await?;
        let view = self.settle(names, view).await?;
        if let Some(seen) = view.find(claim.id()) {
            self.found(claim, &view, seen).await;
        }
        self.answer(claim, &view, asked, false).await
    }

    /// Takes in what the server has of a claim that was joining. One that lies on none of our leases is another client's.
    pub(crate) async fn found(&self, claim: &Claim, view: &View, seen: &crate::view::Seen) {
        let Some(own) = self.registry.get(claim.id()) else { return };
        let candidates = [Some(own.lease.clone()), own.waiting.clone()];
        let lease = candidates.iter().flatten().find(|lease| lease.id == seen.lease).cloned();
        if let Some(lease) = &lease {
            let standing = view.fence(seen).map_or(Standing::Queued, Standing::Granted);
            self.registry.update(claim.id(), |own| {
                own.lease = lease.clone();
                own.waiting = None;
            });
            self.registry.stands(claim.id(), standing, seen.modified);
        } else {
            self.registry.remove(claim.id());
        }
        let waiting = own.waiting.filter(|waiting| waiting.id != own.lease.id);
        for unused in [Some(own.lease), waiting].into_iter().flatten().filter(|each| each.id != seen.lease) {
            self.leases.give_back(&unused).await;
        }
    }
}

/// The fence of a claim that the write of this revision granted; no floor is its token.
pub(crate) fn granted_by(revision: i64, floor: u64) -> Fence {
    let token = FencingToken::new(revision.unsigned_abs()).unwrap_or(FencingToken::FIRST);
    Fence { token, floor: FencingToken::new(floor).unwrap_or(token).min(token) }
}

/// The smallest token among the readers that are there, of whom the claim is one by now.
fn smallest(names: &Names, answer: &Answer, claim: &Claim) -> Result<u64> {
    let mut view = all(names, answer, answer.gets.first())?;
    view.claims.retain(|seen| seen.id != claim.id());
    Ok(view.floor())
}

/// Why a claim was neither granted nor queued.
fn join_refused(names: &Names, claim: &Claim, revision: i64, gets: &[Read]) -> Result<Joined> {
    let [own, ended, rest @ ..] = gets else { return Err(missing()) };
    if there(Some(own)) {
        return Ok(Joined::Known);
    }
    if there(Some(ended)) {
        return Ok(Joined::Gone);
    }
    if claim.mode().is_exclusive() || oldest_view(names, revision, rest)?.has_exclusive() {
        return Ok(Joined::Busy);
    }
    Ok(Joined::Unclear)
}
