//! When this client writes a checkpoint, and when it lets the log be shortened.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::checkpoint::{Checkpoint, PART_BYTES, Part, Progress};
use crate::fold::Replica;

/// A checkpoint is written by whoever waits the shortest time, in milliseconds.
const WITHIN: u64 = 2_000;

/// What is not needed any more is kept for so long: for newcomers who have begun to read it, and for those who are behind.
const KEPT: Duration = Duration::from_secs(30);

/// What this client has to write.
#[derive(Debug, Default)]
pub(crate) struct Scribe {
    taken: Option<Taken>,
    /// The parts that are still to be said: each when the one before was read, so that nothing else waits behind them.
    parts: VecDeque<Part>,
    /// Up to where the log may be shortened, and when.
    forgets: Option<(Instant, u64)>,
}

/// A checkpoint that this client writes if nobody else has by then.
#[derive(Debug)]
struct Taken {
    due: Instant,
    checkpoint: Checkpoint,
    /// How far somebody else had come with it when that was looked at last.
    seen: Option<Progress>,
}

impl Scribe {
    /// A checkpoint may be taken. Where much is written the next one may come before the last was due.
    pub(crate) fn takes(&mut self, checkpoint: &Checkpoint, now: Instant) {
        let due = self.taken.as_ref().map_or_else(|| soon(now), |taken| taken.due);
        self.taken = Some(Taken { due, checkpoint: checkpoint.clone(), seen: None });
    }

    /// When there is something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let written = self.taken.as_ref().map(|taken| taken.due);
        written.into_iter().chain(self.forgets.map(|(due, _)| due)).min()
    }

    /// The first part of the checkpoint that is due, unless somebody has written it, or is at it, or the log is not read to
    /// its end.
    pub(crate) fn begins(&mut self, replica: &Replica, is_behind: bool, now: Instant) -> Option<Part> {
        let mut taken = self.taken.take_if(|taken| taken.due <= now)?;
        let at_offset = taken.checkpoint.at_offset;
        if replica.has_counted(at_offset) {
            return None;
        }
        let progress = replica.progress(at_offset);
        if is_behind || (progress.is_some() && progress != taken.seen) {
            (taken.due, taken.seen) = (soon(now), progress);
            self.taken = Some(taken);
            return None;
        }
        self.parts = taken.checkpoint.parts(PART_BYTES).into();
        self.parts.pop_front()
    }

    /// A part that this client has written was read: the next one.
    pub(crate) fn goes_on(&mut self, read: &Part, replica: &Replica) -> Option<Part> {
        let is_next = |next: &Part| (next.at_offset, next.number) == (read.at_offset, read.number + 1);
        if replica.has_counted(read.at_offset) || !self.parts.front().is_some_and(is_next) {
            return None;
        }
        self.parts.pop_front()
    }

    /// The session that has written the first parts is over.
    pub(crate) fn stops(&mut self) {
        self.parts.clear();
    }

    /// What lies before `offset` is not needed any more.
    pub(crate) fn needs_from(&mut self, offset: u64, now: Instant) {
        // What was said first is done first; there will be more.
        self.forgets.get_or_insert((now + KEPT, offset));
    }

    /// Up to where the log is shortened now.
    pub(crate) fn forgets(&mut self, now: Instant) -> Option<u64> {
        self.forgets.take_if(|(due, _)| *due <= now).map(|(_, offset)| offset)
    }
}

fn soon(now: Instant) -> Instant {
    now + Duration::from_millis(fastrand::u64(..WITHIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_not_put_off_by_the_next_that_is_due() {
        let checkpoint = |at_offset: u64| {
            let state = at_offset.to_string();
            Checkpoint { at_offset, hash: crate::checkpoint::Hash::of(state.as_bytes()), state }
        };
        let (mut scribe, now) = (Scribe::default(), Instant::now());
        scribe.takes(&checkpoint(10), now);
        let due = scribe.due().unwrap();
        scribe.takes(&checkpoint(20), now + Duration::from_secs(5));
        assert_eq!(scribe.due(), Some(due));
        let part = scribe.begins(&Replica::default(), false, due).unwrap();
        assert_eq!(part.at_offset, 20);
    }
}
