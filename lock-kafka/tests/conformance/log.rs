//! A log in this process, and the connections of its clients, which can be disturbed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_kafka::{Append, Appending, Batch, Bounds, Entry, Halt, Log, Reader};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// What a record takes to the broker, and back.
const WAY: Duration = Duration::from_millis(1);

/// One partition.
pub(crate) struct MemoryLog {
    begun: Instant,
    entries: Mutex<Vec<Entry>>,
    end: watch::Sender<u64>,
    goes_on: watch::Sender<bool>,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<MemoryLog> {
        let (end, goes_on) = (watch::Sender::new(0), watch::Sender::new(true));
        Arc::new(MemoryLog { begun: Instant::now(), entries: Mutex::default(), end, goes_on })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, bytes: Vec<u8>) {
        /// Some day in 2023.
        const BEGINNING: u128 = 1_700_000_000_000;
        let stamp = (BEGINNING + self.begun.elapsed().as_millis()) * 1000;
        let mut entries = self.entries();
        let offset = entries.len() as u64;
        entries.push(Entry { offset, stamp: u64::try_from(stamp).unwrap_or(u64::MAX), bytes });
        drop(entries);
        self.end.send_replace(offset + 1);
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.goes_on.send_replace(!paused);
    }
}

/// The connection of one client to one partition.
#[derive(Clone)]
pub(crate) struct Connection {
    log: Arc<MemoryLog>,
    sends: Arc<watch::Sender<bool>>,
    reads: Arc<watch::Sender<bool>>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    refused: bool,
    delay: Duration,
    /// When the last record is in the log: none overtakes another.
    last: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(log: &Arc<MemoryLog>) -> Connection {
        let open = || Arc::new(watch::Sender::new(true));
        Connection { log: log.clone(), sends: open(), reads: open(), faults: Arc::default() }
    }

    /// Keeps back what is sent, and what is read.
    pub(crate) fn hold(&self, sent: bool, read: bool) {
        self.sends.send_replace(!sent);
        self.reads.send_replace(!read);
    }

    pub(crate) fn refuse(&self, on: bool) {
        self.faults().refused = on;
        self.reads.send_replace(!on);
    }

    pub(crate) fn delay(&self, by: Duration) {
        self.faults().delay = by;
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for Connection {
    fn append(&self, _key: Option<&str>, bytes: Vec<u8>) -> Appending {
        let arrives = {
            let mut faults = self.faults();
            if faults.refused {
                return Box::pin(async { Err(Append::NotSent("connection refused".into())) });
            }
            let soonest = Instant::now() + WAY + faults.delay;
            let arrives = faults.last.map_or(soonest, |last| soonest.max(last + Duration::from_millis(1)));
            faults.last = Some(arrives);
            arrives
        };
        let (log, mut sends, mut goes_on) =
            (self.log.clone(), self.sends.subscribe(), self.log.goes_on.subscribe());
        let sent = tokio::spawn(async move {
            tokio::time::sleep_until(arrives).await;
            // The senders live as long as the log.
            drop(sends.wait_for(|open| *open).await);
            drop(goes_on.wait_for(|on| *on).await);
            log.append(bytes);
        });
        Box::pin(async move { sent.await.map_err(|error| Append::Doubtful(error.to_string())) })
    }

    async fn bounds(&self) -> Result<Bounds, String> {
        drop(self.log.goes_on.subscribe().wait_for(|on| *on).await);
        Ok(Bounds { start: 0, end: self.log.entries().len() as u64 })
    }

    fn reader(&self, offset: u64) -> Box<dyn Reader> {
        Box::new(Place {
            log: self.log.clone(),
            reads: self.reads.subscribe(),
            end: self.log.end.subscribe(),
            goes_on: self.log.goes_on.subscribe(),
            offset,
        })
    }

    // Newcomers read all of it.
    fn forget(&self, _offset: u64) {}
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

struct Place {
    log: Arc<MemoryLog>,
    reads: watch::Receiver<bool>,
    end: watch::Receiver<u64>,
    goes_on: watch::Receiver<bool>,
    offset: u64,
}

#[async_trait]
impl Reader for Place {
    async fn next(&mut self) -> Result<Batch, Halt> {
        let offset = self.offset;
        drop(self.end.wait_for(|&end| end > offset).await);
        sleep(WAY).await;
        drop(self.reads.wait_for(|open| *open).await);
        drop(self.goes_on.wait_for(|on| *on).await);
        let all = self.log.entries();
        let entries = all[usize::try_from(offset).unwrap_or(usize::MAX)..].to_vec();
        self.offset = all.len() as u64;
        Ok(Batch { entries, next: self.offset, end: self.offset })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("offset", &self.offset).finish_non_exhaustive()
    }
}
