//! What a lock is, written from the rules a second time and without a thought for speed: one list, searched throughout.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockcore::state::Refusal;
use lockcore::{BreakTarget, Claim, Ending, FORGET_AFTER, Mode, Queue};

/// One claim as the model knows it: a holder has a token and a floor. Times are microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    claim: Arc<Claim>,
    mode: Mode,
    since: u64,
    pub(crate) expires: u64,
    renewed: u64,
    converted: u64,
    grant: Option<(u64, u64)>,
    upgrading: bool,
    /// It took over from a holder, so it waits ahead of whoever just arrived.
    ahead: bool,
}

/// All claims, the waiters among them in the order of service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) rows: Vec<Row>,
    pub(crate) remembered: BTreeMap<u128, u64>,
    pub(crate) last_token: u64,
    pub(crate) now: u64,
    pub(crate) told: Vec<Told>,
}

/// An effect: a claim with its token and floor, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Ended(u128, u8),
    Granted(u128, u64, u64),
}

/// Any command's answer, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted { token: u64, floor: u64, left: u64 },
    Queued { left: u64, recheck: Option<u64> },
    Busy,
    Gone,
    Refused(Refusal),
    Released,
    NotHeld,
    Broken(Vec<View>),
}

/// What a snapshot or a break shows: id, mode, token, age, time left, upgrading.
pub(crate) type View = (u128, Mode, Option<u64>, u64, u64, bool);

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

pub(crate) fn bits(claim: &Claim) -> u128 {
    claim.id().to_bits()
}

/// Whether claims of these modes may hold together: none is among more holders than it tolerates.
pub(crate) fn is_legal(modes: &[Mode]) -> bool {
    modes.iter().all(|mode| match mode {
        Mode::Exclusive => modes.len() == 1,
        Mode::Shared => true,
        Mode::Permit { at_most } => modes.len() <= at_most.get() as usize,
    })
}

impl Model {
    fn position(&self, id: u128) -> Option<usize> {
        self.rows.iter().position(|row| bits(&row.claim) == id)
    }

    fn holders(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.grant.is_some())
    }

    fn fits(&self, wanted: Mode) -> bool {
        is_legal(&self.holders().map(|row| row.mode).chain([wanted]).collect::<Vec<_>>())
    }

    fn grant(&mut self, at: usize) {
        self.last_token = self.now.max(self.last_token + 1);
        let token = self.last_token;
        self.rows[at].grant = Some((token, token));
        let floor = self.holders().filter_map(|row| row.grant).map(|(token, _)| token).min().unwrap();
        self.rows[at].grant = Some((token, floor));
        self.rows[at].since = self.now;
    }

    fn end(&mut self, doomed: impl Fn(&Row) -> bool, ending: Ending) {
        let now = self.now;
        for row in self.rows.iter().filter(|row| doomed(row)) {
            self.told.push(Told::Ended(bits(&row.claim), ending as u8));
            self.remembered.insert(bits(&row.claim), now + micros(FORGET_AFTER));
        }
        self.rows.retain(|row| !doomed(row));
    }

    /// S5: whoever may hold does.
    fn settle(&mut self) {
        loop {
            let next = if let Some(at) = self.rows.iter().position(|row| row.upgrading) {
                let alone = self.holders().count() == 1;
                alone.then(|| {
                    self.rows[at].upgrading = false;
                    self.rows[at].mode = Mode::Exclusive;
                    at
                })
            } else {
                let head = self.rows.iter().position(|row| row.grant.is_none());
                head.filter(|&at| self.fits(self.rows[at].mode))
            };
            let Some(at) = next else { return };
            self.grant(at);
            let (token, floor) = self.rows[at].grant.unwrap();
            self.told.push(Told::Granted(bits(&self.rows[at].claim), token, floor));
        }
    }

    /// S6: what has expired goes first.
    pub(crate) fn tidy(&mut self) {
        let now = self.now;
        self.remembered.retain(|_, &mut until| until > now);
        self.end(|row| row.expires <= now, Ending::Expired);
        self.settle();
    }

    fn answer(&self, id: u128) -> Answer {
        let Some(at) = self.position(id) else { return Answer::Gone };
        let row = &self.rows[at];
        let left = row.expires - self.now;
        let upgrade = self.rows.iter().any(|row| row.upgrading);
        match row.grant {
            Some((token, floor)) if !row.upgrading => Answer::Granted { token, floor, left },
            _ => {
                let is_head = !upgrade && self.rows[..at].iter().all(|row| row.grant.is_some());
                let recheck = self.holders().map(|row| row.expires - self.now).min();
                Answer::Queued { left, recheck: recheck.filter(|_| is_head || row.upgrading) }
            }
        }
    }

    pub(crate) fn acquire(&mut self, claim: &Arc<Claim>, queue: Queue) -> Answer {
        let (id, now) = (bits(claim), self.now);
        let waiting = now + micros(claim.waiter_ttl());
        if let Some(at) = self.position(id) {
            let row = &mut self.rows[at];
            row.expires = row.expires.max(waiting);
            return match row.grant {
                Some((token, floor)) => Answer::Granted { token, floor, left: row.expires - now },
                None => self.answer(id),
            };
        }
        if self.remembered.contains_key(&id) {
            return Answer::Gone;
        }
        let before = self.clone();
        let replaces = |row: &Row| claim.take_over() && row.claim.owner() == claim.owner();
        let from_holder = self.holders().any(replaces);
        let from_waiter = self.rows.iter().position(|row| row.grant.is_none() && replaces(row));
        // S16: in place of a holder, ahead of the queue; in place of a waiter, where the foremost stood; else at the tail.
        let (at, ahead) = match from_waiter {
            _ if from_holder => {
                let ordinary = self.rows.iter().position(|row| row.grant.is_none() && !row.ahead);
                (ordinary.unwrap_or(self.rows.len()), true)
            }
            Some(at) => (at, self.rows[at].ahead),
            None => (self.rows.len(), false),
        };
        let row = Row {
            claim: claim.clone(),
            mode: claim.mode(),
            since: now,
            expires: waiting,
            renewed: 0,
            converted: 0,
            grant: None,
            upgrading: false,
            ahead,
        };
        self.rows.insert(at, row);
        self.end(|row| replaces(row) && bits(&row.claim) != id, Ending::TakenOver);
        let at = self.position(id).unwrap();
        let first = self.rows[..at].iter().all(|row| row.grant.is_some());
        if first && !self.rows.iter().any(|row| row.upgrading) && self.fits(claim.mode()) {
            self.grant(at);
            self.rows[at].expires = now + micros(claim.ttl());
        } else if queue == Queue::Never {
            *self = before;
            return Answer::Busy;
        }
        self.settle();
        self.answer(id)
    }

    pub(crate) fn renew(&mut self, id: u128, ttl: u64, order: u64) -> Answer {
        let Some(at) = self.position(id).filter(|&at| self.rows[at].grant.is_some()) else {
            return Answer::Refused(Refusal::Lost);
        };
        if order >= self.rows[at].renewed {
            self.rows[at].renewed = order;
            self.rows[at].expires = self.now + ttl;
        }
        let (token, floor) = self.rows[at].grant.unwrap();
        Answer::Granted { token, floor, left: self.rows[at].expires - self.now }
    }

    pub(crate) fn convert(&mut self, id: u128, to: Mode, order: u64) -> Answer {
        let Some(at) = self.position(id).filter(|&at| self.rows[at].grant.is_some()) else {
            return Answer::Refused(Refusal::Lost);
        };
        let from = self.rows[at].mode;
        if order < self.rows[at].converted {
            return self.answer(id);
        }
        if from == to {
            self.rows[at].upgrading = false;
        } else if from == Mode::Exclusive {
            self.rows[at].mode = to;
        } else if to != Mode::Exclusive {
            return Answer::Refused(Refusal::Unsupported);
        } else if self.rows.iter().any(|row| row.upgrading && bits(&row.claim) != id) {
            return Answer::Refused(Refusal::WouldDeadlock);
        } else {
            self.rows[at].upgrading = true;
        }
        self.rows[at].converted = order;
        let told = self.told.len();
        self.settle();
        if self.rows[at].mode == Mode::Exclusive {
            // Granted at once: the answer says so, and nobody is told.
            self.told.truncate(told);
        }
        self.answer(id)
    }

    pub(crate) fn release(&mut self, id: u128, answered: bool, only_waiting: bool) -> Answer {
        let at = self.position(id);
        if let Some((at, (token, floor))) =
            at.and_then(|at| Some((at, self.rows[at].grant?))).filter(|_| only_waiting)
        {
            return Answer::Granted { token, floor, left: self.rows[at].expires - self.now };
        }
        if !answered {
            self.remembered.insert(id, self.now + micros(FORGET_AFTER));
        }
        let Some(at) = at else { return Answer::NotHeld };
        self.rows.remove(at);
        self.settle();
        Answer::Released
    }

    pub(crate) fn break_claims(&mut self, target: &BreakTarget) -> Answer {
        let named = |row: &Row| match target {
            BreakTarget::Claim(id) => row.claim.id() == *id,
            BreakTarget::Token(token) => row.grant.is_some_and(|(each, _)| each == token.get()),
            BreakTarget::Owner(owner) => row.claim.owner() == Some(owner),
            BreakTarget::Holders => row.grant.is_some(),
            BreakTarget::All => true,
        };
        let mut broken: Vec<View> =
            self.rows.iter().filter(|row| named(row)).map(|row| self.view(row)).collect();
        broken.sort_by_key(|view| (view.2.is_none(), view.2, view.0));
        self.end(named, Ending::Broken);
        self.settle();
        Answer::Broken(broken)
    }

    pub(crate) fn view(&self, row: &Row) -> View {
        let token = row.grant.map(|(token, _)| token);
        (bits(&row.claim), row.mode, token, self.now - row.since, row.expires - self.now, row.upgrading)
    }
}
