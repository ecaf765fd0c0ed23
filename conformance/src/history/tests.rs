//! Histories that are in order, and what each single corruption of them is found to be.

use std::num::NonZeroU32;
use std::time::Duration;

use lockcore::Mode;

use super::{Act, Event, Options, Recorder, Violation, check, read_json_lines};

const FULL: Options = Options { fair: true, complete: true, drained_within: Some(Duration::from_nanos(50)) };

fn event(at: u64, attempt: u64, act: Act) -> Event {
    Event { at, attempt, key: "k".into(), act }
}

fn asked(at: u64, attempt: u64, mode: Mode) -> Event {
    event(at, attempt, Act::Asked { mode })
}

fn granted(at: u64, attempt: u64, token: u64, floor: u64) -> Event {
    event(at, attempt, Act::Granted { token, floor, until: None })
}

fn ends(at: u64, attempt: u64) -> [Event; 2] {
    [event(at, attempt, Act::Releasing), event(at + 1, attempt, Act::Released { too_late: false })]
}

/// One writer, two readers as a batch, a writer that gives up, and a last writer; all with a write.
fn in_order() -> Vec<Event> {
    let mut events = vec![
        asked(0, 1, Mode::Exclusive),
        granted(10, 1, 5, 5),
        asked(11, 2, Mode::Shared),
        event(12, 2, Act::Queued),
        asked(13, 3, Mode::Shared),
        event(14, 3, Act::Queued),
        asked(15, 4, Mode::Exclusive),
        event(16, 4, Act::Queued),
        asked(17, 5, Mode::Exclusive),
        event(18, 5, Act::Queued),
        event(19, 1, Act::Wrote { accepted: true }),
        event(19, 1, Act::ForeignRelease { released: false }),
    ];
    events.extend(ends(20, 1));
    events.extend([
        granted(22, 2, 7, 7),
        granted(23, 3, 8, 7),
        event(24, 3, Act::Wrote { accepted: true }),
        event(25, 2, Act::Wrote { accepted: true }),
        event(26, 4, Act::GaveUp),
    ]);
    events.extend(ends(30, 2));
    events.extend(ends(32, 3));
    events.extend([granted(40, 5, 9, 9), event(41, 5, Act::Wrote { accepted: true })]);
    events.extend(ends(50, 5));
    events
}

/// Finds the event, and puts another act in its place.
fn replaced(attempt: u64, is: impl Fn(&Act) -> bool, act: Act) -> Vec<Event> {
    let mut events = in_order();
    let found = events.iter_mut().find(|event| event.attempt == attempt && is(&event.act));
    found.unwrap().act = act;
    events
}

fn without(attempt: u64, is: impl Fn(&Act) -> bool) -> Vec<Event> {
    let mut events = in_order();
    events.retain(|event| !(event.attempt == attempt && is(&event.act)));
    events
}

fn is_grant(act: &Act) -> bool {
    matches!(act, Act::Granted { .. })
}

#[test]
fn a_history_in_order_passes() {
    let summary = check(&in_order(), FULL).unwrap();
    assert_eq!((summary.attempts, summary.grants, summary.longest_wait), (5, 4, 23));
}

#[test]
fn nothing_at_all_is_in_order() {
    assert_eq!(check(&[], FULL).unwrap().events, 0);
}

#[test]
fn json_comes_back() {
    let text: String = in_order().iter().map(|event| event.to_json() + "\n").collect();
    assert_eq!(read_json_lines(&text).unwrap(), in_order());
    assert_eq!(read_json_lines("\n{\"at\":1}").unwrap_err().0, 2);
    let recorder = Recorder::new();
    recorder.asks("k", Mode::Shared).note(Act::GaveUp);
    assert_eq!(read_json_lines(&recorder.to_json_lines()).unwrap(), recorder.events());
    assert_eq!(check(&recorder.events(), FULL).unwrap().attempts, 1);
}

#[test]
fn other_keys_do_not_matter() {
    let mut events = in_order();
    events.extend(in_order().into_iter().map(|event| Event {
        at: event.at + 1000,
        attempt: event.attempt + 100,
        key: "other".into(),
        ..event
    }));
    assert_eq!(check(&events, FULL).unwrap().grants, 8);
}

#[test]
fn a_token_twice_is_found() {
    let events = replaced(3, is_grant, Act::Granted { token: 7, floor: 7, until: None });
    assert_eq!(check(&events, FULL), Err(Violation::TokenTwice { attempts: [2, 3], token: 7 }));
}

#[test]
fn a_token_that_goes_back_is_found() {
    let events = replaced(5, is_grant, Act::Granted { token: 6, floor: 6, until: None });
    let options = Options { fair: false, ..FULL };
    assert_eq!(check(&events, options), Err(Violation::TokenBack { attempts: [2, 5] }));
}

#[test]
fn a_floor_above_the_token_is_found() {
    let events = replaced(2, is_grant, Act::Granted { token: 7, floor: 8, until: None });
    assert_eq!(check(&events, FULL), Err(Violation::BadFloor { attempt: 2 }));
}

#[test]
fn an_overlap_is_found() {
    let mut events = in_order();
    events.retain(|event| event.attempt != 3 || !matches!(event.act, Act::Releasing));
    // It says only that it has let go, after the next was granted.
    let late = events.iter().position(|e| e.attempt == 3 && matches!(e.act, Act::Released { .. })).unwrap();
    let mut late = events.remove(late);
    late.at = 45;
    let at = events.partition_point(|event| event.at <= 45);
    events.insert(at, late);
    assert_eq!(check(&events, FULL), Err(Violation::Overlap { attempts: [3, 5], at: 40 }));
}

#[test]
fn a_deadline_ends_what_is_believed() {
    let mut events = replaced(3, is_grant, Act::Granted { token: 8, floor: 7, until: Some(39) });
    events.retain(|event| event.attempt != 3 || !matches!(event.act, Act::Releasing | Act::Released { .. }));
    check(&events, FULL).unwrap();
    let renewed = events.iter().position(|event| event.at > 25).unwrap();
    events.insert(renewed, event(25, 3, Act::Renewed { until: 41 }));
    assert_eq!(check(&events, FULL), Err(Violation::Overlap { attempts: [3, 5], at: 40 }));
}

#[test]
fn a_renewal_after_the_deadline_changes_nothing() {
    let mut events = replaced(3, is_grant, Act::Granted { token: 8, floor: 7, until: Some(24) });
    events.retain(|event| event.attempt != 3 || !matches!(event.act, Act::Releasing | Act::Released { .. }));
    let late = events.iter().position(|event| event.at > 25).unwrap();
    events.insert(late, event(25, 3, Act::Renewed { until: 100 }));
    check(&events, FULL).unwrap();
}

#[test]
fn one_permit_too_many_is_found() {
    let at_most = NonZeroU32::new(2).unwrap();
    let mut events: Vec<Event> =
        (1..=3).map(|attempt| asked(attempt, attempt, Mode::Permit { at_most })).collect();
    events.extend((1..=3).map(|attempt| granted(10 + attempt, attempt, attempt, 1)));
    events.extend((1..=3).flat_map(|attempt| ends(20 + 2 * attempt, attempt)));
    assert_eq!(check(&events, FULL), Err(Violation::TooMany { attempt: 3 }));
}

#[test]
fn an_overtaken_waiter_is_found() {
    // The readers came before the last writer, and are granted after it.
    let mut events = vec![asked(0, 1, Mode::Exclusive), granted(1, 1, 1, 1), asked(2, 2, Mode::Shared)];
    events.extend([event(3, 2, Act::Queued), asked(4, 3, Mode::Exclusive), event(5, 3, Act::Queued)]);
    events.extend(ends(6, 1));
    events.push(granted(8, 3, 2, 2));
    events.extend(ends(9, 3));
    events.push(granted(11, 2, 3, 3));
    events.extend(ends(12, 2));
    assert_eq!(check(&events, FULL), Err(Violation::Overtaken { attempts: [2, 3] }));
    check(&events, Options { fair: false, ..FULL }).unwrap();
}

#[test]
fn a_sleeping_lock_is_found() {
    let mut events = in_order();
    for event in &mut events {
        if event.at >= 40 {
            event.at += 50;
        }
    }
    assert_eq!(check(&events, FULL), Err(Violation::Asleep { attempt: 5, nanos: 58 }));
    check(&events, Options { drained_within: None, ..FULL }).unwrap();
}

#[test]
fn an_attempt_without_end_is_found() {
    let gone = without(4, |act| *act == Act::GaveUp);
    assert_eq!(check(&gone, FULL), Err(Violation::Unfinished { attempt: 4 }));
    let held = without(5, |act| matches!(act, Act::Releasing | Act::Released { .. }));
    assert_eq!(check(&held, FULL), Err(Violation::Unfinished { attempt: 5 }));
    check(&held, Options { complete: false, ..FULL }).unwrap();
}

#[test]
fn a_foreign_release_that_worked_is_found() {
    let worked = |act: &Act| matches!(act, Act::ForeignRelease { .. });
    let events = replaced(1, worked, Act::ForeignRelease { released: true });
    assert_eq!(check(&events, FULL), Err(Violation::ForeignRelease { attempt: 1 }));
}

#[test]
fn a_stale_write_is_found() {
    let mut events = in_order();
    let at = events.len() - 2;
    events.insert(at, event(42, 3, Act::Wrote { accepted: true }));
    assert_eq!(check(&events, FULL), Err(Violation::StaleWrite { attempts: [3, 5] }));
    events[at].act = Act::Wrote { accepted: false };
    check(&events, FULL).unwrap();
}

#[test]
fn nonsense_is_found() {
    let nonsense = |events: Vec<Event>| {
        assert!(matches!(check(&events, FULL), Err(Violation::Nonsense { .. })), "{events:?}");
    };
    nonsense(without(3, |act| matches!(act, Act::Asked { .. })));
    nonsense(without(2, is_grant));
    nonsense(replaced(2, |act| *act == Act::Queued, Act::Asked { mode: Mode::Shared }));
    let mut backwards = in_order();
    backwards.swap(0, 5);
    nonsense(backwards);
}

/// What a benchmark leaves behind must be checked in no time.
#[test]
fn many_events_are_checked_quickly() {
    let mut events = Vec::new();
    for attempt in 0..200_000 {
        let at = attempt * 10;
        events.push(asked(at, attempt, Mode::Exclusive));
        events.push(event(at, attempt, Act::Queued));
        events.push(granted(at + 1, attempt, attempt + 1, attempt + 1));
        events.extend(ends(at + 2, attempt));
    }
    let start = tokio::time::Instant::now();
    assert_eq!(check(&events, FULL).unwrap().grants, 200_000);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
