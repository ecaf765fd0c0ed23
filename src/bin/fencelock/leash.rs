//! When a child must end: asked to a while before the lease is over, made to when it is.

use std::time::Duration;

use crate::clock::Moment;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// Ask the child to end.
    Term,
    /// End it.
    Kill,
}

/// The times of one child. Both the wrapper and its guardian keep one.
///
/// Once the child is asked to end, that is final: a renewal that is answered later changes nothing.
#[derive(Debug)]
pub(crate) struct Leash {
    /// Until when the lease is known to last.
    deadline: Moment,
    /// How long the child is given between the two signals.
    grace: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    /// The child is to end; `asked` once it was told so.
    Ending {
        kill_at: Moment,
        asked: bool,
    },
    Killed(Moment),
}

impl Leash {
    pub(crate) fn new(deadline: Moment, grace: Duration) -> Leash {
        Leash { deadline, grace, phase: Phase::Free }
    }

    /// The lease lasts until `deadline` now.
    pub(crate) fn renewed(&mut self, deadline: Moment) {
        if self.phase == Phase::Free {
            self.deadline = deadline;
        }
    }

    /// The child is to end now, whatever the lease says; it has its grace, but never more than what the lease gave it.
    pub(crate) fn cut(&mut self, now: Moment) {
        if self.phase == Phase::Free {
            self.phase = Phase::Ending { kill_at: self.deadline.min(now.plus(self.grace)), asked: false };
        }
    }

    /// Whether the child is to end, or was ended.
    pub(crate) fn is_ending(&self) -> bool {
        self.phase != Phase::Free
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed_at().is_some()
    }

    /// When the child was killed.
    pub(crate) fn killed_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Killed(at) => Some(at),
            Phase::Free | Phase::Ending { .. } => None,
        }
    }

    /// What is due at `now`. Each thing is said once.
    pub(crate) fn due(&mut self, now: Moment) -> Due {
        if self.phase == Phase::Free && now >= self.deadline.minus(self.grace) {
            self.phase = Phase::Ending { kill_at: self.deadline, asked: false };
        }
        match self.phase {
            Phase::Ending { kill_at, .. } if now >= kill_at => {
                self.phase = Phase::Killed(now);
                Due::Kill
            }
            Phase::Ending { kill_at, asked: false } => {
                self.phase = Phase::Ending { kill_at, asked: true };
                Due::Term
            }
            Phase::Free | Phase::Ending { .. } | Phase::Killed(_) => Due::Nothing,
        }
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Moment {
        match self.phase {
            Phase::Free => self.deadline.minus(self.grace),
            Phase::Ending { kill_at, .. } => kill_at,
            Phase::Killed(_) => Moment::NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn leash() -> Leash {
        Leash::new(at(30), Duration::from_secs(5))
    }

    #[test]
    fn a_renewed_lease_leaves_the_child_alone() {
        let mut leash = leash();
        assert_eq!(leash.due(at(24)), Due::Nothing);
        leash.renewed(at(50));
        assert_eq!(leash.due(at(44)), Due::Nothing);
        assert_eq!(leash.next(), at(45));
    }

    #[test]
    fn a_lease_that_runs_out_asks_first_and_kills_at_its_end() {
        let mut leash = leash();
        assert_eq!(leash.due(at(25)), Due::Term);
        assert_eq!(leash.due(at(26)), Due::Nothing);
        leash.renewed(at(50));
        assert_eq!(leash.next(), at(30));
        assert_eq!(leash.due(at(30)), Due::Kill);
        assert_eq!(leash.due(at(60)), Due::Nothing);
        assert_eq!(leash.next(), Moment::NEVER);
    }

    #[test]
    fn after_a_pause_beyond_the_end_there_is_nothing_to_ask() {
        let mut leash = leash();
        assert_eq!(leash.due(at(31)), Due::Kill);
        assert!(leash.is_killed());
    }

    #[test]
    fn a_cut_gives_the_grace_but_no_more_than_the_lease() {
        let mut early = leash();
        early.cut(at(10));
        assert_eq!(early.due(at(10)), Due::Term);
        assert_eq!(early.due(at(15)), Due::Kill);

        let mut late = leash();
        late.cut(at(27));
        assert_eq!((late.due(at(27)), late.next()), (Due::Term, at(30)));

        let mut too_late = leash();
        too_late.cut(at(31));
        assert_eq!(too_late.due(at(31)), Due::Kill);
    }

    #[test]
    fn without_grace_there_is_only_the_end() {
        let mut leash = Leash::new(at(1), Duration::ZERO);
        assert_eq!(leash.due(at(0)), Due::Nothing);
        assert_eq!(leash.due(at(1)), Due::Kill);
    }
}
