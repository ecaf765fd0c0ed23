//! How a backend reaches whoever waits on a claim, without a table from claim ids to waiters.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::token::Fence;

/// News of a claim, from the backend to whoever waits on it.
///
/// News are hints: one that is lost costs a slow poll, one that comes twice or late costs a request. A grant is
/// state on the server, not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The waiting claim, or its waiting upgrade, was granted with this fence.
    Granted(Fence),
    /// Something changed: ask again.
    Look,
    /// The server let the claim go.
    Ended(Ending),
}

/// Why the server let a claim go that its owner did not release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its lease ran out.
    Expired,
    /// Somebody broke it.
    Broken,
    /// Its owner claimed again and took over.
    TakenOver,
}

/// A claim's mailbox: the newest news of each kind, and those who wait for some.
#[derive(Default)]
pub(crate) struct Bell {
    mail: Mutex<Mail>,
    notify: Notify,
}

/// What has been rung and not been read yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mail {
    pub(crate) granted: Option<Fence>,
    pub(crate) look: bool,
    pub(crate) ended: Option<Ending>,
}

impl Bell {
    /// Puts the news in; [`wake`](Bell::wake) follows.
    pub(crate) fn ring(&self, news: News) {
        let mut mail = self.lock();
        match news {
            News::Granted(fence) => mail.granted = Some(fence),
            News::Look => mail.look = true,
            News::Ended(ending) => mail.ended = Some(ending),
        }
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_waiters();
    }

    /// Takes what has been rung.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    /// Waits for the next [`wake`](Bell::wake); it counts from this call on, polled or not.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.notify.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
