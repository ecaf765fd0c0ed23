//! What a wrapper tells its guardian: one line each.

use std::fmt;

use rustix::process::Pid;

use crate::clock::Moment;

/// The guardian's first word: it runs and is out of the terminal's reach.
pub(crate) const READY: &str = "ready";
/// The guardian's answer to [`Order::Watch`]: from here on the child cannot outlive its wrapper.
pub(crate) const WATCHING: &str = "watching";

/// The guardian's report that it has ended the child, in part or in whole, of its own accord.
pub(crate) const ACTED: &str = "acted";

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Watch this process group.
    Watch(Pid),
    /// The lease lasts until then.
    Deadline(Moment),
    /// The child has ended: touch nothing any more, and go.
    StandDown,
}

impl Order {
    pub(crate) fn parse(line: &str) -> Option<Order> {
        let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "watch" => argument.parse().ok().and_then(Pid::from_raw).map(Order::Watch),
            "deadline" => argument.parse().ok().map(Moment::from_nanos).map(Order::Deadline),
            "stand-down" => Some(Order::StandDown),
            _ => None,
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Watch(group) => write!(f, "watch {}", group.as_raw_nonzero()),
            Order::Deadline(deadline) => write!(f, "deadline {}", deadline.as_nanos()),
            Order::StandDown => f.write_str("stand-down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        for order in [
            Order::Watch(Pid::from_raw(4711).unwrap()),
            Order::Deadline(Moment::NEVER),
            Order::Deadline(Moment::from_nanos(1)),
            Order::StandDown,
        ] {
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
        for garbage in ["", "watch", "watch 0", "watch x", "deadline -1", "hello"] {
            assert_eq!(Order::parse(garbage), None, "{garbage:?}");
        }
    }
}
