//! The time in which the child runs: it is watched, its lease is watched, and signals are handed on.

use std::io;
use std::time::Duration;

use fencelock::{Any, LockGuard};
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use tokio::signal::unix::{self, SignalKind};

use crate::child::Workload;
use crate::clock::{Alarm, Moment};
use crate::leash::{Due, Leash};
use crate::signals::Signals;
use crate::terminal::Terminal;
use crate::tidings::Renewals;
use crate::voice::{say, tell};
use crate::watch::Guardian;

/// How often the rest of an ending group is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long to wait for what KILL has hit: only what hangs in the kernel is still there then.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// How long a child may take to stop of its own accord.
const TO_STOP: Duration = Duration::from_millis(200);

/// The child's end. Whether, and how, the lock was lost before it.
pub(crate) type Loss = Option<String>;

/// What a supervisor looks after.
pub(crate) struct Supervisor<'s> {
    pub(crate) guard: &'s LockGuard<Any>,
    pub(crate) child: &'s Workload,
    pub(crate) guardian: &'s Guardian,
    pub(crate) signals: &'s mut Signals,
    /// How long the child has between TERM and KILL.
    pub(crate) grace: Duration,
    /// How long before the end of the lease the child must be gone.
    pub(crate) margin: Duration,
    /// How often to look whether the lease was renewed.
    pub(crate) tick: Duration,
    pub(crate) terminal: Terminal,
}

impl Supervisor<'_> {
    /// Lets the child run, and comes back when it has ended: by itself, or because the lock was lost.
    ///
    /// # Errors
    /// When the system refuses what is needed to watch. The child may still run then.
    pub(crate) async fn run(self) -> io::Result<Loss> {
        let mut children = unix::signal(SignalKind::child())?;
        let alarm = Alarm::new()?;
        let mut leash = Leash::new(self.deadline(), self.grace);
        let mut loss = None;
        let mut forward = None;
        let mut told = Moment::from_nanos(0);
        let mut guarded = true;
        let mut renewals = Renewals::new(self.guard.ttl(), self.deadline());
        self.look(&mut leash, &mut loss);
        if !leash.is_ending() {
            self.child.begin();
        }
        loop {
            // After a pause of whatever length this comes first: no signal, CONT above all, reaches the child before
            // the clocks were compared.
            self.look(&mut leash, &mut loss);
            if let Some(signal) = forward.take() {
                self.forward(signal, &leash).await;
            }
            let now = Moment::now();
            if leash.is_ending() {
                if self.child.has_ended() && !self.child.anything_runs() || is_stuck(&leash, now) {
                    break;
                }
            } else if self.child.has_ended() {
                // It may have ended in time, or not: what counts is that nobody can tell.
                if let Err(error) = self.guard.ensure(Duration::ZERO) {
                    loss = Some(error.message().to_owned());
                }
                break;
            }
            let deadline = self.deadline();
            if !leash.is_ending()
                && let Some(news) = renewals.look(self.guard.key(), deadline, now)
            {
                tell(news);
            }
            if guarded && !leash.is_ending() && deadline > told {
                told = deadline;
                guarded = self.guardian.tell(deadline);
                if !guarded {
                    say(
                        "the guardian process was killed: do not kill this one with KILL too, or the command goes on",
                    );
                }
            }
            let again = now.plus(if leash.is_ending() { LOOK } else { self.tick });
            tokio::select! {
                signal = self.signals.next() => forward = Some(signal),
                _ = children.recv() => self.see_stop(),
                _ = self.guard.lost(), if !leash.is_ending() => {}
                rang = alarm.at(leash.next().min(again)) => rang?,
            }
        }
        self.terminal.take_from(self.child.group());
        Ok(loss)
    }

    /// Until when the child may run, as far as is known now.
    fn deadline(&self) -> Moment {
        let now = Moment::now();
        now.plus(self.guard.remaining()).minus(self.margin)
    }

    /// Compares clocks, and does to the child what is due.
    fn look(&self, leash: &mut Leash, loss: &mut Loss) {
        let held = self.guard.ensure(Duration::ZERO);
        if !leash.is_ending() {
            match &held {
                Ok(()) => leash.renewed(self.deadline()),
                Err(error) => {
                    leash.cut(Moment::now());
                    *loss = Some(error.message().to_owned());
                }
            }
        }
        match leash.due(Moment::now()) {
            Due::Nothing => return,
            Due::Kill => self.child.signal(Signal::KILL),
            Due::Term => {
                self.child.signal(Signal::TERM);
                if held.is_ok() {
                    // A stopped child may use what is left of the lease to end in good order.
                    self.child.signal(Signal::CONT);
                }
            }
        }
        let why = loss.get_or_insert_with(|| "the lease could not be renewed in time".into());
        let key = self.guard.key();
        if leash.is_killed() {
            say(format_args!("lock {key:?} lost: {why}; killed the command"));
        } else {
            say(format_args!("lock {key:?} lost: {why}; ending the command"));
        }
    }

    /// Hands a signal on to the child.
    async fn forward(&self, signal: Signal, leash: &Leash) {
        if signal == Signal::TSTP {
            self.stop_together().await;
            return;
        }
        if signal == Signal::CONT && leash.is_ending() {
            return;
        }
        self.child.signal(signal);
        if matches!(signal, Signal::TERM | Signal::HUP) && !leash.is_ending() {
            // A stopped child would not hear it.
            self.child.signal(Signal::CONT);
        }
    }

    /// Stops the child, then ourselves: the job is stopped. Comes back when it is continued.
    async fn stop_together(&self) {
        self.terminal.take_from(self.child.group());
        // It acts alone while we are stopped.
        self.guardian.tell(self.deadline());
        self.child.signal(Signal::TSTP);
        let until = Moment::now().plus(TO_STOP);
        while self.child.stopped().is_none() && !self.child.has_ended() && Moment::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Whoever caught that signal, or is a grandchild: nothing runs while nobody renews.
        self.child.signal(Signal::STOP);
        let _ = kill_process(getpid(), Signal::STOP);
    }

    /// Sees to a child that was stopped because of the terminal; who was stopped for another reason stays so.
    fn see_stop(&self) {
        let Some(stop) = self.child.stopped() else { return };
        let group = self.child.group();
        if stop == Signal::TTIN || stop == Signal::TTOU {
            if self.terminal.give_to(group) {
                self.child.signal(Signal::CONT);
            } else {
                // The job is in the background: it stops as a whole, as it would without us in between.
                let _ = kill_current_process_group(stop);
            }
        } else if self.terminal.take_from(group) {
            // Ctrl-Z went to the child alone; the rest of the job, we included, stops too.
            let _ = kill_current_process_group(Signal::TSTP);
        }
    }
}

/// Whether what is left does not even heed KILL, or cannot be sent one.
fn is_stuck(leash: &Leash, now: Moment) -> bool {
    leash.killed_at().is_some_and(|killed| now >= killed.plus(AFTER_KILL)) && {
        say("a process of the command cannot be ended: it may go on without the lock");
        true
    }
}
