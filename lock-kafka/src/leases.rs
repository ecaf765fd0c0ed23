//! When a lease is over: the rule by which an `Expire` record is accepted.
//!
//! The state machine knows how long a lease is on the clock of the log; that clock alone ends nothing. Somebody has to have
//! waited for the whole lease on a clock of their own, and to propose its end, saying so; or the brokers' clocks lie so far
//! apart that they alone say so, and then the holder is asked first. Whoever proposes because of its silence has not waited, and
//! so is not heard once it has answered.

use std::time::Duration;

use lockcore::state::Moment;
use serde::{Deserialize, Serialize};

use crate::clock::LogClock;
use crate::what::Genesis;

/// A lease, counted from the record that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The record that set it: what a proposal names.
    pub(crate) offset: u64,
    /// Its stamp.
    pub(crate) stamp: u64,
    /// How long it is.
    pub(crate) length_us: u64,
    /// When its holder was asked for a sign of life, on the log's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suspected: Option<Moment>,
}

impl Lease {
    /// Whether the brokers' clocks say that it is over, by more than they may lie apart.
    pub(crate) fn is_over_by_stamps(&self, stamp: u64, genesis: &Genesis) -> bool {
        let until = self.stamp.saturating_add(self.length_us).saturating_add(genesis.margin_us);
        stamp >= until
    }

    /// Whether its holder was asked and has not answered within the grace.
    pub(crate) fn is_unanswered(&self, now: Moment, genesis: &Genesis) -> bool {
        let grace = Duration::from_micros(genesis.grace_us);
        self.suspected.is_some_and(|asked| now.since(asked) >= grace)
    }

    /// Whether it ends by the brokers' clocks and its holder's silence.
    pub(crate) fn is_over_unanswered(&self, clock: &LogClock, genesis: &Genesis) -> bool {
        self.is_over_by_stamps(clock.stamp, genesis) && self.is_unanswered(clock.now, genesis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Id;
    use crate::settings::Settings;

    const SECOND: u64 = 1_000_000;
    const STAMP: u64 = 1_700_000_000 * SECOND;

    /// Whether a lease of 30 s is over by stamps and silence, so many seconds later by the log's clock and by the stamps, and
    /// so many after its holder was asked.
    fn is_over(clock: u64, stamp: u64, asked: Option<u64>) -> bool {
        let genesis = Settings::default().genesis(Id::from_bits(1), 1);
        let at = |seconds: u64| Moment::from_micros((100 + seconds) * SECOND);
        let suspected = asked.map(|ago| Moment::from_micros((100 + clock - ago) * SECOND));
        let lease = Lease { offset: 7, stamp: STAMP, length_us: 30 * SECOND, suspected };
        lease.is_over_unanswered(&LogClock { now: at(clock), stamp: STAMP + stamp * SECOND }, &genesis)
    }

    #[test]
    fn a_lease_is_over_by_stamps_and_silence() {
        assert!(!is_over(29, 34, Some(9)), "the stamps are within the margin of 5 s");
        assert!(!is_over(29, 35, None), "nobody was asked");
        assert!(!is_over(29, 35, Some(1)), "there is time left to answer");
        assert!(is_over(29, 35, Some(2)));
    }
}
