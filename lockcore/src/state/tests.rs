//! The rules of the lock, one test for each thing that they promise; `S…` is the rule in `docs/semantics.md`.

mod scene;

use std::time::Duration;

use self::scene::{
    Scene, Way, at_most, claim, exclusive, is_granted, is_queued, of, permit, shared, taking_over,
};
use super::{Attempt, ClaimId, ClaimInfo, FencingToken, LockState, Mode, Moment, Refusal, Snapshot};
use crate::backend::{BreakTarget, FORGET_AFTER, Released};

// S1, S2
#[test]
fn acquiring_again_answers_the_same_grant_or_place() {
    let mut lock = Scene::new();
    let first = lock.holds(exclusive(1));
    lock.waits(exclusive(2));
    lock.waits(exclusive(3));
    assert_eq!(lock.holds(exclusive(1)).fence, first.fence);
    lock.waits(exclusive(2));
    assert_eq!((lock.view(), lock.told()), ("1 | 2 3".into(), String::new()));
}

// S2
#[test]
fn an_ended_claim_never_comes_back() {
    let mut lock = Scene::with([of("a", exclusive(1)), exclusive(2), exclusive(3), exclusive(4)]);
    lock.broken(&BreakTarget::Claim(ClaimId::from_bits(1)));
    lock.withdraw(2);
    assert_eq!(lock.withdraw(9), Released::NotHeld, "its withdrawal came before its acquire");
    lock.sleep(10);
    assert_eq!(lock.view(), "", "3 and 4 expired");
    lock.acquire(of("a", exclusive(5)));
    lock.acquire(taking_over("a", exclusive(6)));
    for id in [1, 2, 9, 3, 4, 5] {
        assert_eq!(lock.acquire(taking_over("a", exclusive(id))), Attempt::Gone, "{id}");
    }
    assert_eq!(lock.view(), "6");
}

// S2
#[test]
fn an_id_is_remembered_for_an_hour_after_the_last_reason_to() {
    let mut lock = Scene::new();
    lock.withdraw(1);
    lock.sleep(60);
    lock.withdraw(1);
    lock.sleep(FORGET_AFTER.as_secs() - 1);
    assert_eq!(lock.acquire(exclusive(1)), Attempt::Gone);
    assert!(!lock.lock.is_idle());
    lock.sleep(1);
    assert_eq!(lock.view(), "");
    assert!(lock.lock.is_idle());
    lock.holds(exclusive(1));
}

// S3
#[test]
fn readers_share_writers_do_not_and_a_permit_bounds_all() {
    let mut lock = Scene::with([shared(1), permit(2, 3), permit(3, 9)]);
    assert_eq!(lock.attempt(shared(4)), Attempt::Busy, "2 tolerates three holders");
    assert_eq!(lock.attempt(exclusive(4)), Attempt::Busy);
    lock.release(2);
    assert_eq!(lock.attempt(permit(4, 2)), Attempt::Busy, "4 itself tolerates two");
    lock.holds(shared(4));
    assert_eq!(lock.view(), "1 3 4");
}

// S4
#[test]
fn nobody_overtakes_the_queue() {
    let mut lock = Scene::with([shared(1), exclusive(2)]);
    lock.waits(shared(3));
    assert_eq!(lock.attempt(shared(4)), Attempt::Busy, "a try neither overtakes nor queues");
    lock.waits(exclusive(5));
    lock.release(1);
    assert_eq!((lock.view(), lock.told()), ("2 | 3 5".into(), "granted 2".into()));
}

// S4, S5, S12
#[test]
fn readers_at_the_head_are_granted_as_one_batch() {
    let mut lock = Scene::with([exclusive(1), shared(2), permit(3, 3), shared(4), shared(5), exclusive(6)]);
    lock.release(1);
    assert_eq!((lock.view(), lock.told()), ("2 3 4 | 5 6".into(), "granted 2, granted 3, granted 4".into()));
    let floor = lock.fence(2).0;
    assert_eq!([lock.fence(3), lock.fence(4)], [(floor + 1, floor), (floor + 2, floor)]);
}

// S5
#[test]
fn every_way_of_letting_go_hands_over() {
    let ways: [Way; 6] = [
        ("release", |lock| _ = lock.release(1)),
        ("withdrawal", |lock| _ = lock.withdraw(1)),
        ("break", |lock| _ = lock.broken(&BreakTarget::Holders)),
        ("downgrade", |lock| _ = lock.convert(1, Mode::Shared, 1)),
        ("expiry", |lock| _ = (lock.renew(1, 1, 1), lock.sleep(1))),
        ("take-over", |lock| _ = lock.acquire(taking_over("a", shared(9)))),
    ];
    for (way, let_go) in ways {
        let mut lock = Scene::with([of("a", exclusive(1)), shared(2), shared(3)]);
        let_go(&mut lock);
        assert!(lock.view().contains("2 3") && !lock.view().contains('|'), "{way}: {}", lock.view());
    }
    let mut lock = Scene::with([shared(1), exclusive(2), shared(3)]);
    lock.withdraw(2);
    assert_eq!(lock.view(), "1 3", "the withdrawal of a waiter lets those behind it in");
}

// S5
#[test]
fn only_the_head_of_the_queue_watches_the_leases() {
    let mut lock = Scene::with([shared(1), shared(2)]);
    lock.renew(2, 5, 1).unwrap();
    assert_eq!(lock.waits(exclusive(3)).recheck, Some(Duration::from_secs(5)));
    assert_eq!(lock.waits(exclusive(4)).recheck, None);
    lock.convert(1, Mode::Exclusive, 1).unwrap();
    assert_eq!(lock.waits(exclusive(3)).recheck, None, "the upgrade goes first");
}

// S6
#[test]
fn expired_claims_are_removed_before_any_other_rule() {
    let mut lock = Scene::with([exclusive(1), exclusive(2), exclusive(3)]);
    assert_eq!(lock.lock.next_expiry(), Some(lock.now.after(Duration::from_secs(10))));
    lock.sleep(9);
    lock.waits(exclusive(3));
    lock.sleep(1);
    assert_eq!((lock.view(), lock.told()), ("1 | 3".into(), "expired 2".into()));
    lock.renew(1, 1, 1).unwrap();
    lock.sleep(1);
    assert_eq!(lock.attempt(exclusive(4)), Attempt::Busy, "3 was first");
    assert_eq!((lock.view(), lock.told()), ("3".into(), "expired 1, granted 3".into()));
    assert_eq!(lock.release(1), Released::NotHeld);
}

// S7
#[test]
fn a_renewal_counts_from_now_and_never_resurrects() {
    let mut lock = Scene::with([exclusive(1)]);
    lock.sleep(20);
    assert_eq!(lock.renew(1, 12, 1), Ok(12));
    assert_eq!(lock.renew(1, 3, 2), Ok(3), "it may be shorter");
    assert_eq!(lock.renew(1, 99, 1), Ok(3), "a late copy of an old one changes nothing");
    lock.sleep(3);
    assert_eq!(lock.renew(1, 30, 3), Err(Refusal::Lost), "even when the key is free");
    assert_eq!(lock.view(), "");
    lock.holds(exclusive(2));
    lock.waits(exclusive(3));
    assert_eq!(lock.renew(3, 30, 1), Err(Refusal::Lost), "a waiter is no holder");
}

// S9
#[test]
fn being_granted_does_not_change_a_lease() {
    let mut lock = Scene::with([exclusive(1), exclusive(2)]);
    assert_eq!(lock.snapshot().holders[0].left.as_secs(), 30, "granted by its own request: the ttl");
    assert_eq!(lock.snapshot().waiters[0].left.as_secs(), 10, "it waits: the waiter's ttl");
    lock.sleep(4);
    lock.release(1);
    assert_eq!(lock.snapshot().holders[0].left.as_secs(), 6, "handed over: what was left");
    assert_eq!(lock.holds(exclusive(2)).left.as_secs(), 10, "its request finds it granted: the waiter's ttl");
    assert_eq!(lock.renew(2, 30, 1), Ok(30));
    assert_eq!(lock.holds(exclusive(2)).left.as_secs(), 30, "a late heartbeat cuts nothing short");
    lock.waits(exclusive(3).with_waiter_ttl(Duration::from_secs(60)));
    assert_eq!(lock.snapshot().waiters[0].left.as_secs(), 30, "never above the ttl");
}

// S12
#[test]
fn tokens_only_grow_and_follow_the_clock() {
    let mut lock = Scene::new();
    lock.now = Moment::from_micros(100);
    assert_eq!(lock.holds(exclusive(1)).fence.token.get(), 100);
    lock.release(1);
    assert_eq!(lock.holds(exclusive(2)).fence.token.get(), 101, "within the same microsecond");
    lock.broken(&BreakTarget::All);
    lock.now = Moment::from_micros(50);
    assert_eq!(lock.holds(exclusive(3)).fence.token.get(), 102, "the clock went back");
    lock.sleep(30);
    assert_eq!(lock.holds(exclusive(4)).fence.token.get(), 30_000_050, "after an expiry");
    let mut restarted = Scene { lock: LockState::after_token(u64::from(u32::MAX)), ..Scene::new() };
    assert_eq!(restarted.holds(exclusive(5)).fence.token.get(), u64::from(u32::MAX) + 1);
    let mut last = Scene { lock: LockState::after_token(u64::MAX), ..Scene::new() };
    assert_eq!(last.holds(exclusive(6)).fence.token.get(), FencingToken::MAX, "it fits a signed column");
}

// S12
#[test]
fn the_floor_is_the_smallest_token_among_the_holders() {
    let mut lock = Scene::with([shared(1), shared(2), shared(3)]);
    let (second, last) = (lock.fence(2).0, lock.fence(3).0);
    lock.release(1);
    lock.acquire(shared(4));
    assert_eq!(lock.fence(4), (last + 1, second));
    lock.broken(&BreakTarget::All);
    lock.acquire(exclusive(5));
    let exclusive = lock.fence(5);
    assert_eq!(exclusive, (last + 2, last + 2));
    lock.renew(5, 30, 1).unwrap();
    lock.convert(5, Mode::Shared, 2).unwrap();
    assert_eq!(lock.fence(5), exclusive, "renewal and downgrade keep the token");
    lock.convert(5, Mode::Exclusive, 3).unwrap();
    assert_eq!(lock.fence(5), (last + 3, last + 3), "an upgrade gets a new one");
}

// S14
#[test]
fn a_release_removes_exactly_this_claim() {
    let mut lock = Scene::with([shared(1), shared(2), exclusive(3), exclusive(4)]);
    let only_waiting = |lock: &mut Scene, id| {
        lock.lock.release(lock.now, ClaimId::from_bits(id), false, true, &mut lock.effects)
    };
    assert!(matches!(only_waiting(&mut lock, 1), Released::Granted(_)), "a granted one stays");
    assert_eq!(only_waiting(&mut lock, 3), Released::Released);
    assert_eq!([lock.release(2), lock.release(2)], [Released::Released, Released::NotHeld]);
    assert_eq!((lock.view(), lock.told()), ("1 | 4".into(), String::new()));
    lock.release(1);
    assert_eq!((lock.view(), lock.lock.is_in_use()), ("4".into(), true));
}

// S15
#[test]
fn a_break_removes_what_it_names() {
    let scene =
        || Scene::with([of("a", shared(1)), of("b", shared(2)), exclusive(3), of("a", shared(4)), shared(5)]);
    let named = |target: &BreakTarget| {
        let mut lock = scene();
        (lock.broken(target), lock.view(), lock.told())
    };
    let token = FencingToken::new(scene().fence(2).0).unwrap();
    let is = |ids: &[u128], view: &str, told: &str| (ids.to_vec(), view.to_owned(), told.to_owned());
    assert_eq!(
        named(&BreakTarget::Claim(ClaimId::from_bits(3))),
        is(&[3], "1 2 4 5", "broken 3, granted 4, granted 5")
    );
    assert_eq!(named(&BreakTarget::Token(token)), is(&[2], "1 | 3 4 5", "broken 2"));
    assert_eq!(named(&BreakTarget::Owner("a".into())), is(&[1, 4], "2 | 3 5", "broken 1, broken 4"));
    assert_eq!(named(&BreakTarget::Owner("nobody".into())), is(&[], "1 2 | 3 4 5", ""));
    assert_eq!(named(&BreakTarget::Holders), is(&[1, 2], "3 | 4 5", "broken 1, broken 2, granted 3"));
    assert_eq!(named(&BreakTarget::All).0, [1, 2, 3, 4, 5]);

    let mut lock = scene();
    let before = lock.fence(2).0;
    lock.broken(&BreakTarget::Holders);
    assert_eq!((lock.renew(1, 30, 1), lock.release(2)), (Err(Refusal::Lost), Released::NotHeld));
    assert!(
        lock.view() == "3 | 4 5" && lock.fence(3).0 > before,
        "late requests change nothing, tokens go on"
    );
}

// S16
#[test]
fn a_take_over_ends_its_owners_claims_and_goes_ahead_of_the_queue() {
    let mut lock = Scene::with([of("a", exclusive(1)), of("b", exclusive(2)), of("a", exclusive(3))]);
    let before = lock.fence(1).0;
    lock.holds(taking_over("a", exclusive(4)));
    assert_eq!((lock.view(), lock.told()), ("4 | 2".into(), "taken over 1, taken over 3".into()));
    assert!(lock.fence(4).0 > before);
    assert_eq!(lock.holds(taking_over("a", exclusive(4))).left.as_secs(), 30, "once more changes nothing");

    let mut lock = Scene::with([of("a", shared(1)), of("b", shared(2)), exclusive(3)]);
    lock.waits(taking_over("a", exclusive(4)));
    assert_eq!(
        (lock.view(), lock.told()),
        ("2 | 4 3".into(), "taken over 1".into()),
        "lost though it must wait"
    );
    lock.waits(taking_over("b", exclusive(5)));
    assert_eq!((lock.view(), lock.told()), ("4 | 5 3".into(), "taken over 2, granted 4".into()));

    let mut lock = Scene::with([exclusive(1), of("a", exclusive(2)), exclusive(3), of("a", exclusive(4))]);
    lock.waits(taking_over("a", exclusive(5)));
    lock.waits(taking_over("c", exclusive(6)));
    assert_eq!(lock.view(), "1 | 5 3 6", "in place of the foremost, and at the tail without one");
}

// S16
#[test]
fn a_take_over_try_that_is_not_granted_replaces_nothing() {
    let mut lock = Scene::with([of("a", shared(1)), shared(2), of("a", exclusive(3)), shared(4)]);
    lock.convert(1, Mode::Exclusive, 1).unwrap();
    assert_eq!(lock.attempt(taking_over("a", exclusive(5))), Attempt::Busy);
    assert_eq!((lock.view(), lock.told()), ("1 2 | 3 4".into(), String::new()));
    lock.release(2);
    assert_eq!(
        (lock.view(), lock.told()),
        ("1 | 3 4".into(), "granted 1".into()),
        "the upgrade still waited"
    );
}

// S16
#[test]
fn a_take_over_is_answered_as_it_stands_after_the_hand_over() {
    let b = |id| of("b", shared(id));
    let mut lock = Scene::with([of("a", shared(1)), b(2), b(3), b(4)]);
    lock.waits(taking_over("a", permit(5, 3)));
    lock.holds(taking_over("b", shared(6)));
    assert_eq!(lock.view(), "5 6", "5 was ahead; both may hold once 2, 3 and 4 are gone");
    let mut lock = Scene::with([of("a", shared(1)), of("b", shared(2))]);
    lock.convert(1, Mode::Exclusive, 1).unwrap();
    assert_eq!(lock.waits(taking_over("b", shared(3))).recheck, Some(Duration::from_secs(30)), "it is next");
}

// S17
#[test]
fn an_upgrade_waits_ahead_of_the_queue_and_nobody_joins_past_it() {
    let mut lock = Scene::with([shared(1), shared(2), exclusive(3)]);
    let before = lock.fence(2).0;
    assert!(is_queued(lock.convert(1, Mode::Exclusive, 1)) && lock.snapshot().holders[0].upgrading);
    lock.withdraw(3);
    assert_eq!(lock.attempt(shared(4)), Attempt::Busy);
    lock.waits(shared(4));
    assert_eq!(lock.convert(2, Mode::Exclusive, 1), Err(Refusal::WouldDeadlock));
    lock.release(2);
    assert_eq!((lock.view(), lock.told()), ("1 | 4".into(), "granted 1".into()));
    assert!(lock.fence(1).0 > before && lock.fence(1).0 == lock.fence(1).1);
    assert!(is_granted(lock.convert(1, Mode::Exclusive, 1)), "repeated, it answers the grant");
    lock.sleep(5);
    assert!(is_granted(lock.convert(1, at_most(2), 2)));
    assert_eq!((lock.view(), lock.told()), ("1 4".into(), "granted 4".into()), "a downgrade admits at once");
}

// S17
#[test]
fn a_waiting_upgrade_ends_with_its_withdrawal_or_its_claim() {
    let ways: [Way; 4] = [
        ("1 2 3", |lock| _ = lock.convert(1, Mode::Shared, 2)),
        ("2 3", |lock| _ = lock.release(1)),
        ("2 3", |lock| _ = lock.broken(&BreakTarget::Owner("a".into()))),
        ("2 3", |lock| _ = (lock.renew(1, 1, 1), lock.sleep(1))),
    ];
    for (view, end) in ways {
        let mut lock = Scene::with([of("a", shared(1)), shared(2)]);
        assert!(is_queued(lock.convert(1, Mode::Exclusive, 1)));
        lock.waits(shared(3));
        end(&mut lock);
        assert_eq!(lock.view(), view);
        assert!(is_queued(lock.convert(2, Mode::Exclusive, 1)), "it is in nobody's way");
    }
}

// S2, S17
#[test]
fn conversions_are_numbered_apart_from_renewals() {
    let mut lock = Scene::with([shared(1), shared(2)]);
    lock.renew(1, 30, 2).unwrap();
    assert!(is_queued(lock.convert(1, Mode::Exclusive, 1)), "its first copy was lost; a renewal went ahead");
    assert!(is_granted(lock.convert(1, Mode::Shared, 3)));
    assert!(is_granted(lock.convert(1, Mode::Exclusive, 1)), "a late copy changes nothing");
    assert!(!lock.snapshot().holders[0].upgrading);
    assert_eq!(lock.convert(1, at_most(3), 4), Err(Refusal::Unsupported));
    lock.waits(exclusive(3));
    assert_eq!(lock.convert(3, Mode::Shared, 1), Err(Refusal::Lost), "a waiter is no holder");
}

// S21
#[test]
fn inspecting_shows_who_holds_and_waits() {
    let noted = of("web-3", exclusive(2)).with_note(Some("nightly".into()));
    let mut lock = Scene::with([shared(1), noted]);
    lock.sleep(4);
    let Snapshot { holders, waiters } = lock.snapshot();
    assert_eq!((holders.len(), waiters.len()), (1, 1));
    let ClaimInfo { id, mode, owner, note, token, age, left, upgrading } = waiters[0].clone();
    assert_eq!((id.to_bits(), mode, token, upgrading), (2, Mode::Exclusive, None, false));
    assert_eq!((owner.as_deref(), note.as_deref()), (Some("web-3"), Some("nightly")));
    assert_eq!((age.as_secs(), left.as_secs(), holders[0].left.as_secs()), (4, 6, 26));
    lock.release(1);
    assert_eq!(lock.snapshot().holders[0].age.as_secs(), 0, "a holder's age counts from its grant");
}

// Far above the number of claims from which on the roster keeps an index.
#[test]
fn a_crowd_is_served_by_the_same_rules() {
    let owner = |id: u128| if id.is_multiple_of(2) { "even" } else { "odd" };
    let mode = |id| match id {
        1 => at_most(40),
        2..=50 => at_most(50),
        _ => Mode::Exclusive,
    };
    let mut lock = Scene::with((1..=100).map(|id| of(owner(id), claim(id, mode(id)))));
    assert_eq!((lock.snapshot().holders.len(), lock.snapshot().waiters.len()), (40, 60));
    lock.release(1);
    assert_eq!(lock.snapshot().holders.len(), 49, "only the smallest bound left");
    let smallest = lock.fence(2).0;
    assert_eq!(lock.broken(&BreakTarget::Owner("odd".into())).len(), 49);
    lock.renew(2, 1, 1).unwrap();
    assert!(lock.broken(&BreakTarget::Token(FencingToken::new(smallest).unwrap())) == [2]);
    for id in (4..=50).step_by(2) {
        assert_eq!(lock.release(id), Released::Released);
    }
    assert!(lock.view().starts_with("52 | 54 56"), "{}", lock.view());
    lock.sleep(10);
    assert_eq!(lock.view(), "");
}
