//! What all operations of one client share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use lockcore::{ClaimId, Fence, Lease, Result};

use crate::clock::Moment;
use crate::errors::Trouble;
use crate::front::Fronts;
use crate::keys::{Keys, Kind, Names};
use crate::leases::Leases;
use crate::link::Link;
use crate::registry::{Registry, Standing};
use crate::txn::{Answer, Get, Read, Txn, TxnOp, get, get_range};
use crate::view::{Seen, View};

/// How many of a lock's oldest claims an ordinary request looks at: more than commonly share it, or else all must be read.
const OLDEST: i64 = 32;

/// How often a transaction whose guard failed is decided anew.
pub(crate) const TRIES: usize = 64;

/// One client.
pub(crate) struct Core {
    pub(crate) link: Arc<Link>,
    pub(crate) keys: Keys,
    pub(crate) leases: Leases,
    pub(crate) registry: Registry,
    pub(crate) fronts: Fronts,
    /// The name under which the client hears of its claims.
    pub(crate) session: String,
    /// Held while a claim is moved from lease to lease.
    pub(crate) moves: [tokio::sync::Mutex<()>; MOVES],
}

const MOVES: usize = 64;

impl Core {
    /// What is held while this claim is moved.
    pub(crate) fn moving(&self, id: ClaimId) -> &tokio::sync::Mutex<()> {
        &self.moves[usize::try_from(id.to_bits() >> 122).unwrap_or_default() % MOVES]
    }

    /// A transaction. When a lease that it names is not there, nothing was done, and whoever tries again is given another.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        let answer = self.link.txn(txn).await;
        if answer.as_ref().is_err_and(|trouble| trouble.lease_gone) {
            self.leases.forget_missing().await;
        }
        answer
    }

    /// A transaction that deletes the key of a claim by its name alone. While it is not answered it may come at any time, and
    /// nobody else must have that name. `None`, and nothing is sent, when somebody else may have it already.
    pub(crate) async fn txn_by_name(
        &self,
        id: ClaimId,
        name: &str,
        txn: Txn,
    ) -> Option<Result<Answer, Trouble>> {
        if !self.registry.asks_by_name(id, name) {
            return None;
        }
        let answer = self.txn(txn).await;
        self.told_by_name(id, name, &answer);
        Some(answer)
    }

    /// The same for one that makes the key, if it is not there. A claim whose time is over meanwhile has a name that nobody will
    /// have again.
    pub(crate) async fn txn_to_join(&self, id: ClaimId, name: &str, txn: Txn) -> Result<Answer, Trouble> {
        let asked = self.registry.asks_by_name(id, name);
        let answer = self.txn(txn).await;
        if asked {
            self.told_by_name(id, name, &answer);
        }
        answer
    }

    fn told_by_name(&self, id: ClaimId, name: &str, answer: &Result<Answer, Trouble>) {
        if answer.as_ref().map_or_else(|trouble| trouble.lease_gone, |_| true) {
            self.registry.told_by_name(id, name);
        }
    }

    /// Reads all claims of a lock.
    pub(crate) async fn read(&self, names: &Names) -> Result<View> {
        let answer = self.txn(Txn::new().and_then([get_range(names.everything())])).await?;
        all(names, &answer, answer.gets.first())
    }

    /// Reads who is next, in most cases.
    pub(crate) async fn read_oldest(&self, names: &Names) -> Result<View> {
        let answer = self.txn(Txn::new().and_then(oldest(names))).await?;
        oldest_view(names, answer.revision, &answer.gets)
    }

    /// The fence of a holder: as it was told here, or else as it can be read.
    pub(crate) fn fence(&self, view: &View, seen: &Seen) -> Option<Fence> {
        let read = view.fence(seen)?;
        match self.registry.get(seen.id).map(|own| own.standing) {
            Some(Standing::Granted(told)) if told.token == read.token => Some(told),
            _ => Some(read),
        }
    }

    /// What is left of the lease that a claim of this client lies on, at `now`.
    pub(crate) fn known_left(&self, seen: &Seen, now: Moment) -> Option<Duration> {
        let own = self.registry.get(seen.id).filter(|own| own.lease.id == seen.lease)?;
        Some(own.left(now))
    }

    /// What a client may count on: what is surely left.
    pub(crate) async fn sure_left(&self, seen: &Seen, now: Moment) -> Result<Duration> {
        match self.known_left(seen, now) {
            Some(left) => Ok(left),
            None => Ok(self.link.time_to_live(seen.lease).await?.saturating_sub(Duration::from_secs(1))),
        }
    }

    /// A holder's lease, as its client is told; `None` for a waiter.
    pub(crate) async fn lease(&self, view: &View, seen: &Seen, now: Moment) -> Result<Option<Lease>> {
        let Some(fence) = self.fence(view, seen) else { return Ok(None) };
        Ok(Some(Lease { fence, left: self.sure_left(seen, now).await? }))
    }

    /// The read that finds a claim's key: by its name, if that is known, else among all.
    pub(crate) fn look(&self, names: &Names, id: ClaimId) -> TxnOp {
        self.registry.get(id).map_or_else(|| get_range(names.everything()), |own| get(own.name))
    }
}

/// The reads that tell who is next, in most cases: whether some stand out of turn, and the oldest claims.
pub(crate) fn oldest(names: &Names) -> [TxnOp; 2] {
    let (start, end) = names.all(Kind::Marker);
    let markers = Get { start, end: Some(end), count_only: true, ..Get::default() };
    let (first, behind) = names.everything();
    let oldest = Get { start: first, end: Some(behind), by_creation: true, limit: OLDEST, ..Get::default() };
    [TxnOp::Get(markers), TxnOp::Get(oldest)]
}

/// What the reads of [`oldest`] found.
pub(crate) fn oldest_view(names: &Names, revision: i64, gets: &[Read]) -> Result<View> {
    let [markers, oldest] = gets else { return Err(missing()) };
    let complete = i64::try_from(oldest.kvs.len()).is_ok_and(|read| read >= oldest.count);
    let mut view = View::read(names, revision, &oldest.kvs, complete)?;
    view.out_of_turn |= markers.count > 0;
    Ok(view)
}

/// What a read of everything found.
pub(crate) fn all(names: &Names, answer: &Answer, get: Option<&Read>) -> Result<View> {
    let get = get.ok_or_else(missing)?;
    View::read(names, answer.revision, &get.kvs, true)
}

/// The claim of this id, if the read of [`Core::look`] found it. Under its name there may come to be another one.
pub(crate) fn looked_up(
    names: &Names,
    id: ClaimId,
    answer: &Answer,
    get: Option<&Read>,
) -> Result<Option<Seen>> {
    let view = all(names, answer, get)?;
    Ok(view.find(id).cloned())
}

/// Whether a read found something.
pub(crate) fn there(get: Option<&Read>) -> bool {
    get.is_some_and(|get| !get.kvs.is_empty())
}

pub(crate) fn missing() -> lockcore::Error {
    Trouble::new(lockcore::ErrorKind::Other, "the server left out a part of its answer").error()
}

pub(crate) fn lost() -> lockcore::Error {
    Trouble::new(lockcore::ErrorKind::Lost, "the server does not know this claim as a holder").error()
}

/// Others write to this lock without a pause.
pub(crate) fn crowded() -> lockcore::Error {
    Trouble::new(lockcore::ErrorKind::Unavailable, "others changed the lock again and again meanwhile")
        .error()
}

/// How many requests are under way at once.
pub(crate) const AT_ONCE: usize = 32;

/// Does many requests, some at a time; their answers are in their order.
pub(crate) async fn together<F: Future>(requests: Vec<F>) -> Vec<F::Output> {
    stream::iter(requests).buffered(AT_ONCE).collect().await
}

/// A random name for a session.
pub(crate) fn session() -> String {
    ClaimId::random().to_string()[..16].to_owned()
}
