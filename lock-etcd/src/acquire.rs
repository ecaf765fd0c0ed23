//! Joining a lock: one transaction decides.

use std::sync::Arc;

use lockcore::{Attempt, Claim, Error, ErrorKind, Lease, Mode, Queue, Queued, Release, Renewal, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, all, crowded, missing, oldest, oldest_view, there};
use crate::errors::afterwards;
use crate::keys::{Kind, Names};
use crate::leases::Lease as ServerLease;
use crate::record::Record;
use crate::registry::Standing;
use crate::token;
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
    /// Behind others, of whom was read who is first; or that it is not this one.
    Queued {
        revision: i64,
        view: Option<View>,
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
        let known = self.registry.get(claim.id()).map(|own| own.name);
        let is_new = known.is_none();
        // Before the request: its grant may be told before the request is answered.
        let join = || self.registry.join(claim, &names, leases.hold.clone(), leases.wait.clone());
        let name = known.unwrap_or_else(join);
        let joined = if claim.take_over() || matches!(claim.mode(), Mode::Permit { .. }) {
            Ok(Joined::Unclear)
        } else {
            self.join(claim, &names, &name, &leases, queue).await
        };
        let attempt = match joined {
            Ok(Joined::Granted { revision, floor }) => {
                Ok(Some(self.joined_granted(claim, &leases, revision, floor, asked).await))
            }
            Ok(Joined::Queued { revision, view }) => {
                self.joined_queued(claim, &names, &leases, (revision, view), asked).await.map(Some)
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
                self.registry.vacate(claim.id());
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
            if matches!(attempt, Ok(Attempt::Gone)) {
                // Perhaps because of what somebody put under its name.
                self.registry.remove(claim.id());
            } else {
                self.registry.vacate(claim.id());
            }
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

    /// One transaction: granted if nobody who conflicts is there, else queued. Where nobody is expected, what is to be done
    /// else is only sent when it is needed.
    async fn join(
        &self,
        claim: &Claim,
        names: &Names,
        name: &str,
        leases: &Leases,
        queue: Queue,
    ) -> Result<Joined> {
        let front = self.fronts.of(claim.key());
        if front.is_none() && queue == Queue::Join {
            let joined = self.ask_to_join(claim, name, self.join_free(claim, names, name, leases)).await;
            match joined? {
                Some(answer) if answer.succeeded => return joined_free(names, claim, &answer),
                Some(_) => {}
                None => return Ok(Joined::NoLease),
            }
        }
        let (ended, mut txn) = (names.ended(claim.id()), self.join_free(claim, names, name, leases));
        let looks = || [get(name), get(ended.as_str())];
        let hindmost = front.as_ref().and_then(|front| front.hindmost());
        txn.otherwise = if queue == Queue::Never {
            looks().into_iter().chain(oldest(names)).collect()
        } else {
            let queued = Record::new(claim, &self.session, leases.wait.ttl);
            let mut enter = vec![put(name, queued.encode(), leases.wait.id)];
            match hindmost {
                Some(seen) => enter.push(get(seen.name.as_str())),
                None => enter.extend(oldest(names)),
            }
            let unknown = [absent(name), absent(ended.as_str())];
            vec![TxnOp::Txn(Txn::new().when(unknown).and_then(enter).or_else(looks()))]
        };
        if let Some(seen) = hindmost.filter(|_| claim.mode().is_exclusive()) {
            // One of those who must not be there, and the server need not look at the others.
            txn.when.insert(0, absent(seen.name.as_str()));
        }
        let Some(answer) = self.ask_to_join(claim, name, txn).await? else { return Ok(Joined::NoLease) };
        if answer.succeeded {
            return joined_free(names, claim, &answer);
        }
        let revision = answer.revision;
        match &answer.inner {
            Some((true, gets)) => {
                let ahead = gets.first().and_then(|get| get.kvs.first());
                let view = match hindmost {
                    Some(seen) if ahead.is_some_and(|kv| kv.modified == seen.modified) => None,
                    Some(_) => Some(self.read_oldest(names).await?),
                    None => Some(oldest_view(names, revision, gets)?),
                };
                Ok(Joined::Queued { revision, view })
            }
            Some((false, gets)) => join_refused(names, claim, revision, gets),
            None => join_refused(names, claim, revision, &answer.gets),
        }
    }

    /// The transaction that joins a lock on which nobody conflicts.
    fn join_free(&self, claim: &Claim, names: &Names, name: &str, leases: &Leases) -> Txn {
        let exclusive = claim.mode().is_exclusive();
        let mut free: Vec<Compare> = vec![absent(names.ended(claim.id()))];
        if exclusive {
            free.push(empty(names.everything()));
        } else {
            free.push(absent(name));
            free.push(empty(names.all(Kind::Permit)));
            free.push(empty(names.out_of_turn_and_exclusive()));
        }
        let granted = Record::new(claim, &self.session, leases.hold.ttl).granted(0, 0);
        let mut grant = vec![put(name, granted.encode(), leases.hold.id)];
        if !exclusive {
            grant.push(get_range(names.all(Kind::Shared)));
        }
        Txn::new().when(free).and_then(grant)
    }

    /// Sends a transaction that joins; `None` when the lease that the claim was to lie on is not there.
    async fn ask_to_join(&self, claim: &Claim, name: &str, txn: Txn) -> Result<Option<Answer>> {
        let answer = match self.txn_to_join(claim.id(), name, txn).await {
            Err(trouble) if trouble.lease_gone => return Ok(None),
            answer => answer?,
        };
        if answer.succeeded || answer.inner.as_ref().is_some_and(|(entered, _)| *entered) {
            // Before anything else can fail.
            self.registry.stands(claim.id(), Standing::Queued, answer.revision);
        }
        Ok(Some(answer))
    }

    async fn joined_granted(
        &self,
        claim: &Arc<Claim>,
        leases: &Leases,
        revision: i64,
        floor: u64,
        asked: Moment,
    ) -> Attempt {
        let fence = token::fence(revision, 0, floor);
        let hold = leases.hold.clone();
        self.registry.update(claim.id(), |own| {
            own.lease = hold.clone();
            own.waiting = None;
            own.expires = Moment::now().plus(hold.ttl);
        });
        self.registry.stands(claim.id(), Standing::Granted(fence), revision);
        self.registry.is_alone_by(claim, revision);
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
        (revision, view): (i64, Option<View>),
        asked: Moment,
    ) -> Result<Attempt> {
        let wait = leases.wait.clone();
        self.registry.update(claim.id(), |own| {
            own.lease = wait.clone();
            own.waiting = None;
            own.expires = Moment::now().plus(wait.ttl);
        });
        self.registry.stands(claim.id(), Standing::Queued, revision);
        if leases.wait.id != leases.hold.id {
            self.leases.give_back(&leases.hold).await;
        }
        let Some(view) = view else {
            let left = leases.wait.left(asked);
            return Ok(Attempt::Queued(Queued { left, recheck: None }));
        };
        self.fronts.saw(claim.key(), view.clone());
        // Whoever waits behind an exclusive claim does; others may be let in by a rule.
        if claim.mode().is_exclusive() || view.has_exclusive() {
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

/// The grant of a claim that found nobody who conflicts.
fn joined_free(names: &Names, claim: &Claim, answer: &Answer) -> Result<Joined> {
    let floor = if claim.mode().is_exclusive() { 0 } else { smallest(names, answer, claim)? };
    Ok(Joined::Granted { revision: answer.revision, floor })
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
    let view = oldest_view(names, revision, rest)?;
    if view.find(claim.id()).is_some() {
        return Ok(Joined::Known);
    }
    if claim.mode().is_exclusive() || view.has_exclusive() {
        return Ok(Joined::Busy);
    }
    Ok(Joined::Unclear)
}
