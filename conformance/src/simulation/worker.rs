//! A task that locks this and that, for as long as the server lies, and takes down what it believed.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BreakTarget, ClaimId, ConvertError, Error, ErrorKind, Exclusive, Fence, Lock, LockClient,
    LockGuard, LockMode, Mode, Permit, Renew, Result, Shared,
};
use tokio::time::{sleep, timeout};

use super::{KEYS, Stage, Switch, World};
use crate::history::{Act, Track};

const TTLS: [u64; 4] = [2, 3, 5, 9];

/// A task that locks.
pub(super) struct Worker<W> {
    pub(super) stage: Arc<Stage<W>>,
    pub(super) owner: &'static str,
    pub(super) client: LockClient,
    pub(super) goes_on: Switch,
    pub(super) random: fastrand::Rng,
}

/// A guard that knows its mode.
enum Inside {
    Exclusive(LockGuard<Exclusive>),
    Shared(LockGuard<Shared>),
    Permit(LockGuard<Permit>),
}

/// One guard, for as long as it is of one mode.
struct Phase {
    track: Track,
    key: usize,
    /// How many there were of this claim.
    number: u64,
}

/// For how many phases of one claim a token is enough.
const PHASES: u64 = 64;

impl<W: World> Worker<W> {
    pub(super) async fn work(mut self) -> std::result::Result<(), String> {
        loop {
            self.stand_still().await;
            if !self.stage.world.is_rough() {
                if self.stage.start.elapsed() >= self.stage.lasts {
                    return Ok(());
                }
                sleep(Duration::from_millis(10)).await;
                continue;
            }
            self.turn().await.map_err(|error| error.to_string())?;
        }
    }

    /// A process that stands still does nothing.
    async fn stand_still(&mut self) {
        self.goes_on.on().await;
    }

    async fn turn(&mut self) -> Result<()> {
        let key = self.random.usize(..KEYS.len());
        let lock = self.client.lock(KEYS[key])?;
        if self.random.u8(..40) == 0 {
            let target = match self.random.u8(..3) {
                0 => BreakTarget::All,
                1 => BreakTarget::Owner(self.owner.into()),
                _ => BreakTarget::Holders,
            };
            return usual(lock.break_claims(target).await.map(drop)).map(drop);
        }
        let permits = NonZeroU32::MIN.saturating_add(1);
        let (mode, asked) = match self.random.u8(..7) {
            0..3 => (Mode::Exclusive, self.stage.history.asks(KEYS[key], Mode::Exclusive)),
            3..6 => (Mode::Shared, self.stage.history.asks(KEYS[key], Mode::Shared)),
            _ => {
                let mode = Mode::Permit { at_most: permits };
                (mode, self.stage.history.asks(KEYS[key], mode))
            }
        };
        let inside = match mode {
            Mode::Exclusive => self.acquire(lock.exclusive()).await.map(|guard| guard.map(Inside::Exclusive)),
            Mode::Shared => self.acquire(lock.shared()).await.map(|guard| guard.map(Inside::Shared)),
            Mode::Permit { .. } => {
                self.acquire(lock.permit(permits)).await.map(|guard| guard.map(Inside::Permit))
            }
        };
        let Some(inside) = usual(inside)?.flatten() else {
            asked.note(Act::GaveUp);
            return Ok(());
        };
        let phase = Phase { track: asked, key, number: 0 };
        self.hold(inside, phase, &lock).await
    }

    async fn acquire<M: LockMode>(&mut self, acquire: Acquire<M>) -> Result<Option<LockGuard<M>>> {
        let ttl = Duration::from_secs(*self.random.choice(&TTLS).unwrap_or(&TTLS[0]));
        let mut acquire = acquire.ttl(ttl).owner(self.owner);
        if self.random.u8(..6) == 0 {
            acquire = acquire.renew(Renew::Manual);
        }
        if self.random.u8(..8) == 0 {
            acquire = acquire.take_over();
        }
        let patience = Duration::from_millis(self.random.u64(..8000));
        match self.random.u8(..4) {
            0 => acquire.try_acquire().await,
            1 => acquire.wait(patience).acquire().await.map(Some),
            // Dropped in the middle of it.
            2 => timeout(patience, acquire.acquire()).await.map_or(Ok(None), |guard| guard.map(Some)),
            _ => acquire.acquire().await.map(Some),
        }
    }

    /// Does this and that under a guard, and lets go.
    async fn hold(&mut self, mut inside: Inside, mut phase: Phase, lock: &Lock) -> Result<()> {
        loop {
            if !self.enter(&inside, &phase) {
                break;
            }
            let lost = async {
                match &inside {
                    Inside::Exclusive(guard) => guard.lost().await,
                    Inside::Shared(guard) => guard.lost().await,
                    Inside::Permit(guard) => guard.lost().await,
                }
            };
            let a_while = sleep(Duration::from_millis(self.random.u64(..3000)));
            let goes_on = self.goes_on.clone();
            tokio::select! {
                biased;
                _ = lost => {
                    phase.track.note(Act::Lost);
                    break;
                }
                () = async { a_while.await; goes_on.on().await } => {}
            }
            phase
                .track
                .note(Act::Wrote { accepted: self.stage.gates[phase.key].check(inside.fence()).is_ok() });
            if self.random.u8(..3) > 0 || phase.number >= PHASES - 2 {
                phase.track.note(Act::Releasing);
                break;
            }
            // Nobody counts on it while it changes.
            phase.track.note(Act::Releasing);
            phase.track.note(Act::Released { too_late: false });
            inside = self.change(inside).await?;
            let track = self.stage.history.asks(lock.key().as_str(), inside.mode());
            phase = Phase { track, number: phase.number + 1, ..phase };
        }
        if self.random.bool() {
            usual(inside.release().await)?;
        }
        Ok(())
    }

    /// Takes down that a guard is believed in, unless it is lost already.
    fn enter(&self, inside: &Inside, phase: &Phase) -> bool {
        if !inside.is_held() {
            phase.track.note(Act::GaveUp);
            return false;
        }
        self.stage
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(phase.track.attempt(), inside.claim_id());
        let fence = inside.fence();
        // A token is told once: what a claim becomes under the same one counts on from it.
        let (token, floor) = (fence.token.get() * PHASES + phase.number, fence.floor.get() * PHASES);
        phase.track.note(Act::Granted { token, floor, until: None });
        let _stale = self.stage.gates[phase.key].enter(fence);
        true
    }

    /// Renews or converts.
    async fn change(&mut self, inside: Inside) -> Result<Inside> {
        let (id, asked) = (inside.claim_id(), self.stage.start.elapsed());
        let wait = Duration::from_millis(self.random.u64(..6000));
        let ttl = Duration::from_secs(*self.random.choice(&TTLS).unwrap_or(&TTLS[0]));
        let next = match (inside, self.random.u8(..3)) {
            (Inside::Exclusive(mut guard), 0) => {
                self.renewed(id, asked, guard.renew_for(ttl).await)?;
                Inside::Exclusive(guard)
            }
            (Inside::Shared(mut guard), 0) => {
                self.renewed(id, asked, guard.renew_for(ttl).await)?;
                Inside::Shared(guard)
            }
            (Inside::Permit(mut guard), _) => {
                self.renewed(id, asked, guard.renew().await)?;
                Inside::Permit(guard)
            }
            (Inside::Exclusive(guard), _) => {
                converted(guard.downgrade().await, Inside::Shared, Inside::Exclusive)?
            }
            (Inside::Shared(guard), 1) => {
                converted(guard.upgrade().await, Inside::Exclusive, Inside::Shared)?
            }
            (Inside::Shared(guard), _) => {
                converted(guard.upgrade_within(wait).await, Inside::Exclusive, Inside::Shared)?
            }
        };
        Ok(next)
    }

    /// What had ended before it was asked for is not renewed.
    fn renewed(&self, id: ClaimId, asked: Duration, outcome: Result<()>) -> Result<()> {
        let ended = self.stage.world.ended(id);
        if usual(outcome)?.is_some() && ended.is_some_and(|ended| ended < asked) {
            let message = format!("{id} was renewed at {asked:?}, and had ended at {ended:?}");
            return Err(Error::new(ErrorKind::Other, message));
        }
        Ok(())
    }
}

impl Inside {
    fn mode(&self) -> Mode {
        match self {
            Inside::Exclusive(guard) => guard.mode(),
            Inside::Shared(guard) => guard.mode(),
            Inside::Permit(guard) => guard.mode(),
        }
    }

    fn is_held(&self) -> bool {
        match self {
            Inside::Exclusive(guard) => guard.is_held(),
            Inside::Shared(guard) => guard.is_held(),
            Inside::Permit(guard) => guard.is_held(),
        }
    }

    fn claim_id(&self) -> ClaimId {
        match self {
            Inside::Exclusive(guard) => guard.claim_id(),
            Inside::Shared(guard) => guard.claim_id(),
            Inside::Permit(guard) => guard.claim_id(),
        }
    }

    fn fence(&self) -> Fence {
        match self {
            Inside::Exclusive(guard) => guard.fence(),
            Inside::Shared(guard) => guard.fence(),
            Inside::Permit(guard) => guard.fence(),
        }
    }

    async fn release(self) -> Result<()> {
        match self {
            Inside::Exclusive(guard) => guard.release().await,
            Inside::Shared(guard) => guard.release().await,
            Inside::Permit(guard) => guard.release().await,
        }
    }
}

/// The guard that a conversion leaves.
fn converted<A, B>(
    outcome: std::result::Result<LockGuard<A>, ConvertError<B>>,
    new: impl FnOnce(LockGuard<A>) -> Inside,
    old: impl FnOnce(LockGuard<B>) -> Inside,
) -> Result<Inside>
where
    A: LockMode,
    B: LockMode,
{
    match outcome {
        Ok(guard) => Ok(new(guard)),
        Err(failed) => {
            let (guard, error) = failed.into_parts();
            usual::<()>(Err(error))?;
            Ok(old(guard))
        }
    }
}

/// What an unreliable server may lead to; anything else is an error of ours.
fn usual<T>(outcome: Result<T>) -> Result<Option<T>> {
    let expected = |error: &Error| {
        matches!(
            error.kind(),
            ErrorKind::Timeout
                | ErrorKind::Unavailable
                | ErrorKind::Indeterminate
                | ErrorKind::Lost
                | ErrorKind::WouldDeadlock
        )
    };
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if expected(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
