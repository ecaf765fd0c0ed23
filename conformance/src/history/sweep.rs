//! The single checks, each one pass over attempts that were sorted once.

use std::collections::BTreeSet;

use lockcore::Mode;

use super::check::{At, Grant, NEVER, Story};
use super::{Act, Event, Violation};

fn granted(stories: &[Story]) -> Vec<(Story, Grant)> {
    stories.iter().filter_map(|story| story.grant.map(|grant| (*story, grant))).collect()
}

/// No token twice; between conflicting holders later means larger.
pub(super) fn tokens(stories: &[Story]) -> Result<(), Violation> {
    let mut grants = granted(stories);
    grants.sort_unstable_by_key(|(_, grant)| grant.token);
    for pair in grants.windows(2) {
        let [(one, grant), (other, next)] = pair else { continue };
        if grant.token == next.token {
            return Err(Violation::TokenTwice { attempts: [one.attempt, other.attempt], token: grant.token });
        }
    }
    // By token: nobody before me in this order may have begun after I had ended, if we conflict. The latest begin of all,
    // and of the exclusive ones, is all that must be known of those before.
    let mut latest: Option<(At, u64)> = None;
    let mut latest_exclusive: Option<(At, u64)> = None;
    for (story, grant) in &grants {
        let before = if story.mode.is_exclusive() { latest } else { latest_exclusive };
        if let Some((from, attempt)) = before
            && from >= grant.to
        {
            return Err(Violation::TokenBack { attempts: [story.attempt, attempt] });
        }
        latest = latest.max(Some((grant.from, story.attempt)));
        if story.mode.is_exclusive() {
            latest_exclusive = latest_exclusive.max(Some((grant.from, story.attempt)));
        }
    }
    Ok(())
}

/// Nobody held together who may not, by their own belief.
pub(super) fn overlaps(stories: &[Story]) -> Result<(), Violation> {
    let grants = granted(stories);
    let mut moments: Vec<(At, bool, usize)> = Vec::with_capacity(2 * grants.len());
    for (at, (_, grant)) in grants.iter().enumerate() {
        if grant.from < grant.to {
            moments.push((grant.from, true, at));
            moments.push((grant.to, false, at));
        }
    }
    // Who ends at a moment ends before another begins at it.
    moments.sort_unstable();
    let (mut holding, mut exclusive) = (BTreeSet::new(), BTreeSet::new());
    let mut bounds: BTreeSet<(u32, usize)> = BTreeSet::new();
    for (at, begins, who) in moments {
        let (story, _) = &grants[who];
        if begins {
            let other = if story.mode.is_exclusive() { holding.first() } else { exclusive.first() };
            if let Some(&other) = other {
                let (other, _): &(Story, Grant) = &grants[other];
                return Err(Violation::Overlap { attempts: [other.attempt, story.attempt], at: at.0 });
            }
            holding.insert(who);
            if story.mode.is_exclusive() {
                exclusive.insert(who);
            }
            bounds.insert((story.mode.bound(), who));
            let bound = bounds.first().map_or(u32::MAX, |&(bound, _)| bound);
            if holding.len() > usize::try_from(bound).unwrap_or(usize::MAX) {
                return Err(Violation::TooMany { attempt: story.attempt });
            }
        } else {
            holding.remove(&who);
            exclusive.remove(&who);
            bounds.remove(&(story.mode.bound(), who));
        }
    }
    Ok(())
}

/// Whoever was seen in the queue before another asked has the smaller token.
pub(super) fn order(stories: &[Story]) -> Result<(), Violation> {
    let grants = granted(stories);
    let mut queued: Vec<(At, u64, u64)> = grants
        .iter()
        .filter_map(|(story, grant)| story.queued.map(|queued| (queued, grant.token, story.attempt)))
        .collect();
    queued.sort_unstable();
    let mut asked: Vec<&(Story, Grant)> = grants.iter().collect();
    asked.sort_unstable_by_key(|(story, _)| story.asked);
    let mut queued = queued.into_iter().peekable();
    let mut largest: Option<(u64, u64)> = None;
    for (story, grant) in asked {
        while let Some((_, token, attempt)) = queued.next_if(|&(seen, ..)| seen < story.asked) {
            largest = largest.max(Some((token, attempt)));
        }
        if let Some((token, attempt)) = largest
            && token > grant.token
        {
            return Err(Violation::Overtaken { attempts: [attempt, story.attempt] });
        }
    }
    Ok(())
}

/// The lock does not lie idle for longer than `bound` while somebody is known to wait.
pub(super) fn drained(stories: &[Story], bound: u64) -> Result<(), Violation> {
    let grants = granted(stories);
    // The times at which somebody believed to hold, joined.
    let mut busy: Vec<(At, At)> = grants.iter().map(|(_, grant)| (grant.from, grant.to)).collect();
    busy.sort_unstable();
    let mut idle: Vec<(At, At)> = Vec::new();
    let mut end = (0, 0);
    for (from, to) in busy {
        if from > end {
            idle.push((end, from));
        }
        end = end.max(to);
    }
    idle.push((end, NEVER));
    idle.retain(|(from, to)| to.0 - from.0 > bound);
    for story in stories {
        let Some(queued) = story.queued else { continue };
        let until = story.grant.map(|grant| grant.from).or(story.gave_up);
        // Without an end it is unfinished, which is another check's business.
        let Some(until) = until else { continue };
        // Only the first idle time that ends after it was queued can be the one that it slept through: it is granted, or
        // gives up, or somebody else is served before the next.
        let first = idle.partition_point(|&(_, to)| to <= queued);
        let slept = idle[first..]
            .iter()
            .take_while(|&&(from, _)| from < until)
            .map(|&(from, to)| to.min(until).0.saturating_sub(from.max(queued).0))
            .find(|&slept| slept > bound);
        if let Some(nanos) = slept {
            return Err(Violation::Asleep { attempt: story.attempt, nanos });
        }
    }
    Ok(())
}

/// What went through the resource's gate did so in the order of the tokens, except among those who may hold together.
pub(super) fn writes(events: &[&Event], stories: &[Story]) -> Result<(), Violation> {
    let mut by_attempt: Vec<(u64, Mode, u64)> = stories
        .iter()
        .filter_map(|story| story.grant.map(|grant| (story.attempt, story.mode, grant.token)))
        .collect();
    by_attempt.sort_unstable_by_key(|&(attempt, ..)| attempt);
    // Tokens, and whose they are.
    let mut largest: Option<(u64, u64)> = None;
    let mut largest_exclusive: Option<(u64, u64)> = None;
    for event in events {
        if event.act != (Act::Wrote { accepted: true }) {
            continue;
        }
        let Ok(position) = by_attempt.binary_search_by_key(&event.attempt, |&(attempt, ..)| attempt) else {
            continue;
        };
        let (attempt, mode, token) = by_attempt[position];
        let later = if mode.is_exclusive() { largest } else { largest_exclusive };
        if let Some((other_token, other)) = later
            && other_token > token
        {
            return Err(Violation::StaleWrite { attempts: [attempt, other] });
        }
        largest = largest.max(Some((token, attempt)));
        if mode.is_exclusive() {
            largest_exclusive = largest_exclusive.max(Some((token, attempt)));
        }
    }
    Ok(())
}
