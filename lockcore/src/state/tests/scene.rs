//! A lock to play with: short names for claims, commands and what they show.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Queue::{Join, Never};
use crate::backend::{Attempt, BreakTarget, Queued, Released};
use crate::bell::Ending;
use crate::claim::{Claim, ClaimId};
use crate::inspect::{ClaimInfo, Snapshot};
use crate::key::Key;
use crate::lease::Lease;
use crate::mode::Mode;
use crate::state::{Effect, LockState, Moment, Refusal, Standing};

/// A way to change the scene, by name.
pub(super) type Way = (&'static str, fn(&mut Scene));

/// One lock, its clock, and what it told the claims. The ttl is 30 s, a waiter's 10 s.
pub(super) struct Scene {
    pub(super) lock: LockState,
    pub(super) now: Moment,
    pub(super) effects: Vec<Effect>,
}

pub(super) fn claim(id: u128, mode: Mode) -> Claim {
    Claim::new(Key::new("k").unwrap(), mode, Duration::from_secs(30)).with_id(ClaimId::from_bits(id))
}

pub(super) fn exclusive(id: u128) -> Claim {
    claim(id, Mode::Exclusive)
}

pub(super) fn shared(id: u128) -> Claim {
    claim(id, Mode::Shared)
}

pub(super) fn at_most(n: u32) -> Mode {
    Mode::Permit { at_most: NonZeroU32::new(n).unwrap() }
}

pub(super) fn permit(id: u128, n: u32) -> Claim {
    claim(id, at_most(n))
}

pub(super) fn of(owner: &str, claim: Claim) -> Claim {
    claim.with_owner(Some(owner.into()))
}

pub(super) fn taking_over(owner: &str, claim: Claim) -> Claim {
    of(owner, claim).taking_over(true)
}

impl Scene {
    pub(super) fn new() -> Scene {
        Scene { lock: LockState::default(), now: Moment::from_micros(1_000_000), effects: Vec::new() }
    }

    /// A scene that begins with these claims, in this order.
    pub(super) fn with(claims: impl IntoIterator<Item = Claim>) -> Scene {
        let mut scene = Scene::new();
        for claim in claims {
            scene.acquire(claim);
        }
        scene.told();
        scene
    }

    pub(super) fn sleep(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    pub(super) fn acquire(&mut self, claim: impl Into<Arc<Claim>>) -> Attempt {
        self.lock.acquire(self.now, &claim.into(), Join, &mut self.effects)
    }

    pub(super) fn attempt(&mut self, claim: impl Into<Arc<Claim>>) -> Attempt {
        self.lock.acquire(self.now, &claim.into(), Never, &mut self.effects)
    }

    pub(super) fn holds(&mut self, claim: impl Into<Arc<Claim>>) -> Lease {
        let attempt = self.acquire(claim);
        let Attempt::Granted(lease) = attempt else { panic!("it should hold: {attempt:?}") };
        lease
    }

    pub(super) fn waits(&mut self, claim: impl Into<Arc<Claim>>) -> Queued {
        let attempt = self.acquire(claim);
        let Attempt::Queued(queued) = attempt else { panic!("it should wait: {attempt:?}") };
        queued
    }

    pub(super) fn renew(&mut self, id: u128, seconds: u64, order: u64) -> Result<u64, Refusal> {
        let ttl = Duration::from_secs(seconds);
        let lease = self.lock.renew(self.now, ClaimId::from_bits(id), ttl, order, &mut self.effects);
        lease.map(|lease| lease.left.as_secs())
    }

    pub(super) fn convert(&mut self, id: u128, to: Mode, order: u64) -> Result<Attempt, Refusal> {
        self.lock.convert(self.now, ClaimId::from_bits(id), to, order, &mut self.effects)
    }

    pub(super) fn release(&mut self, id: u128) -> Released {
        self.lock.release(self.now, ClaimId::from_bits(id), true, false, &mut self.effects)
    }

    /// A release of a claim of which an acquire was not answered.
    pub(super) fn withdraw(&mut self, id: u128) -> Released {
        self.lock.release(self.now, ClaimId::from_bits(id), false, false, &mut self.effects)
    }

    pub(super) fn broken(&mut self, target: &BreakTarget) -> Vec<u128> {
        let broken = self.lock.break_claims(self.now, target, &mut self.effects);
        broken.iter().map(|info| info.id.to_bits()).collect()
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.lock.inspect(self.now, &mut self.effects)
    }

    /// Holders by token, a bar, and waiters in order: `1 2 | 3`.
    pub(super) fn view(&mut self) -> String {
        let Snapshot { holders, waiters } = self.snapshot();
        let ids = |infos: &[ClaimInfo]| {
            infos.iter().map(|i| i.id.to_bits().to_string()).collect::<Vec<_>>().join(" ")
        };
        let view = format!("{} | {}", ids(&holders), ids(&waiters));
        view.trim_end_matches([' ', '|']).to_owned()
    }

    pub(super) fn fence(&mut self, id: u128) -> (u64, u64) {
        let entry = self.lock.holders.get(ClaimId::from_bits(id)).expect("it should hold");
        let Standing::Granted(fence) = entry.standing else { panic!("it should be granted") };
        (fence.token.get(), fence.floor.get())
    }

    /// What the claims were told since the last call: `expired 1, granted 2`.
    pub(super) fn told(&mut self) -> String {
        let tell = |effect: Effect| match effect {
            Effect::Granted { claim, .. } => format!("granted {}", claim.id().to_bits()),
            Effect::Ended { claim, ending } => {
                let ending = match ending {
                    Ending::Expired => "expired",
                    Ending::Broken => "broken",
                    Ending::TakenOver => "taken over",
                };
                format!("{ending} {}", claim.id().to_bits())
            }
        };
        self.effects.drain(..).map(tell).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn is_granted(attempt: Result<Attempt, Refusal>) -> bool {
    matches!(attempt, Ok(Attempt::Granted(_)))
}

pub(super) fn is_queued(attempt: Result<Attempt, Refusal>) -> bool {
    matches!(attempt, Ok(Attempt::Queued(_)))
}
