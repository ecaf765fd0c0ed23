//! Whether a history can be explained.

use std::collections::HashMap;
use std::time::Duration;

use lockcore::Mode;

use super::sweep;
use super::{Act, Event, Violation};

/// What a history is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Claims are granted in the order in which they arrived: who was seen in the queue before another asked is granted
    /// before it.
    pub fair: bool,
    /// The history is over: every attempt must have come to an end.
    pub complete: bool,
    /// While somebody is known to wait, the lock must not stay free for longer than this.
    pub drained_within: Option<Duration>,
}

/// What a history that is in order amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many events it has.
    pub events: usize,
    /// How many attempts were made.
    pub attempts: usize,
    /// How many were granted.
    pub grants: usize,
    /// The longest time between asking and the grant, in nanoseconds.
    pub longest_wait: u64,
}

/// A moment, and which event of it: events of the same moment are in the order in which they were taken down.
pub(super) type At = (u64, usize);

/// The end of what has no end.
pub(super) const NEVER: At = (u64::MAX, usize::MAX);

/// One attempt, as its events tell it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Story {
    pub(super) attempt: u64,
    pub(super) mode: Mode,
    pub(super) asked: At,
    pub(super) queued: Option<At>,
    pub(super) grant: Option<Grant>,
    /// When it stopped to wait without a grant.
    pub(super) gave_up: Option<At>,
}

/// From when to when somebody believed to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) token: u64,
    pub(super) from: At,
    /// The first moment at which it did not believe so any more.
    pub(super) to: At,
    ended: bool,
}

/// Checks a history whose events are in the order of their times.
///
/// # Errors
/// The first [`Violation`] that was found.
pub fn check(events: &[Event], options: Options) -> Result<Summary, Violation> {
    let mut keys: HashMap<&str, Vec<&Event>> = HashMap::new();
    for event in events {
        keys.entry(&event.key).or_default().push(event);
    }
    let mut summary = Summary { events: events.len(), ..Summary::default() };
    let mut names: Vec<&str> = keys.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let events = &keys[name];
        let stories = stories(events, options)?;
        sweep::tokens(&stories)?;
        sweep::overlaps(&stories)?;
        if options.fair {
            sweep::order(&stories)?;
        }
        if let Some(bound) = options.drained_within {
            sweep::drained(&stories, u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX))?;
        }
        sweep::writes(events, &stories)?;
        summary.attempts += stories.len();
        for story in &stories {
            if let Some(grant) = story.grant {
                summary.grants += 1;
                summary.longest_wait = summary.longest_wait.max(grant.from.0 - story.asked.0);
            }
        }
    }
    Ok(summary)
}

/// The attempts of one key, in the order in which they asked.
fn stories(events: &[&Event], options: Options) -> Result<Vec<Story>, Violation> {
    let mut stories: Vec<Story> = Vec::new();
    let mut index: HashMap<u64, usize> = HashMap::new();
    let mut before = (0, 0);
    for (number, event) in events.iter().enumerate() {
        let (attempt, at) = (event.attempt, (event.at, number));
        let nonsense = |why| Err(Violation::Nonsense { attempt, why });
        if at < before {
            return nonsense("it lies before the event that it follows");
        }
        before = at;
        if let Act::Asked { mode } = event.act {
            if index.insert(attempt, stories.len()).is_some() {
                return nonsense("it asks twice");
            }
            stories.push(Story { attempt, mode, asked: at, queued: None, grant: None, gave_up: None });
            continue;
        }
        let Some(story) = index.get(&attempt).map(|&position| &mut stories[position]) else {
            return nonsense("it did not ask");
        };
        let finished = story.gave_up.is_some();
        match (&event.act, &mut story.grant) {
            (Act::ForeignRelease { released: true }, _) => return Err(Violation::ForeignRelease { attempt }),
            (Act::Asked { .. } | Act::ForeignRelease { released: false }, _) => {}
            _ if finished => return nonsense("it goes on after it gave up"),
            (Act::Queued, None) => story.queued = story.queued.or(Some(at)),
            (Act::GaveUp, None) => story.gave_up = Some(at),
            (Act::Granted { token, floor, until }, grant @ None) => {
                if floor > token || *token == 0 {
                    return Err(Violation::BadFloor { attempt });
                }
                let to = until.map_or(NEVER, |until| (until, 0));
                *grant = Some(Grant { token: *token, from: at, to, ended: false });
            }
            (Act::Granted { .. }, Some(_)) => return nonsense("it is granted twice"),
            (Act::Renewed { until }, Some(grant)) => {
                // A loss is final: what was renewed too late changes nothing.
                if !grant.ended && grant.to >= at {
                    grant.to = (*until, 0);
                }
            }
            (Act::Lost | Act::Releasing | Act::Released { .. }, Some(grant)) => {
                grant.to = grant.to.min(at);
                grant.ended = true;
            }
            // Whoever sees it in the queue may say so a little later than the grant is told.
            (Act::Wrote { .. } | Act::Queued, Some(_)) => {}
            (Act::GaveUp, Some(_)) => return nonsense("it gave up what it had"),
            (
                Act::Renewed { .. } | Act::Wrote { .. } | Act::Lost | Act::Releasing | Act::Released { .. },
                None,
            ) => {
                return nonsense("it acts as a holder and is none");
            }
        }
    }
    let open = |story: &&Story| match story.grant {
        Some(grant) => !grant.ended && grant.to == NEVER,
        None => story.gave_up.is_none(),
    };
    match stories.iter().find(open) {
        Some(story) if options.complete => Err(Violation::Unfinished { attempt: story.attempt }),
        _ => Ok(stories),
    }
}
