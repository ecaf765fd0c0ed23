//! What can be chosen when a topic is used for the first time, and what is promised of it.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::record::Id;
use crate::what::{Genesis, micros};

/// How a topic is used. All but `replicated` is written to the log by whoever comes first, and is what it says there for
/// everybody else.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How far the wall clocks of two brokers may lie apart; 5 s by default.
    ///
    /// A holder that died may be let go by these clocks alone, this much after its lease, and after it was asked.
    pub margin: Duration,
    /// How long a holder that is asked so has for its sign of life; 2 s by default.
    pub grace: Duration,
    /// The largest step of the log's clock from one record to the next; 10 s by default.
    ///
    /// It bounds what one broker's clock that is set forward does.
    pub step: Duration,
    /// After how many records the state is written to the log; 10,000 by default.
    pub checkpoint_every: NonZeroU64,
    /// How many records a client may be silent before it has to introduce itself anew; 100,000 by default.
    pub window: u64,
    /// Whether the topic is on several brokers and an append waits for them (`min.insync.replicas` of 2 or more).
    pub replicated: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            margin: Duration::from_secs(5),
            grace: Duration::from_secs(2),
            step: Duration::from_secs(10),
            checkpoint_every: NonZeroU64::MIN.saturating_add(9_999),
            window: 100_000,
            replicated: false,
        }
    }
}

impl Settings {
    /// How the first of so many partitions begins.
    pub(crate) fn genesis(&self, incarnation: Id, partitions: u32) -> Genesis {
        Genesis {
            incarnation,
            partitions,
            partition: 0,
            margin_us: micros(self.margin),
            grace_us: micros(self.grace),
            step_us: micros(self.step),
            checkpoint_every: self.checkpoint_every,
            window: self.window,
        }
    }
}
