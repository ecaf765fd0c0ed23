//! The one task of a partition: reads the log, folds it, and does what falls due.

use std::sync::Arc;
use std::time::Duration;

use lockcore::state::Effect;
use lockcore::{Attempt, Claim, ClaimId, Ending, Key, News};
use tokio::time::{Instant, sleep_until};

use crate::checkpoint::Part;
use crate::core::{Core, Inner, Over};
use crate::errors::Halt;
use crate::fold::{Answer, Folded};
use crate::keeper::{Keeper, Patience, Proposal};
use crate::leases::Lease;
use crate::log::{Batch, Entry, Log, Reader};
use crate::newcomer::{self, Begun};
use crate::record::{MAX_RECORD_BYTES, Read, Record};
use crate::what::{Named, What};

/// How many signs of life a suspected holder gives within the grace, as long as none of them is read.
const SIGNS: u32 = 8;

/// A reader that is behind looks again after this time.
const CATCHING_UP: Duration = Duration::from_millis(200);

/// At most so many leases are named in one record.
const PROPOSALS: usize = 2_000;

/// With nothing due, the worker looks after this time nevertheless.
const IDLE: Duration = Duration::from_secs(3600);

/// Tells those who wait, and those who hold, that nobody reads any more.
struct IfItPanics<'c>(&'c Core);

impl Drop for IfItPanics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(&Over::Halted(Halt::Panicked));
        }
    }
}

/// What is told when the lock is free again.
type Told = Vec<(Arc<Claim>, News)>;

impl Core {
    /// Works until all is over.
    pub(crate) async fn work(self: Arc<Self>, mut reader: Box<dyn Reader>) {
        let _told = IfItPanics(&self);
        {
            let mut inner = self.inner();
            inner.watch_all();
            inner.open_session(&self.log);
        }
        loop {
            let due = {
                let inner = self.inner();
                if inner.over.is_some() {
                    return;
                }
                inner.due()
            };
            let read = tokio::select! {
                biased;
                read = reader.next() => Some(read),
                () = self.nudged.notified() => None,
                () = sleep_until(due) => None,
            };
            match read {
                Some(Ok(batch)) => {
                    for entry in &batch.entries {
                        if let Err(halt) = self.take_in(entry, batch.end) {
                            return self.halt(halt);
                        }
                    }
                    self.inner().has_read(&batch);
                    // There may always be more to read.
                    self.do_what_is_due();
                }
                // It has stood still for so long that what it was to read is not needed by others any more.
                Some(Err(Halt::Missing)) => match self.begin_again().await {
                    Ok(next) => reader = next,
                    Err(halt) => return self.halt(halt),
                },
                Some(Err(halt)) => return self.halt(halt),
                None => self.do_what_is_due(),
            }
        }
    }

    fn halt(&self, halt: Halt) {
        tracing::error!(%halt, log = ?self.log, "the log is read no further");
        self.end(&Over::Halted(halt));
    }

    /// Folds one record, and tells whom it concerns.
    fn take_in(&self, entry: &Entry, end: u64) -> Result<(), Halt> {
        let read = Record::decode(&entry.bytes)?;
        let (told, opened) = {
            let mut inner = self.inner();
            inner.end = end.max(entry.offset + 1);
            let folded = inner.replica.apply_read(entry.offset, entry.stamp, &read)?;
            let told = inner.follow(&folded);
            let opened = match &read {
                Read::Record(record) if record.session == inner.session.id => {
                    self.own_record(&mut inner, record, folded.answer)
                }
                Read::Record(_) | Read::Skipped => {
                    self.answer_suspicion(&mut inner, &folded.answer);
                    false
                }
            };
            (told, opened)
        };
        for (claim, news) in told {
            claim.ring(news);
        }
        if opened {
            self.opened.notify_waiters();
        }
        Ok(())
    }

    /// A record of this session; whether the session is open now.
    fn own_record(&self, inner: &mut Inner, record: &Record, answer: Answer) -> bool {
        if matches!(answer, Answer::NotCounted) {
            if !inner.replica.knows(record.session) && (inner.session.is_open || record.seq == 0) {
                inner.open_session(&self.log);
            }
            return false;
        }
        let opens = matches!(record.what, What::Open { .. });
        inner.session.is_open |= opens;
        self.answer_suspicion(inner, &answer);
        if let (What::Expire { leases, unanswered }, Answer::Lapsed(lapsed)) = (&record.what, &answer)
            && lapsed.len() < leases.len() + unanswered.len()
        {
            tracing::debug!(?leases, ?unanswered, ?lapsed, "not all of these leases are over for the log");
        }
        if let What::Checkpoint(part) = &record.what {
            inner.goes_on_writing(&self.log, part);
        }
        let in_the_way = matches!(answer, Answer::Attempt(Attempt::Queued(_) | Attempt::Busy));
        inner.answer(record.seq, &record.what, answer);
        if let What::Acquire(join) = &record.what
            && in_the_way
        {
            inner.hurry(&join.identifier);
        }
        opens
    }

    /// Somebody asks whether the holder of this client's claim lives.
    fn answer_suspicion(&self, inner: &mut Inner, answer: &Answer) {
        let Answer::Suspected(asked) = answer else { return };
        let now = inner.clock.now();
        let counts = |id: &ClaimId| !inner.registry.sure_left(*id, now).is_zero();
        let claims: Vec<ClaimId> = asked.iter().copied().filter(counts).collect();
        if !claims.is_empty() {
            inner.say(&self.log, What::Alive { claims });
        }
    }

    fn do_what_is_due(&self) {
        let mut inner = self.inner();
        let now = Instant::now();
        if !inner.session.is_open {
            if now >= inner.session.begun_anew {
                inner.open_session(&self.log);
            }
            return;
        }
        inner.propose_all(&self.log, now);
        // One that is silent for a whole window is over, and must be begun anew before it is heard.
        if inner.end.saturating_sub(inner.session.said) > inner.replica.window() / 2 {
            if inner.replica.knows(inner.session.id) {
                inner.say(&self.log, What::Barrier);
            } else {
                inner.open_session(&self.log);
            }
        }
        inner.write_checkpoint(&self.log, now);
        if let Some(offset) = inner.scribe.forgets(now) {
            self.log.forget(offset);
        }
    }

    /// Begins with a checkpoint once more. What was asked is not known any more, and claims that are not there are lost.
    async fn begin_again(&self) -> Result<Box<dyn Reader>, Halt> {
        let Begun { replica, reader, read } = newcomer::begin(&self.log).await?;
        let told: Told = {
            let mut inner = self.inner();
            if replica.genesis() != inner.replica.genesis() {
                return Err(Halt::Replaced);
            }
            (inner.read, inner.end) = (read, inner.end.max(read));
            inner.replica = replica;
            inner.watch_all();
            inner.open_session(&self.log);
            inner.look_again()
        };
        for (claim, news) in told {
            claim.ring(news);
        }
        Ok(reader)
    }
}

impl Inner {
    /// All of this is folded.
    fn has_read(&mut self, batch: &Batch) {
        (self.read, self.end) = (batch.next, batch.end.max(batch.next));
    }

    /// Takes note of what a record did.
    fn follow(&mut self, folded: &Folded) -> Told {
        let now = Instant::now();
        for &id in &folded.touched {
            self.watch(id, now);
        }
        if let Some(checkpoint) = &folded.checkpoint {
            self.scribe.takes(checkpoint, now);
        }
        let effects = folded.effects.iter().filter_map(|effect| match effect {
            Effect::Granted { claim, fence } => Some((self.hears(claim.id(), false)?, News::Granted(*fence))),
            Effect::Ended { claim, ending } => Some((self.hears(claim.id(), true)?, News::Ended(*ending))),
        });
        let told = effects.collect();
        for id in folded.touched.iter().filter(|id| self.replica.lease(**id).is_none()) {
            self.registry.remove(*id);
        }
        told
    }

    /// After a part of the log that was not read: claims that are not there any more have ended, and those that are may have
    /// been granted. One whose first request is under way was not there yet.
    fn look_again(&mut self) -> Told {
        let mut told = Told::new();
        for id in self.registry.ids() {
            if self.replica.lease(id).is_some() {
                told.extend(self.registry.claim(id).map(|claim| (claim.clone(), News::Look)));
            } else if self.registry.was_there(id) {
                told.extend(self.registry.remove(id).map(|claim| (claim, News::Ended(Ending::Expired))));
            }
        }
        told
    }

    /// Appends a record of which nobody waits to hear.
    pub(crate) fn say(&mut self, log: &Arc<dyn Log>, what: What) {
        if !self.session.is_open {
            return;
        }
        if let Err(error) = self.append(log, what) {
            tracing::warn!(%error, limit = MAX_RECORD_BYTES, "not said");
        }
    }

    fn due(&self) -> Instant {
        if !self.session.is_open {
            return self.session.begun_anew;
        }
        let due = self.keeper.due().into_iter().chain(self.scribe.due()).min();
        due.unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn watch_all(&mut self) {
        let (now, all): (_, Vec<ClaimId>) = (Instant::now(), self.replica.claims().collect());
        self.keeper = Keeper::default();
        for id in all {
            self.watch(id, now);
        }
    }

    fn watch(&mut self, id: ClaimId, now: Instant) {
        let cares = self.replica.key_of(id).is_some_and(|key| self.registry.cares_for(key));
        let (lease, patience) = (self.replica.lease(id), self.replica.patience());
        self.keeper.sees(id, lease, patience, cares, now);
        let is_suspected = lease.is_some_and(|lease| lease.suspected.is_some());
        if is_suspected && !self.registry.sure_left(id, self.clock.now()).is_zero() {
            self.keeper.postpone(id, now + patience.grace / SIGNS);
        }
    }

    /// Looks sooner at what is in the way of whoever asks for this key.
    fn hurry(&mut self, key: &Key) {
        let now = Instant::now();
        for id in self.replica.claims_on(key) {
            let lease = self.replica.lease(id);
            let over_by_stamps = lease.is_some_and(|lease| self.replica.is_over_by_stamps(lease));
            self.keeper.hurry(id, over_by_stamps, now);
        }
    }

    fn write_checkpoint(&mut self, log: &Arc<dyn Log>, now: Instant) {
        let is_behind = self.read < self.end;
        if let Some(part) = self.scribe.begins(&self.replica, is_behind, now) {
            self.say(log, What::Checkpoint(part));
        }
    }

    fn goes_on_writing(&mut self, log: &Arc<dyn Log>, read: &Part) {
        if let Some(next) = self.scribe.goes_on(read, &self.replica) {
            self.say(log, What::Checkpoint(next));
        } else if let Some(offset) = self.replica.deletable().filter(|_| read.number + 1 == read.of) {
            self.scribe.needs_from(offset, Instant::now());
        }
    }

    /// Proposes what is due: one record for all leases that are over, one for all who are asked whether they live.
    fn propose_all(&mut self, log: &Arc<dyn Log>, now: Instant) {
        let (mut over, mut unanswered, mut suspected, mut alive) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let longest = |lists: [usize; 4]| lists.into_iter().max().unwrap_or(0);
        while let Some(claim) = self.keeper.first_due(now)
            && longest([over.len(), unanswered.len(), suspected.len(), alive.len()]) < PROPOSALS
        {
            let Some(&lease) = self.replica.lease(claim) else {
                self.keeper.sees(claim, None, Patience::default(), false, now);
                continue;
            };
            let named = Named { claim, lease: lease.offset };
            match self.propose(claim, &lease, now) {
                Proposal::Nothing => {}
                Proposal::Alive => alive.push(claim),
                Proposal::Expire => over.push(named),
                Proposal::Silent => unanswered.push(named),
                Proposal::Suspect => suspected.push(named),
                Proposal::Both => {
                    over.push(named);
                    suspected.push(named);
                }
            }
        }
        if !alive.is_empty() {
            self.say(log, What::Alive { claims: alive });
        }
        if !(over.is_empty() && unanswered.is_empty()) {
            self.say(log, What::Expire { leases: over, unanswered });
        }
        if !suspected.is_empty() {
            self.say(log, What::Suspect { leases: suspected });
        }
    }

    fn propose(&mut self, claim: ClaimId, lease: &Lease, now: Instant) -> Proposal {
        let (over_by_stamps, grace) = (self.replica.is_over_by_stamps(lease), self.replica.patience().grace);
        let sure_left = self.registry.sure_left(claim, self.clock.now());
        if !sure_left.is_zero() {
            // Somebody here counts on it. A sign of life may be lost: it is given again until it was read.
            let is_suspected = lease.suspected.is_some();
            let next = if is_suspected { sure_left.min(grace / SIGNS) } else { sure_left };
            self.keeper.postpone(claim, now + next);
            return if is_suspected { Proposal::Alive } else { Proposal::Nothing };
        }
        if self.read < self.end {
            self.keeper.postpone(claim, now + CATCHING_UP);
            return Proposal::Nothing;
        }
        // Those of one key that are over almost together end together, so that none of them is handed to another.
        let also = self.replica.key_of(claim).map(|key| self.replica.claims_on(key)).unwrap_or_default();
        if let Some(until) = self.keeper.together(claim, &also, now) {
            self.keeper.postpone(claim, until);
            return Proposal::Nothing;
        }
        self.keeper.propose(claim, over_by_stamps, grace, now)
    }
}
