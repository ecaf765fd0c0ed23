//! Guards that change their mode without letting go.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep_until;

use crate::backend::{Attempt, Conversion};
use crate::clock::LocalTime;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{LockGuard, LockMode};
use crate::held::Held;
use crate::mode::Mode;
use crate::pursuit::ask_again;
use crate::registry::Duty;
use crate::renewal::lose;
use crate::request::bounded;
use crate::retry::Retry;
use crate::tenure::Loss;
use crate::token::Fence;

/// A conversion that failed, with the guard that it was about.
pub struct ConvertError<M> {
    guard: LockGuard<M>,
    error: Error,
}

impl<M: LockMode> ConvertError<M> {
    pub(crate) fn new((held, error): (Box<Held>, Error)) -> ConvertError<M> {
        ConvertError { guard: LockGuard::new(*held), error }
    }

    /// The guard, in its old mode.
    pub fn into_guard(self) -> LockGuard<M> {
        self.guard
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Why it failed. The guard is dropped, and the lock released.
    #[must_use]
    pub fn into_error(self) -> Error {
        self.error
    }

    /// Both.
    pub fn into_parts(self) -> (LockGuard<M>, Error) {
        (self.guard, self.error)
    }
}

impl<M: LockMode> fmt::Debug for ConvertError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConvertError").field("guard", &self.guard).field("error", &self.error).finish()
    }
}

impl<M: LockMode> fmt::Display for ConvertError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<M: LockMode> std::error::Error for ConvertError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<M: LockMode> From<ConvertError<M>> for Error {
    fn from(error: ConvertError<M>) -> Error {
        error.into_error()
    }
}

/// Converts `held`, which is dropped, and so released, with this future.
pub(crate) async fn convert(
    mut held: Held,
    to: Mode,
    wait: Option<Duration>,
) -> Result<Held, (Box<Held>, Error)> {
    match try_convert(&mut held, to, wait).await {
        Ok(()) => Ok(held),
        Err(error) => {
            let operation = if to.is_exclusive() { "upgrade" } else { "downgrade" };
            let error = held.at(operation, error);
            Err((Box::new(held), error))
        }
    }
}

async fn try_convert(held: &mut Held, to: Mode, wait: Option<Duration>) -> Result<()> {
    let client = held.lock.client.clone();
    if !client.capabilities.convert {
        return Err(Error::new(ErrorKind::Unsupported, "this backend cannot convert a held lock"));
    }
    let from = held.mode;
    if from == to {
        return Ok(());
    }
    if from.is_exclusive() == to.is_exclusive() {
        return Err(Error::new(ErrorKind::Unsupported, format!("{from} does not convert to {to}")));
    }
    let end = wait.map_or(LocalTime::NEVER, |wait| client.clock.now().plus(wait));
    let order = held.claim.tenure.next_conversion();
    let mut in_doubt = false;
    let new_retry = || if wait.is_some() { Retry::within_budget() } else { Retry::patiently() };
    let mut retry = new_retry();
    // A lease that its user renews by hand is renewed here while the user cannot.
    let renewing = Renewing::start(held);
    loop {
        if let Some(loss) = renewing.0.loss() {
            return Err(Error::new(ErrorKind::Lost, loss.to_string()));
        }
        // News of before would answer for what is asked now.
        let _old_news = renewing.0.claim.bell().take();
        let asked = client.clock.coarse();
        match request(renewing.0, to, order).await {
            Ok(Attempt::Granted(lease)) => {
                renewing.0.fence = lease.fence;
                renewing.0.mode = to;
                return Ok(());
            }
            Ok(Attempt::Queued(queued)) => {
                retry = new_retry();
                match wait_for_grant(renewing.0, ask_again(queued, asked).min(end)).await {
                    Some(fence) => {
                        renewing.0.fence = fence;
                        renewing.0.mode = to;
                        return Ok(());
                    }
                    None if client.clock.now() >= end => return Err(withdraw(renewing.0, to).await),
                    None => {}
                }
            }
            Ok(Attempt::Busy | Attempt::Gone) => {
                lose(renewing.0.claim(), Loss::Unknown);
                return Err(Error::new(ErrorKind::Lost, Loss::Unknown.to_string()));
            }
            Err(error) if error.kind() == ErrorKind::Lost => {
                lose(renewing.0.claim(), Loss::Unknown);
                return Err(error);
            }
            Err(error) if error.is_retryable() => {
                in_doubt |= error.may_have_happened();
                let pause = retry.next_delay().map(|delay| client.clock.coarse().plus(delay));
                match pause.filter(|&until| until < end) {
                    Some(until) => sleep_until(client.clock.timer(until)).await,
                    None => return Err(give_up(renewing.0, to, in_doubt, error).await),
                }
            }
            // A lost copy of this upgrade may still arrive; it must not wait there with nobody waiting here.
            Err(error) if in_doubt => return Err(give_up(renewing.0, to, in_doubt, error).await),
            Err(error) => return Err(error),
        }
    }
}

async fn request(held: &Held, to: Mode, order: u64) -> Result<Attempt> {
    let client = &held.lock.client;
    let conversion = Conversion { claim: held.claim.clone(), to, order };
    bounded(client.backend.clone().convert(conversion), client.settings.request_timeout).await
}

/// Waits until the upgrade is granted (its fence), or until `until`, a loss, or a hint to look.
async fn wait_for_grant(held: &Held, until: LocalTime) -> Option<Fence> {
    let clock = &held.lock.client.clock;
    let bell = held.claim.bell();
    loop {
        let woken = bell.woken();
        let mail = bell.take();
        // Late news of an earlier grant must not pass for the upgrade's, which brings a larger token.
        if let Some(fence) = mail.granted.filter(|fence| fence.token > held.fence.token) {
            return Some(fence);
        }
        if mail.granted.is_some() || mail.look || held.loss().is_some() {
            return None;
        }
        let deadline = held.claim.deadline();
        tokio::select! {
            biased;
            () = woken => {}
            () = sleep_until(clock.timer(until.min(deadline))) => {
                if clock.now() >= until {
                    return None;
                }
            }
        }
    }
}

/// The server answers no more, or refuses what it may have done before. An upgrade is taken back. A downgrade may have
/// happened, and then others may be in: the guard must not count as exclusive any more.
async fn give_up(held: &mut Held, to: Mode, in_doubt: bool, error: Error) -> Error {
    if to.is_exclusive() {
        withdraw(held, to).await;
    } else if in_doubt {
        lose(held.claim(), Loss::Unknown);
    }
    error
}

/// Takes a waiting upgrade back; why it failed. One that was granted meanwhile becomes what it was again, with the new
/// token.
async fn withdraw(held: &mut Held, wanted: Mode) -> Error {
    let back = held.mode;
    let order = held.claim.tenure.next_conversion();
    match request(held, back, order).await {
        Ok(Attempt::Granted(lease)) => {
            held.fence = lease.fence;
            Error::new(ErrorKind::Timeout, format!("other holders stayed; not {wanted}, still {back}"))
        }
        Ok(Attempt::Queued(_) | Attempt::Busy | Attempt::Gone) => {
            Error::new(ErrorKind::Other, "the backend answered a withdrawal with a place in the queue")
        }
        Err(error) => {
            // The upgrade may wait on and block the key. As a loss it ends with the guard.
            lose(held.claim(), Loss::Unknown);
            error
        }
    }
}

/// Lets the client renew a claim whose user is waiting in a conversion.
struct Renewing<'h>(&'h mut Held);

impl<'h> Renewing<'h> {
    fn start(held: &'h mut Held) -> Renewing<'h> {
        if !held.automatic {
            let now = held.lock.client.clock.now();
            set_due(held, now.plus(held.remaining() / 3));
        }
        Renewing(held)
    }
}

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        if !self.0.automatic {
            set_due(self.0, LocalTime::NEVER);
        }
    }
}

fn set_due(held: &Held, due: LocalTime) {
    if let Some(slot) = held.slot {
        held.lock.client.registry.update(slot, &held.claim, |entry| {
            entry.duty = Duty::of_holder(due);
            entry.due = due;
        });
    }
}
