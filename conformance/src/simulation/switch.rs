//! What can be stopped for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether something goes on: a process that may stand still, or a way that may be cut. All clones are one.
///
/// Those who wait for it go on in the order in which they came, so that a play is the same each time.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_off: AtomicBool,
    turned_on: Notify,
}

impl Switch {
    /// Stops it, or lets it go on.
    pub fn turn(&self, on: bool) {
        self.0.is_off.store(!on, Ordering::SeqCst);
        if on {
            self.0.turned_on.notify_waiters();
        }
    }

    /// Waits until it goes on; at once if it does.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn on(&self) {
        loop {
            let turned_on = self.0.turned_on.notified();
            if !self.0.is_off.load(Ordering::SeqCst) {
                return;
            }
            turned_on.await;
        }
    }
}
