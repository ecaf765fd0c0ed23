//! A violation in words: the rule, and what those did who broke it.

use std::fmt::Write as _;

use lockcore::Mode;

use super::{Act, Event, Violation};

/// What is wrong, which rule that breaks, and everything that is known of the attempts that show it.
#[must_use]
pub fn explain(events: &[Event], violation: &Violation) -> String {
    let mut text = violation.to_string();
    if let Some(rule) = violation.rule() {
        let _ = write!(text, "\n  that breaks {rule}: {}", rule.text());
    }
    for attempt in violation.attempts() {
        let of: Vec<&Event> = events.iter().filter(|event| event.attempt == attempt).collect();
        let Some(first) = of.first() else { continue };
        let _ = write!(text, "\n  attempt {attempt} on {:?}:", first.key);
        for event in of {
            let _ = write!(text, "\n    {:>16}  {}", moment(event.at), told(&event.act));
        }
    }
    text
}

/// A moment of the history in milliseconds.
pub(super) fn moment(nanos: u64) -> String {
    format!("{}.{:06} ms", nanos / 1_000_000, nanos % 1_000_000)
}

fn told(act: &Act) -> String {
    match *act {
        Act::Asked { mode } => format!("asks, {}", named(mode)),
        Act::Queued => "is in the queue".into(),
        Act::Granted { token, floor, until: None } => format!("is granted: token {token}, floor {floor}"),
        Act::Granted { token, floor, until: Some(until) } => {
            format!("is granted until {}: token {token}, floor {floor}", moment(until))
        }
        Act::Renewed { until } => format!("is renewed until {}", moment(until)),
        Act::Wrote { accepted: true } => "writes".into(),
        Act::Wrote { accepted: false } => "writes, and is refused by the gate".into(),
        Act::Lost => "notices that it does not hold".into(),
        Act::Releasing => "lets go".into(),
        Act::Released { too_late: false } => "has let go".into(),
        Act::Released { too_late: true } => "has let go, and is told that it had ended before".into(),
        Act::GaveUp => "gives up".into(),
        Act::ForeignRelease { released: true } => "is released by somebody else, which works".into(),
        Act::ForeignRelease { released: false } => "is released by somebody else, without effect".into(),
    }
}

pub(super) fn named(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".into(),
        Mode::Shared => "shared".into(),
        Mode::Permit { at_most } => format!("a permit, of {at_most} at most"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Options, check};

    #[test]
    fn it_says_what_is_wrong_and_what_those_did_who_show_it() {
        let event = |at, attempt, act| Event { at, attempt, key: "k".into(), act };
        let granted = |token| Act::Granted { token, floor: token, until: None };
        let events = [
            event(0, 1, Act::Asked { mode: Mode::Exclusive }),
            event(1_500_000, 1, granted(4)),
            event(2_000_000, 2, Act::Asked { mode: Mode::Shared }),
            event(2_000_001, 2, granted(5)),
            event(2_000_002, 1, Act::Releasing),
            event(2_000_003, 3, Act::Asked { mode: Mode::Shared }),
        ];
        let violation = check(&events, Options::default()).unwrap_err();
        let expected = "\
attempts 1 and 2 exclude each other and both hold at 2000001 ns
  that breaks S3: one function decides who may hold together
  attempt 1 on \"k\":
         0.000000 ms  asks, exclusive
         1.500000 ms  is granted: token 4, floor 4
         2.000002 ms  lets go
  attempt 2 on \"k\":
         2.000000 ms  asks, shared
         2.000001 ms  is granted: token 5, floor 5";
        assert_eq!(explain(&events, &violation), expected);
    }
}
