//! One partition as one client sees it: what it asks, and how it learns what became of that.
//!
//! A request is a record, and its answer is what the fold says when it comes to that record. Whether the append was
//! acknowledged decides nothing. As soon as a later record of the same session has counted, an earlier one that was not read
//! never will: then it is known that nothing happened.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Claim, ClaimId, Clock, Ending, Error, ErrorKind, Key, LocalTime, News, Result, Snapshot};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::errors::{self, Halt};
use crate::fold::{Answer, Replica};
use crate::keeper::Keeper;
use crate::log::{Append, Appending, Log};
use crate::record::{Id, MAX_RECORD_BYTES, Record};
use crate::registry::Registry;
use crate::scribe::Scribe;
use crate::what::{Renew, What};

/// A session that is not open after this time is begun anew; the next one after twice as long, up to the longest.
const OPENED_WITHIN: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(16);

/// From so many requests under way on, it is looked whether somebody still waits for them.
const MANY: usize = 1_024;

/// The client's side of one partition.
pub(crate) struct Core {
    pub(crate) log: Arc<dyn Log>,
    inner: Mutex<Inner>,
    /// Rung when the session has opened, and when all is over.
    pub(crate) opened: Notify,
    /// Rung when the worker has something new to wait for.
    pub(crate) nudged: Notify,
}

pub(crate) struct Inner {
    pub(crate) replica: Replica,
    /// How far the log has been read. What lies between the last record and here is none.
    pub(crate) read: u64,
    /// The end of the log, as last heard.
    pub(crate) end: u64,
    pub(crate) session: Session,
    /// What waits for its record to be read, by number.
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) registry: Registry,
    /// What the registry counts on.
    pub(crate) clock: Clock,
    pub(crate) keeper: Keeper,
    pub(crate) scribe: Scribe,
    pub(crate) over: Option<Over>,
}

/// The session under which this client speaks.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Id,
    seq: u64,
    /// Where the log ended when something was last said.
    pub(crate) said: u64,
    pub(crate) is_open: bool,
    /// How long its `Open` may take, and when another one is begun if it took longer.
    patience: Duration,
    pub(crate) begun_anew: Instant,
}

pub(crate) struct Pending {
    sent: LocalTime,
    /// The lock to be looked at when the record is read.
    look: Option<Key>,
    /// The claims that it renews and that were not read yet when it was sent: a process takes over what another one has let go.
    unread: Vec<Arc<Claim>>,
    tell: oneshot::Sender<Result<Answer>>,
}

/// Why nothing is asked any more.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    Halted(Halt),
    Closed,
}

impl Core {
    pub(crate) fn new(log: Arc<dyn Log>, replica: Replica, read: u64) -> Core {
        let session = Session::new(Duration::ZERO);
        let inner = Inner {
            replica,
            read,
            end: read,
            session,
            pending: BTreeMap::new(),
            registry: Registry::default(),
            clock: Clock::new(true),
            keeper: Keeper::default(),
            scribe: Scribe::default(),
            over: None,
        };
        Core { log, inner: Mutex::new(inner), opened: Notify::new(), nudged: Notify::new() }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record and answers what the fold says of it.
    pub(crate) async fn ask(&self, what: What) -> Result<Answer> {
        self.ask_about(what, None, Vec::new()).await
    }

    /// Renews claims, of which some were not read yet.
    pub(crate) async fn renew(&self, renew: Vec<Renew>, unread: Vec<Arc<Claim>>) -> Result<Answer> {
        self.ask_about(What::Heartbeat { renew }, None, unread).await
    }

    /// Who holds the lock of `key` and who waits, at one offset that lies within this call.
    pub(crate) async fn look(&self, key: Key) -> Result<Snapshot> {
        let Answer::Seen(snapshot) = self.ask_about(What::Barrier, Some(key), Vec::new()).await? else {
            return Err(errors::unexpected());
        };
        Ok(snapshot)
    }

    async fn ask_about(&self, what: What, look: Option<Key>, unread: Vec<Arc<Claim>>) -> Result<Answer> {
        let (tell, told) = oneshot::channel();
        let (seq, appending) = loop {
            self.session_open().await?;
            let mut inner = self.inner();
            // It may have ended meanwhile.
            if inner.session.is_open && inner.over.is_none() {
                let sent = inner.clock.now();
                let (seq, appending) = inner.append(&self.log, what)?;
                inner.pending.insert(seq, Pending { sent, look, unread, tell });
                inner.prune();
                break (seq, appending);
            }
        };
        tokio::select! {
            biased;
            told = told => told.unwrap_or_else(|_| Err(errors::session_over())),
            error = self.not_sent(seq, appending) => Err(error),
        }
    }

    /// Ends only if the record is not on its way, and never will be.
    async fn not_sent(&self, seq: u64, appending: Appending) -> Error {
        match appending.await {
            Err(Append::NotSent(why)) => {
                self.inner().pending.remove(&seq);
                return Error::new(ErrorKind::Unavailable, why);
            }
            Err(Append::Denied(why)) => {
                self.inner().pending.remove(&seq);
                return Error::new(ErrorKind::Denied, why);
            }
            // A record after it tells which it is: by then this one was read, or never will be.
            Err(Append::Doubtful(_)) => self.say(What::Barrier),
            Ok(()) => {}
        }
        std::future::pending().await
    }

    /// Appends a record of which nobody waits to hear.
    pub(crate) fn say(&self, what: What) {
        self.inner().say(&self.log, what);
    }

    /// Waits until the session is open.
    async fn session_open(&self) -> Result<()> {
        loop {
            let opened = self.opened.notified();
            {
                let mut inner = self.inner();
                match &inner.over {
                    Some(Over::Halted(halt)) => return Err(halt.clone().into()),
                    Some(Over::Closed) => return Err(errors::closed()),
                    None => {}
                }
                // One that was silent for too long would not be heard.
                if inner.session.is_open && !inner.replica.knows(inner.session.id) {
                    inner.open_session(&self.log);
                    self.nudged.notify_one();
                }
                if inner.session.is_open {
                    return Ok(());
                }
            }
            opened.await;
        }
    }

    /// What is told to those who wait here, after the lock is free: nothing is asked any more.
    pub(crate) fn end(&self, over: &Over) {
        let (unanswered, lost) = {
            let mut inner = self.inner();
            if inner.over.is_some() {
                return;
            }
            let lost = match over {
                Over::Halted(_) => inner.registry.ids(),
                // What is held stays until its lease runs out.
                Over::Closed => Vec::new(),
            };
            let lost: Vec<_> = lost.into_iter().filter_map(|id| inner.registry.remove(id)).collect();
            inner.over = Some(over.clone());
            (mem::take(&mut inner.pending), lost)
        };
        for pending in unanswered.into_values() {
            let error = match over {
                Over::Halted(halt) => Error::from(halt.clone()).with_kind(ErrorKind::Indeterminate),
                Over::Closed => errors::session_over(),
            };
            // The caller may have given up.
            drop(pending.tell.send(Err(error)));
        }
        for claim in lost {
            claim.ring(News::Ended(Ending::Expired));
        }
        self.opened.notify_waiters();
        self.nudged.notify_one();
    }
}

impl Session {
    fn new(patience: Duration) -> Session {
        let patience = patience.clamp(OPENED_WITHIN, LONGEST);
        let begun_anew = Instant::now() + patience;
        Session { id: Id::random(), seq: 0, said: 0, is_open: false, patience, begun_anew }
    }
}

impl Inner {
    /// Puts the next record of the session on its way.
    pub(crate) fn append(&mut self, log: &Arc<dyn Log>, what: What) -> Result<(u64, Appending)> {
        let key = what.identifier().cloned();
        let bytes = Record::new(self.session.id, self.session.seq + 1, what).encode();
        if bytes.len() > MAX_RECORD_BYTES {
            let message = format!("the record would have {} bytes, of {MAX_RECORD_BYTES}", bytes.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.session.seq += 1;
        self.session.said = self.end;
        Ok((self.session.seq, log.append(key.as_ref().map(Key::as_str), bytes)))
    }

    /// Forgets those who do not wait any more: while brokers are away they would become many.
    fn prune(&mut self) {
        if self.pending.len() >= MANY && self.pending.len().is_power_of_two() {
            self.pending.retain(|_, pending| !pending.tell.is_closed());
        }
    }

    /// Begins a new session. What was asked under the old one may still come to be in the log.
    pub(crate) fn open_session(&mut self, log: &Arc<dyn Log>) {
        for pending in mem::take(&mut self.pending).into_values() {
            // The caller may have given up.
            drop(pending.tell.send(Err(errors::session_over())));
        }
        self.scribe.stops();
        // As long as none is read, the log may be slower than that.
        let patience = if self.session.is_open { Duration::ZERO } else { self.session.patience * 2 };
        self.session = Session { said: self.end, ..Session::new(patience) };
        // It has begun: there is one.
        if let Some(genesis) = self.replica.genesis() {
            let open = Record::new(self.session.id, 0, genesis.open(self.end));
            drop(log.append(None, open.encode()));
        }
    }

    /// A record of this session has counted: its asker is told, and so are those whose records it has overtaken.
    pub(crate) fn answer(&mut self, seq: u64, what: &What, mut answer: Answer) {
        let later = self.pending.split_off(&seq);
        for overtaken in mem::replace(&mut self.pending, later).into_values() {
            drop(overtaken.tell.send(Err(errors::overtaken())));
        }
        if let Some(Pending { sent, look, unread, tell }) = self.pending.remove(&seq) {
            let is_there =
                |claim: &&Arc<Claim>| self.replica.lease(claim.id()).is_some() && !tell.is_closed();
            for claim in unread.iter().filter(is_there) {
                self.registry.add(claim);
            }
            self.count_from(sent, what, &mut answer);
            if let Some(key) = look {
                answer = Answer::Seen(self.replica.inspect(&key));
            }
            // The caller may have given up.
            drop(tell.send(Ok(answer)));
        }
    }

    /// A lease that the record has set counts from before the record was sent. One that it only reports counts as it did.
    fn count_from(&mut self, sent: LocalTime, what: &What, answer: &mut Answer) {
        use lockcore::{Attempt, Released};
        let sure = |registry: &Registry, id: ClaimId, left: Duration| left.min(registry.sure_left(id, sent));
        let registry = &mut self.registry;
        match (what, answer) {
            (What::Acquire(join), Answer::Attempt(attempt)) => match attempt {
                Attempt::Granted(lease) => registry.lease_set(join.claim, sent, lease.left),
                Attempt::Queued(queued) => {
                    registry.lease_set(join.claim, sent, queued.left);
                    // Whoever watches the leases ahead tells it.
                    queued.recheck = None;
                }
                Attempt::Busy | Attempt::Gone => drop(registry.remove(join.claim)),
            },
            (What::Heartbeat { renew }, Answer::Renewed(renewed)) => {
                for (renew, renewed) in renew.iter().zip(renewed) {
                    match renewed {
                        Ok(renewed) if renewed.set => {
                            registry.lease_set(renew.claim, sent, renewed.lease.left);
                        }
                        Ok(late) => late.lease.left = sure(registry, renew.claim, late.lease.left),
                        // It may wait; then it is still to hear of its grant.
                        Err(_) if self.replica.lease(renew.claim).is_some() => {}
                        Err(_) => drop(registry.remove(renew.claim)),
                    }
                }
            }
            (What::Convert(convert), Answer::Converted(Ok(attempt))) => match attempt {
                Attempt::Granted(lease) => lease.left = sure(registry, convert.claim, lease.left),
                Attempt::Queued(queued) => {
                    queued.left = sure(registry, convert.claim, queued.left);
                    queued.recheck = None;
                }
                Attempt::Busy | Attempt::Gone => {}
            },
            (What::Release(let_go), Answer::Released(released)) => match released {
                Released::Granted(lease) => lease.left = sure(registry, let_go.claim, lease.left),
                Released::Released | Released::NotHeld => drop(registry.remove(let_go.claim)),
            },
            _ => {}
        }
    }

    /// Who of this client's claims is to hear something.
    pub(crate) fn hears(&mut self, id: ClaimId, ended: bool) -> Option<Arc<Claim>> {
        if ended { self.registry.remove(id) } else { self.registry.claim(id).cloned() }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("log", &self.log).finish_non_exhaustive()
    }
}
