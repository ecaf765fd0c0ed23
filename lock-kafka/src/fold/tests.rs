//! The rules of the fold, one by one.

use lockcore::{Claim, Mode, Queue};

use super::*;
use crate::checkpoint::Image;
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
    let folded = log.says(37, What::Alive { claims: vec![ClaimId::from_bits(1)] });
    assert_eq!(folded.touched, [ClaimId::from_bits(1)], "whoever watches it sees that");
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
fn the_ids_of_what_has_ended_are_forgotten_after_an_hour() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 9);
    assert!(log.ends(9, 1, lease));
    for at in (10..=3_610).step_by(10) {
        log.says(at, What::Barrier);
    }
    assert!(!log.replica.locks.is_empty(), "a copy of what it asked may be under way");
    let place = log.replica.genesis().unwrap().checkpoint_every.get();
    log.replica.apply_read(place, (EPOCH + 3_610) * SECOND, &Read::Skipped).unwrap();
    assert!(log.replica.locks.is_empty());
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
    assert!(longest < 3_300, "the state has up to {longest} bytes");
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

// None of the dead is handed the lock.
#[test]
fn leases_of_one_key_that_end_in_one_record_end_together() {
    let mut log = Written::new();
    let dead = [1, 2].map(|id| Named { claim: ClaimId::from_bits(id), lease: log.joins(0, id, 9) });
    log.joins(0, 3, 9);
    let folded = log.says(9, What::Expire { leases: dead.to_vec(), unanswered: Vec::new() });
    let granted = folded.effects.iter().filter_map(|effect| match effect {
        Effect::Granted { claim, .. } => Some(claim.id()),
        Effect::Ended { .. } => None,
    });
    assert_eq!(granted.collect::<Vec<_>>(), [ClaimId::from_bits(3)]);
}

#[test]
fn a_renewal_that_came_late_but_is_the_last_sets_the_lease() {
    let mut log = Written::new();
    let first = log.joins(0, 1, 5);
    let renew = Renew { claim: ClaimId::from_bits(1), ttl_us: 5 * SECOND, order: 2 };
    for at in [3, 4] {
        // It was sent once more, under a new number.
        log.says(at, What::Heartbeat { renew: vec![renew.clone()] });
        assert_eq!(log.replica.lease(renew.claim).unwrap().offset, log.replica.next - 1);
    }
    assert!(!log.ends(9, 1, first));
}

// Nobody else begins it anew.
#[test]
fn the_first_genesis_counts() {
    let mut log = Written::new();
    let first = log.replica.genesis().cloned();
    log.says(1, What::Genesis(Settings::default().genesis(Id::from_bits(7), 3)));
    assert_eq!(log.replica.genesis().cloned(), first);
}

/// All parts of a checkpoint, each in a record of its own; whether it counts.
fn counts(log: &mut Written, checkpoint: &Checkpoint) -> bool {
    let before = log.replica.counted;
    for part in checkpoint.parts(checkpoint.state.len().div_ceil(2)) {
        log.says(1, What::Checkpoint(part));
    }
    log.replica.counted != before
}

#[test]
fn a_checkpoint_counts_with_its_last_part_if_it_is_due_whole_and_newer() {
    let mut log = Written::new();
    let every = Settings::default().checkpoint_every.get();
    let mut found = Vec::new();
    while found.len() < 2 {
        found.extend(log.says(1, What::Barrier).checkpoint);
    }
    let (older, newer) = (&found[0], &found[1]);
    assert_eq!([older.at_offset, newer.at_offset], [every, 2 * every]);
    let wrong = Image { last_token: 7, ..older.image().unwrap() };
    let mut other = log.replica.clone();
    let part = Checkpoint::new(every, &wrong).parts(usize::MAX).remove(0);
    let late = Read::Record(Box::new(Record::new(ME, log.seq + 1, What::Checkpoint(part))));
    let halted = other.apply_read(other.next, 0, &late).unwrap_err();
    assert_eq!(halted, Halt::Diverged { at_offset: every }, "however late");
    let state = newer.state.clone();
    assert!(!counts(&mut log, &Checkpoint { at_offset: 2 * every - 1, ..newer.clone() }), "is no multiple");
    assert!(!counts(&mut log, &Checkpoint { at_offset: 3 * every, ..newer.clone() }), "is yet to come");
    assert!(!counts(&mut log, &Checkpoint { state: state + " ", ..newer.clone() }), "is not what it names");
    let parts = newer.parts(newer.state.len().div_ceil(2));
    log.says(1, What::Checkpoint(parts[0].clone()));
    assert!(log.replica.progress(2 * every).is_some() && log.replica.progress(every).is_none());
    assert_eq!(log.replica.counted, 0, "a part is missing");
    let other = Id::from_bits(9);
    let end = log.replica.next;
    let open = log.replica.genesis().unwrap().open(end);
    for (seq, what) in [(0, open), (1, What::Checkpoint(parts[1].clone()))] {
        log.reads(1, &Read::Record(Box::new(Record::new(other, seq, what))));
    }
    assert_eq!(log.replica.counted, 0, "that one is another session's");
    let mut both = Written { replica: log.replica.clone(), seq: log.seq };
    assert!(
        counts(&mut both, older) && both.replica.deletable().is_none(),
        "there is to be one to begin with"
    );
    assert!(
        counts(&mut both, newer) && both.replica.deletable() == Some(every - 1),
        "and one to check it by"
    );
    assert!(counts(&mut log, newer));
    assert!(log.replica.progress(2 * every).is_none());
    assert!(!counts(&mut log, newer) && !counts(&mut log, older), "is older than the last that counted");
}

// What a transaction leaves behind is an offset without a record.
#[test]
fn a_checkpoint_is_due_where_its_offset_has_no_record() {
    let mut log = Written::new();
    let every = Settings::default().checkpoint_every.get();
    log.joins(0, 1, 30);
    let folded = log.replica.apply_read(every + 1, (EPOCH + 1) * SECOND, &Read::Skipped).unwrap();
    let checkpoint = folded.checkpoint.expect("it is due");
    assert_eq!(checkpoint.at_offset, every);
    assert!(counts(&mut log, &checkpoint));
}

// Programs of different versions compare their hashes.
#[test]
fn a_state_is_written_as_it_is_in_the_logs_that_there_are() {
    let mut log = Written::new();
    let lease = log.joins(0, 1, 3);
    assert!(log.suspects(9, 1, lease));
    log.joins(9, 2, 9);
    let shared = Claim::new(Key::new("other").unwrap(), Mode::Shared, Duration::from_secs(9))
        .with_id(ClaimId::from_bits(3))
        .with_note(Some("why".into()));
    log.says(10, What::Acquire(Join::of(&shared, Queue::Join)));
    let claim = ClaimId::from_bits(4);
    let let_go = LetGo { identifier: key(), claim, answered: false, only_waiting: false };
    log.says(10, What::Release(let_go));
    let end = log.replica.next;
    let open = log.replica.genesis().unwrap().open(end);
    for (seq, what) in [(0, open), (1, What::Close)] {
        log.reads(10, &Read::Record(Box::new(Record::new(Id::from_bits(9), seq, what))));
    }
    let checkpoint = Checkpoint::new(log.replica.next, &log.replica.image().unwrap());
    log.says(10, What::Checkpoint(checkpoint.parts(500).remove(0)));
    let checkpoint = Checkpoint::new(log.replica.next, &log.replica.image().unwrap());
    assert_eq!(checkpoint.state, STATE.concat());
    assert_eq!(String::from(checkpoint.hash), HASH);
    assert_eq!(Replica::of(&checkpoint).unwrap().image(), log.replica.image());
}

/// What it has been since the first log was written.
const STATE: [&str; 7] = [
    r#"{"genesis":{"incarnation":"00000000000000000000000000000001","partitions":1,"partition":0,"margin_us":5000000,"grace_us":2000000,"step_us":10000000,"checkpoint_every":10000,"window":100000},"#,
    r#""clock":{"now":10000000,"stamp":1700000010000000},"last_token":1700000010000000,"counted":0,"#,
    r#""sessions":{"open":{"00000000000000000000000000000002":{"seq":7,"last":9,"end":1,"writes":{"at_offset":9,"hash":"778c2117ff0ced2b","of":4,"next":1,"found":"755e230c7ef51da0"}}},"closed":{"00000000000000000000000000000009":100007}},"#,
    r#""locks":[["k",{"claims":[{"id":"00000000000000000000000000000001","mode":"exclusive","owner":"ann","since":0,"expires":3000000,"renewed":0,"converted":0,"standing":{"granted":{"token":1700000000000000,"floor":1700000000000000}}},"#,
    r#"{"id":"00000000000000000000000000000002","mode":"exclusive","owner":"ann","since":9000000,"expires":18000000,"renewed":0,"converted":0,"standing":{"queued":{"rank":"arrived","arrival":2}}}],"arrivals":2,"last_token":1700000010000000,"ended":[[3610000000,"00000000000000000000000000000004"]]}],"#,
    r#"["other",{"claims":[{"id":"00000000000000000000000000000003","mode":"shared","note":"why","since":10000000,"expires":19000000,"renewed":0,"converted":0,"standing":{"granted":{"token":1700000010000000,"floor":1700000010000000}}}],"arrivals":1,"last_token":1700000010000000}]],"#,
    r#""leases":[["00000000000000000000000000000001",{"offset":2,"stamp":1700000000000000,"length_us":3000000,"suspected":9000000}],["00000000000000000000000000000002",{"offset":4,"stamp":1700000009000000,"length_us":9000000}],["00000000000000000000000000000003",{"offset":5,"stamp":1700000010000000,"length_us":9000000}]]}"#,
];
const HASH: &str = "a7c86e728fa455e9";
