//! Takes down what clients do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lockcore::{LockGuard, LockMode, Mode};
use tokio::time::Instant;

use super::{Act, Event, Options, Summary, check, explain};

/// Records the events of one history. Cheap to clone; all clones write into the same one.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    attempts: AtomicU64,
    events: Mutex<Vec<Event>>,
}

/// One attempt of a history.
#[derive(Clone, Debug)]
pub struct Track {
    recorder: Recorder,
    attempt: u64,
    key: Arc<str>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// A history that begins now.
    #[must_use]
    pub fn new() -> Recorder {
        let (attempts, events) = (AtomicU64::new(0), Mutex::default());
        Recorder(Arc::new(Shared { start: Instant::now(), attempts, events }))
    }

    /// An attempt to hold `key` in `mode` that is about to be made.
    pub fn asks(&self, key: impl Into<Arc<str>>, mode: Mode) -> Track {
        let attempt = self.0.attempts.fetch_add(1, Ordering::Relaxed);
        let track = Track { recorder: self.clone(), attempt, key: key.into() };
        track.note(Act::Asked { mode });
        track
    }

    /// What has been recorded so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What has been recorded so far, as one line of JSON per event.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        self.events().iter().map(|event| event.to_json() + "\n").collect()
    }

    /// Checks what has been recorded so far.
    ///
    /// # Errors
    /// What is wrong with it, [explained](super::explain).
    pub fn check(&self, options: Options) -> Result<Summary, String> {
        let events = self.events();
        check(&events, options).map_err(|violation| explain(&events, &violation))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Track {
    /// The number of the attempt.
    #[must_use]
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Takes down what happened just now, or is about to.
    pub fn note(&self, act: Act) {
        let key = (*self.key).to_owned();
        // The clock is read under the mutex, so that the events are in the order of their times.
        let mut events = self.recorder.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(Event { at: self.recorder.now(), attempt: self.attempt, key, act });
    }

    /// Takes down that the lock was granted.
    pub fn granted<M: LockMode>(&self, guard: &LockGuard<M>) {
        let fence = guard.fence();
        // A guard that is renewed in the background does not tell when; its loss is noted instead.
        self.note(Act::Granted { token: fence.token.get(), floor: fence.floor.get(), until: None });
    }

    /// Takes down until when its holder believes that it holds, as the guard says now; gives whether it does.
    ///
    /// Whoever looks again and again need not run at the moment of the loss: its deadline was taken down before.
    #[must_use]
    pub fn believes<M: LockMode>(&self, guard: &LockGuard<M>) -> bool {
        // The clock first: what passes between the two must not make the time longer.
        let now = self.recorder.now();
        let (is_held, left) = (guard.is_held(), guard.remaining());
        let until = now.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        self.note(if is_held { Act::Renewed { until } } else { Act::Lost });
        is_held
    }

    /// Releases the guard, and takes down when it began and how it ended.
    ///
    /// # Errors
    /// As [`LockGuard::release`].
    pub async fn release<M: LockMode>(&self, guard: LockGuard<M>) -> lockcore::Result<()> {
        self.note(if guard.is_held() { Act::Releasing } else { Act::Lost });
        let released = guard.release().await;
        self.note(Act::Released { too_late: released.is_err() });
        released
    }
}
