//! The rules of the fold, one by one.

use lockcore::{Claim, Mode, Queue};

use super::*;
use crate::settings::Settings;
use crate::what::{Break, LetGo, Target};

const EPOCH: u64 = 1_700_000_000;
const SECOND: u64 = 1_000_000;
const ME: Id = Id::from_bits(2);

/// A log that is folded as it is written; times are in seconds since its beginning.
struct Written {
    replica: Replica,
    seq: u64,
}

impl Written {
    fn new() -> Written {
        let mut log = Written { replica: Replica::default(), seq: 0 };
        let genesis = Settings::default().genesis(Id::from_bits(1), 1);
        let begin = What::Genesis(genesis.clone());
        log.reads(0, &Read::Record(Box::new(Record::new(Id::from_bits(1), 0, begin))));
        log.says(0, genesis.open(1));
        log
    }

    fn reads(&mut self, at: u64, read: &Read) -> Folded {
        self.replica.apply_read(self.replica.next, (EPOCH + at) * SECOND, read).unwrap()
    }

    fn says(&mut self, at: u64, what: What) -> Folded {
        self.seq += 1;
        self.reads(at, &Read::Record(Box::new(Record::new(ME, self.seq, what))))
    }

    /// A claim that joins; the offset of the record that set its lease.
    fn joins(&mut self, at: u64, id: u128, ttl: u64) -> u64 {
        let claim =
            Claim::new(key(), Mode::Exclusive, Duration::from_secs(ttl)).with_id(ClaimId::from_bits(id));
        self.says(at, What::Acquire(Join::of(&claim.with_owner(Some("ann".into())), Queue::Join)));
        self.replica.next - 1
    }

    /// Whether a proposal to end this lease is accepted.
    fn ends(&mut self, at: u64, id: u128, lease: u64) -> bool {
        let leases = vec![Named { claim: ClaimId::from_bits(id), lease }];
        let folded = self.says(at, What::Expire { leases, unanswered: Vec::new() });
        matches!(folded.answer, Answer::Lapsed(lapsed) if !lapsed.is_empty())
    }

    /// Whether a proposal to end it because its holder does not answer is accepted.
    fn ends_for_silence(&mut self, at: u64, id: u128, lease: u64) -> bool {
        let unanswered = vec![Named { claim: ClaimId::from_bits(id), lease }];
        let folded = self.says(at, What::Expire { leases: Vec::new(), unanswered });
        matches!(folded.answer, Answer::Lapsed(lapsed) if !lapsed.is_empty())
    }

    /// Whether the holder of this lease is asked for a sign of life.
    fn suspects(&mut self, at: u64, id: u128, lease: u64) -> bool {
        let leases = vec![Named { claim: ClaimId::from_bits(id), lease }];
        let folded = self.says(at, What::Suspect { leases });
        matches!(folded.answer, Answer::Suspected(asked) if !asked.is_empty())
    }
}

fn key() -> Key {
    Key::new("k").unwrap()
}

#[test]
fn a_record_that_is_skipped_moves_the_clock_too() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 15);
    log.reads(8, &Read::Skipped);
    // From one record to the next it goes on by 10 s at most.
    assert!(log.ends(16, 1, lease));
}

#[test]
fn a_record_that_does_not_count_moves_the_clock_too() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 15);
    log.reads(8, &Read::Record(Box::new(Record::new(Id::from_bits(9), 1, What::Barrier))));
    assert!(log.ends(16, 1, lease));
}

#[test]
fn brokers_clocks_end_a_lease_after_the_margin_and_the_grace() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 30);
    assert!(!log.suspects(34, 1, lease), "within the margin of 5 s");
    assert!(!log.ends(36, 1, lease), "nobody was asked");
    assert!(!log.suspects(36, 1, lease - 1), "of another lease");
    assert!(log.suspects(36, 1, lease));
    assert!(!log.suspects(37, 1, lease), "it was asked already");
    assert!(!log.ends(37, 1, lease), "it has 2 s to answer");
    assert!(log.ends(38, 1, lease), "from when it was asked first");
}

#[test]
fn a_sign_of_life_ends_the_suspicion() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 30);
    assert!(log.suspects(36, 1, lease));
    log.says(37, What::Alive { claims: vec![ClaimId::from_bits(1)] });
    assert!(!log.ends(39, 1, lease));
    assert!(log.suspects(39, 1, lease), "it may be asked again");
}

#[test]
fn whoever_proposes_for_silence_is_not_heard_after_the_sign_of_life() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 8);
    // A broker's clock goes forward by an hour, and takes the log's clock past the lease.
    assert!(log.suspects(3600, 1, lease));
    assert!(!log.ends_for_silence(3601, 1, lease), "it has 2 s to answer");
    log.says(3601, What::Alive { claims: vec![ClaimId::from_bits(1)] });
    assert!(!log.ends_for_silence(3603, 1, lease), "nobody has waited for the lease");
    assert!(log.suspects(3603, 1, lease) && log.ends_for_silence(3605, 1, lease));
}

#[test]
fn a_lease_that_was_set_since_does_not_end() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 5);
    let renew = |order| Renew { claim: ClaimId::from_bits(1), ttl_us: 5 * SECOND, order };
    log.says(4, What::Heartbeat { renew: vec![renew(2)] });
    let renewed = log.replica.next - 1;
    log.says(6, What::Heartbeat { renew: vec![renew(1)] });
    assert!(!log.ends(9, 1, lease) && log.ends(9, 1, renewed), "a late copy sets nothing");
}

#[test]
fn what_has_ended_has_no_lease() {
    let let_go =
        LetGo { identifier: key(), claim: ClaimId::from_bits(1), answered: true, only_waiting: false };
    let newer = Claim::new(key(), Mode::Exclusive, Duration::from_secs(9)).with_owner(Some("ann".into()));
    let lapses = What::Expire {
        leases: vec![Named { claim: ClaimId::from_bits(1), lease: 2 }],
        unanswered: Vec::new(),
    };
    for ends in [
        What::Release(let_go),
        What::Break(Break { identifier: key(), target: Target::All }),
        What::Acquire(Join::of(&newer.taking_over(true), Queue::Join)),
        lapses,
    ] {
        let mut log = Written::new();
        assert_eq!(log.joins(0, 1, 9), 2);
        let folded = log.says(9, ends.clone());
        let id = ClaimId::from_bits(1);
        assert!(log.replica.lease(id).is_none(), "{ends:?}");
        assert!(folded.touched.contains(&id), "whoever watches it stops: {ends:?}");
    }
}

#[test]
fn an_id_names_one_claim_on_one_key() {
    let mut log = Written::new();
    log.joins(0, 1, 9);
    let elsewhere = Claim::new(Key::new("other").unwrap(), Mode::Exclusive, Duration::from_secs(9));
    let join = Join::of(&elsewhere.with_id(ClaimId::from_bits(1)), Queue::Join);
    let folded = log.says(1, What::Acquire(join));
    assert!(matches!(folded.answer, Answer::Attempt(Attempt::Gone)), "{folded:?}");
}

#[test]
fn what_is_over_is_not_kept() {
    const CYCLES: u64 = 75_000;
    const CYCLES_OF_A_CLIENT: u64 = 1_000;
    let mut log = Written::new();
    let window = log.replica.window();
    let mut longest = 0;
    for cycle in 1..=CYCLES {
        let (at, claim) = (cycle / 100, ClaimId::from_bits(cycle.into()));
        log.joins(at, cycle.into(), 30);
        if cycle.is_multiple_of(CYCLES_OF_A_CLIENT) {
            longest = longest.max(serde_json::to_vec(&log.replica.image()).unwrap().len());
            // Another client comes and goes.
            let (session, end) = (Id::from_bits(u128::from(cycle) << 64), log.replica.next);
            let open = log.replica.genesis().unwrap().open(end);
            for (seq, what) in [(0, open), (1, What::Close)] {
                log.reads(at, &Read::Record(Box::new(Record::new(session, seq, what))));
            }
        }
        let let_go = LetGo { identifier: key(), claim, answered: true, only_waiting: false };
        assert!(matches!(log.says(at, What::Release(let_go)).answer, Answer::Released(Released::Released)));
    }
    assert!(log.replica.next > window, "sessions are forgotten in it");
    assert!(log.replica.locks.is_empty() && log.replica.claims.is_empty());
    assert!(log.replica.hashes.len() <= HASHES);
    // 50 clients within a window, and a claim.
    assert!(longest < 4_500, "the state has up to {longest} bytes");
}

#[test]
fn a_session_of_another_log_is_not_heard() {
    let mut log = Written::new();
    let here = log.replica.genesis().unwrap().clone();
    for other in
        [Genesis { incarnation: Id::from_bits(9), ..here.clone() }, Genesis { partition: 1, ..here.clone() }]
    {
        let stranger = Id::from_bits(7);
        let open = other.open(log.replica.next);
        let opened = log.reads(0, &Read::Record(Box::new(Record::new(stranger, 0, open))));
        assert!(matches!(opened.answer, Answer::NotCounted), "{other:?}");
        let of = Break { identifier: key(), target: Target::All };
        let said = log.reads(0, &Read::Record(Box::new(Record::new(stranger, 1, What::Break(of)))));
        assert!(matches!(said.answer, Answer::NotCounted), "{other:?}");
    }
}
