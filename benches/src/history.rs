//! What happened on one key, and whether a lock may do that.

use lock_conformance::history::{self, Act, Options, check, explain};
use lockcore::Mode;

/// One time that a worker held the key, as the worker saw it: the server's hold is longer at both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) mode: Mode,
    /// When the acquire was begun.
    pub(crate) asked: u64,
    /// When the acquire returned.
    pub(crate) granted: u64,
    /// When the release was begun.
    pub(crate) left: u64,
    /// The fencing token; 0 where there are none.
    pub(crate) token: u64,
    pub(crate) floor: u64,
}

/// How many rules of a lock the history of one key breaks. Events of any order are taken.
///
/// What has tokens goes through the checker of the conformance suite, which ends at the first violation; a floor
/// without tokens is looked at for overlaps.
pub(crate) fn violations(events: &mut [Event]) -> u64 {
    events.sort_unstable_by_key(|event| event.granted);
    if events.iter().any(|event| event.token == 0) {
        return overlaps(events);
    }
    let events = acts(events);
    match check(&events, Options { complete: true, ..Options::default() }) {
        Ok(_) => 0,
        Err(violation) => {
            eprintln!("the history cannot be explained: {}", explain(&events, &violation));
            1
        }
    }
}

/// The history as the suite has it, in order. What happens in one nanosecond is told so that nobody looks guilty.
fn acts(events: &[Event]) -> Vec<history::Event> {
    let mut acts: Vec<(u64, u8, u64, Act)> = Vec::with_capacity(3 * events.len());
    for (attempt, event) in (0..).zip(events) {
        let Event { mode, asked, granted, left, token, floor } = *event;
        acts.push((asked, 1, attempt, Act::Asked { mode }));
        acts.push((granted.max(asked), 2, attempt, Act::Granted { token, floor, until: None }));
        acts.push((left.max(granted + 1), 0, attempt, Act::Releasing));
    }
    acts.sort_by_key(|&(at, rank, ..)| (at, rank));
    acts.into_iter()
        .map(|(at, _, attempt, act)| history::Event { at, attempt, key: "k".into(), act })
        .collect()
}

/// Holders that exclude each other and overlap. One pass is enough: a claim conflicts with the exclusive claims before
/// it, and an exclusive one with all claims before it, of which the one that left last decides.
fn overlaps(events: &[Event]) -> u64 {
    let (mut exclusive_left, mut left) = (0, 0);
    let mut broken = 0;
    for event in events {
        let alone = event.mode.is_exclusive();
        broken += u64::from(event.granted < if alone { left } else { exclusive_left });
        left = left.max(event.left);
        if alone {
            exclusive_left = exclusive_left.max(event.left);
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mode: Mode, granted: u64, left: u64, token: u64) -> Event {
        Event { mode, asked: granted - 1, granted, left, token, floor: token }
    }

    #[test]
    fn readers_may_overlap_and_writers_may_not() {
        use Mode::{Exclusive, Shared};
        for first in [0_u64, 1] {
            let token = |n: u64| n * first;
            let fine = [
                event(Exclusive, 1, 2, token(1)),
                event(Shared, 3, 6, token(3)),
                event(Shared, 4, 5, token(2)),
            ];
            assert_eq!(violations(&mut fine.clone()), 0);
            let mut overlap = [event(Shared, 3, 6, token(3)), event(Exclusive, 5, 7, token(4))];
            assert_eq!(violations(&mut overlap), 1);
        }
        let mut stale = [event(Exclusive, 3, 4, 9), event(Exclusive, 5, 7, 8)];
        assert_eq!(violations(&mut stale), 1);
    }
}
