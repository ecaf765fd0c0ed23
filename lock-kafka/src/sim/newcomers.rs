//! With which checkpoint a newcomer begins.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::timeout;

use super::faulty::Faulty;
use super::in_paused_time;
use super::store::{Found, SimLog};
use super::stories::{halted, settings};
use crate::checkpoint::{Checkpoint, Part};
use crate::errors::Halt;
use crate::fold::Replica;
use crate::log::Log;
use crate::newcomer;
use crate::record::{Id, Record};
use crate::settings::Settings;
use crate::what::What;

/// A log that is written by hand, and what is found at its checkpoints.
struct Written {
    log: Arc<SimLog>,
    replica: Replica,
    found: Vec<Checkpoint>,
}

impl Written {
    /// A log with so many places for checkpoints.
    fn new(settings: &Settings, places: usize) -> Written {
        let mut written = Written { log: SimLog::new(), replica: Replica::default(), found: Vec::new() };
        let genesis = settings.genesis(Id::from_bits(1), 1);
        let open = genesis.open(1);
        written.says(1, 0, What::Genesis(genesis));
        for session in 2..9 {
            written.says(session, 0, open.clone());
        }
        for seq in 1.. {
            if written.found.len() == places {
                break;
            }
            written.says(2, seq, What::Barrier);
        }
        written
    }

    fn says(&mut self, session: u128, seq: u64, what: What) {
        self.log.append(&Record::new(Id::from_bits(session), seq, what).encode());
        let Found::Records { entries: read, .. } = self.log.read(self.replica.next(), None, 1) else {
            panic!("it is there");
        };
        self.found.extend(self.replica.apply(&read[0]).unwrap().checkpoint);
    }

    /// A part of one of the checkpoints, of which there are two.
    fn part(&self, which: usize, number: usize) -> Part {
        let checkpoint = &self.found[which];
        checkpoint.parts(checkpoint.state.len().div_ceil(2)).swap_remove(number)
    }

    /// Both parts of a checkpoint, as the next two records of this session.
    fn writes(&mut self, session: u128, seq: u64, which: usize) {
        for number in 0..2 {
            let part = self.part(which, number);
            self.says(session, seq + u64::try_from(number).unwrap(), What::Checkpoint(part));
        }
    }

    /// Where a newcomer begins to fold.
    async fn begins(&self) -> Result<u64, Halt> {
        let faulty = Faulty::new(&self.log);
        let log: Arc<dyn Log> = faulty.clone();
        let replica = newcomer::begin(&log).await?.replica;
        assert_eq!(replica.next(), self.log.bounds().end, "it has read all there is");
        assert_eq!(replica.image(), self.replica.image());
        let begun = faulty.begun.lock().unwrap().pop();
        Ok(begun.unwrap())
    }
}

#[test]
fn a_newcomer_begins_with_the_second_newest_checkpoint() {
    in_paused_time(async {
        let fresh = || Written::new(&settings(), 3);
        let mut log = fresh();
        log.writes(3, 1, 0);
        assert_eq!(log.begins().await, Ok(0), "nothing would check it");
        log.writes(3, 3, 1);
        assert_eq!(log.begins().await, Ok(16));
        log.writes(4, 1, 1);
        assert_eq!(log.begins().await, Ok(16), "that was the same");
        log.writes(4, 3, 2);
        assert_eq!(log.begins().await, Ok(32));
        log.writes(5, 1, 0);
        assert_eq!(log.begins().await, Ok(32), "that one is old");

        let mut log = fresh();
        log.writes(3, 1, 0);
        log.writes(3, 3, 1);
        let wrong = Checkpoint { state: log.found[2].state.replacen(':', " :", 1), ..log.found[2].clone() };
        for (seq, part) in (5..).zip(wrong.parts(wrong.state.len().div_ceil(2))) {
            log.says(3, seq, What::Checkpoint(part));
        }
        assert_eq!(log.begins().await, Ok(16), "the newest is not what it names");
    });
}

// As the fold does, which knows the sessions.
#[test]
fn a_newcomer_puts_the_parts_together() {
    in_paused_time(async {
        let mut log = Written::new(&settings(), 3);
        log.writes(3, 1, 0);
        let part = |log: &Written, which, number| What::Checkpoint(log.part(which, number));
        // (who, as which record, of which checkpoint, which part)
        for (session, seq, which, number) in [
            // Begun, and begun once more; another one comes in between, and a late copy.
            (3, 3, 1, 0),
            (3, 4, 1, 0),
            (4, 5, 0, 0),
            (3, 2, 0, 1),
            (3, 6, 1, 1),
        ] {
            let part = part(&log, which, number);
            log.says(session, seq, part);
        }
        log.writes(5, 1, 2);
        assert!(log.replica.has_counted(48));
        assert_eq!(log.begins().await, Ok(32));
    });
}

/// Where records were copied from another log, its checkpoints are between those of this one.
#[test]
fn a_newcomer_begins_with_no_checkpoint_of_another_log() {
    in_paused_time(async {
        let mut log = Written::new(&settings(), 3);
        let other = |at: usize, by: u64| {
            let found = &log.found[at];
            let mut image = found.image().unwrap();
            (image.genesis.incarnation, image.clock.stamp) = (Id::from_bits(99), image.clock.stamp + by);
            Checkpoint::new(found.at_offset, &image)
        };
        let (first, second) = (other(0, 1_000), other(1, 1_000));
        let late = Checkpoint { at_offset: 1 << 20, ..other(2, 0) };
        for (seq, copied) in (1..).zip([&first, &second, &late]) {
            log.says(9, seq, What::Checkpoint(copied.parts(usize::MAX).remove(0)));
        }
        assert_eq!(log.begins().await, Ok(0));
        log.writes(3, 1, 2);
        assert_eq!(log.begins().await, Ok(0), "none of this log checks that one");
        log.log.delete(17);
        assert_eq!(log.begins().await, Ok(48), "and there is no other");
        log.writes(3, 3, 1);
        log.log.delete(31);
        assert_eq!(log.begins().await, Ok(48), "that one is old");
    });
}

#[test]
fn a_newcomer_to_a_shortened_log_needs_a_checkpoint_that_is_not_too_old() {
    in_paused_time(async {
        let mut log = Written::new(&settings(), 3);
        log.log.delete(20);
        assert_eq!(log.begins().await, Err(Halt::Missing));
        // Both written late; with the first nothing can be begun any more.
        log.writes(3, 1, 0);
        log.writes(3, 3, 1);
        assert_eq!(log.begins().await, Ok(32));
    });
}

#[test]
fn a_newcomer_searches_as_much_of_the_log_as_it_must() {
    in_paused_time(async {
        let settings = Settings { checkpoint_every: 2_000.try_into().unwrap(), ..settings() };
        let mut log = Written::new(&settings, 2);
        log.writes(3, 1, 0);
        log.writes(3, 3, 1);
        log.log.delete(1);
        for seq in 5..9_000 {
            log.says(3, seq, What::Barrier);
        }
        assert_eq!(log.begins().await, Ok(2_000));
    });
}

#[test]
fn a_log_is_begun_though_its_first_record_was_lost() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        log.loses.store(1, SeqCst);
        let begun = timeout(Duration::from_secs(3), log.backend(&settings())).await;
        assert_eq!(halted(&begun.expect("it is said again after 2 s")).await, None);
    });
}
