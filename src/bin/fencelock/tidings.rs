//! What `-v` tells of a lock while time passes: who is in the way, and how the renewals go.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use fencelock::{ClaimId, ClaimInfo, Key, LockClient, Snapshot};

use crate::clock::Moment;
use crate::duration::{clock, short};
use crate::look::name;
use crate::voice::{is_verbose, tell};

/// A wait that is over sooner is not worth a word.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// How often to look whether somebody else is in the way now: each look is a request.
const LOOK: Duration = Duration::from_secs(5);

/// Tells who is in the way, and again when it is somebody else, until it is dropped.
pub(crate) async fn in_the_way(locks: &LockClient, key: &str) -> Infallible {
    // What is wrong with the key is said by who acquires.
    let Some(lock) = locks.lock(key).ok().filter(|_| is_verbose()) else { return pending().await };
    let mut blockers = Blockers::default();
    tokio::time::sleep(FIRST_LOOK).await;
    loop {
        if let Some(news) = blockers.look(lock.inspect().await.ok().as_ref()) {
            tell(format_args!("waiting for {key:?}: {news}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who was in the way when it was last told: nobody known, if the server did not answer.
#[derive(Debug, Default)]
struct Blockers(Option<Vec<ClaimId>>);

impl Blockers {
    /// Looks at who holds now, and gives what is new.
    fn look(&mut self, seen: Option<&Snapshot>) -> Option<String> {
        if seen.is_some_and(|seen| seen.holders.is_empty()) {
            // Between two holders.
            return None;
        }
        let now = seen.into_iter().flat_map(|seen| &seen.holders).map(|holder| holder.id).collect();
        if self.0.as_ref() == Some(&now) {
            return None;
        }
        self.0 = Some(now);
        Some(seen.map_or_else(|| "the server does not answer, trying again".into(), holders))
    }
}

/// Such as `held by web-3 (exclusive, since 00:00:42, note "nightly") and 2 others; 3 in the queue`.
fn holders(seen: &Snapshot) -> String {
    let first = seen.holders.first().map(blocker).unwrap_or_default();
    let others = match seen.holders.len() {
        0 | 1 => String::new(),
        2 => " and another".into(),
        all => format!(" and {} others", all - 1),
    };
    format!("held by {first}{others}; {} in the queue", seen.waiters.len())
}

fn blocker(holder: &ClaimInfo) -> String {
    let note = holder.note.as_ref().map(|note| format!(", note {note:?}")).unwrap_or_default();
    format!("{} ({}, since {}{note})", name(holder), holder.mode, clock(holder.age))
}

/// The renewals of a lease, as they are seen from outside.
#[derive(Debug)]
pub(crate) struct Renewals {
    ttl: Duration,
    /// The end of the lease when it was granted or last renewed.
    until: Moment,
    overdue: bool,
}

impl Renewals {
    pub(crate) fn new(ttl: Duration, until: Moment) -> Renewals {
        Renewals { ttl, until, overdue: false }
    }

    /// Looks at a lease that ends at `until`, and gives what is new.
    pub(crate) fn look(&mut self, key: &Key, until: Moment, now: Moment) -> Option<String> {
        let left = until.since(now);
        // A renewal adds a third of the ttl; two looks at the same lease differ by less.
        if until > self.until.plus(self.ttl / 12) {
            (self.until, self.overdue) = (until, false);
            return Some(format!("renewed {key:?}: left {}", short(left)));
        }
        let overdue = left < self.ttl / 2;
        let is_news = overdue && !self.overdue;
        self.overdue = overdue;
        is_news.then(|| format!("no answer to the renewal of {key:?}, trying again: left {}", short(left)))
    }
}

#[cfg(test)]
mod tests {
    use fencelock::{FencingToken, Mode};

    use super::*;

    fn held_by(ids: &[u128]) -> Snapshot {
        let holder = |&id| ClaimInfo {
            id: ClaimId::from_bits(id),
            mode: Mode::Shared,
            owner: Some(format!("web-{id}").into()),
            note: None,
            token: FencingToken::new(1),
            age: Duration::from_secs(42),
            left: Duration::from_secs(30),
            upgrading: false,
        };
        Snapshot { holders: ids.iter().map(holder).collect(), waiters: Vec::new() }
    }

    #[test]
    fn a_blocker_is_told_once() {
        let mut blockers = Blockers::default();
        let mut look = |ids| blockers.look(Some(&held_by(ids)));
        let web_1 = "held by web-1 (shared, since 00:00:42)";
        assert_eq!(look(&[]), None);
        assert_eq!(look(&[1]), Some(format!("{web_1}; 0 in the queue")));
        assert_eq!((look(&[1]), look(&[]), look(&[1])), (None, None, None));
        assert_eq!(look(&[1, 2]), Some(format!("{web_1} and another; 0 in the queue")));
        assert_eq!(look(&[1, 2, 3]), Some(format!("{web_1} and 2 others; 0 in the queue")));
        assert!(blockers.look(None).unwrap().contains("does not answer"));
        assert_eq!(blockers.look(None), None);
        assert!(blockers.look(Some(&held_by(&[1, 2, 3]))).is_some());
    }

    #[test]
    fn a_renewal_is_told_once_and_so_is_its_absence() {
        let at = |seconds| Moment::from_nanos(0).plus(Duration::from_secs_f64(seconds));
        let key = Key::new("k").unwrap();
        let mut renewals = Renewals::new(Duration::from_secs(12), at(12.0));
        let mut look = |until, now| renewals.look(&key, at(until), at(now));
        // The two clocks behind `until` do not quite agree.
        assert_eq!((look(12.0, 1.0), look(12.01, 2.0)), (None, None));
        let renewed = |left: &str| Some(format!("renewed \"k\": left {left}"));
        assert_eq!((look(16.0, 4.0), look(15.99, 5.0)), (renewed("12s"), None));
        let overdue = Some("no answer to the renewal of \"k\", trying again: left 5s".to_owned());
        assert_eq!((look(16.0, 11.0), look(16.0, 12.0)), (overdue.clone(), None));
        assert_eq!((look(25.0, 13.0), look(25.0, 20.0)), (renewed("12s"), overdue));
    }
}
