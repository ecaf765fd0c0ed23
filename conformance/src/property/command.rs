//! What may be asked of a lock, at random.

use std::num::NonZeroU32;

use lockcore::{Mode, Queue};
use proptest::prelude::*;

/// How many claims there are, and on how many keys, in how many names.
pub(super) const CLAIMS: usize = 8;
pub(super) const KEYS: usize = 2;
pub(super) const OWNERS: [&str; 3] = ["ann", "bob", "eve"];

/// What a claim of a sequence is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) key: usize,
    pub(super) mode: Mode,
    pub(super) owner: Option<usize>,
    pub(super) take_over: bool,
    pub(super) ttl: Length,
    pub(super) waiter_ttl: Length,
}

/// How long a lease is: over in the middle between two steps of time, or not over at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Short,
    Long,
}

/// Claims are named by their number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Acquire {
        claim: usize,
        queue: Queue,
    },
    /// `late` is a copy of an older request.
    Renew {
        claim: usize,
        ttl: Length,
        late: u64,
    },
    Convert {
        claim: usize,
        to: Mode,
        late: u64,
    },
    Release {
        claim: usize,
        answered: bool,
        only_waiting: bool,
    },
    Break {
        key: usize,
        target: Target,
    },
    Inspect {
        key: usize,
    },
    /// Time passes.
    Step,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Claim(usize),
    /// The holder at this position, as seen then.
    Token(usize),
    Owner(usize),
    Holders,
    All,
}

fn mode() -> impl Strategy<Value = Mode> {
    let permit = (1..4u32).prop_map(|n| Mode::Permit { at_most: NonZeroU32::MIN.saturating_add(n - 1) });
    prop_oneof![3 => Just(Mode::Exclusive), 3 => Just(Mode::Shared), 1 => permit]
}

fn length() -> impl Strategy<Value = Length> {
    prop_oneof![1 => Just(Length::Short), 2 => Just(Length::Long)]
}

pub(super) fn shape() -> impl Strategy<Value = Shape> {
    let owner = prop_oneof![1 => Just(None), 3 => (0..OWNERS.len()).prop_map(Some)];
    (0..KEYS, mode(), owner, prop::bool::weighted(0.2), length(), length()).prop_map(
        |(key, mode, owner, take_over, ttl, waiter_ttl)| Shape {
            key,
            mode,
            owner,
            take_over: take_over && owner.is_some(),
            ttl,
            waiter_ttl,
        },
    )
}

pub(super) fn command(steps: u32) -> impl Strategy<Value = Command> {
    let claim = || 0..CLAIMS;
    let late = || prop_oneof![4 => Just(0u64), 1 => 1..3u64];
    let queue = prop_oneof![3 => Just(Queue::Join), 1 => Just(Queue::Never)];
    let target = prop_oneof![
        claim().prop_map(Target::Claim),
        (0..3usize).prop_map(Target::Token),
        (0..OWNERS.len()).prop_map(Target::Owner),
        Just(Target::Holders),
        Just(Target::All),
    ];
    prop_oneof![
        20 => (claim(), queue).prop_map(|(claim, queue)| Command::Acquire { claim, queue }),
        6 => (claim(), length(), late()).prop_map(|(claim, ttl, late)| Command::Renew { claim, ttl, late }),
        6 => (claim(), mode(), late()).prop_map(|(claim, to, late)| Command::Convert { claim, to, late }),
        10 => (claim(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(claim, answered, only_waiting)| {
            Command::Release { claim, answered, only_waiting }
        }),
        2 => (0..KEYS, target).prop_map(|(key, target)| Command::Break { key, target }),
        4 => (0..KEYS).prop_map(|key| Command::Inspect { key }),
        steps => Just(Command::Step),
    ]
}
