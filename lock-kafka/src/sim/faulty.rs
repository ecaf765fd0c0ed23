//! A connection to which something happens when a test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::client::SimClient;
use super::store::{Found, SimLog};
use crate::backend::KafkaBackend;
use crate::errors::Halt;
use crate::log::{Append, Appending, Batch, Bounds, Log, Reader};
use crate::settings::Settings;

/// A connection that loses records, to a log that others shorten, and whose reader may panic.
#[derive(Debug)]
pub(super) struct Faulty {
    log: Mutex<SimClient>,
    /// How many of the next records are lost.
    pub(super) loses: AtomicUsize,
    /// How many of those after them are never sent.
    pub(super) refuses: AtomicUsize,
    /// How often somebody deletes the first record just before it is read.
    pub(super) shortened: AtomicUsize,
    pub(super) panics: Arc<AtomicBool>,
    /// There is always more to read.
    pub(super) floods: Arc<AtomicBool>,
    /// Where the readers have begun.
    pub(super) begun: Mutex<Vec<u64>>,
}

/// Whether it is to happen once more.
fn once_more(times: &AtomicUsize) -> bool {
    times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1)).is_ok()
}

impl Faulty {
    pub(super) fn new(log: &Arc<SimLog>) -> Arc<Faulty> {
        Faulty::over(SimClient::steady(log))
    }

    pub(super) fn over(log: SimClient) -> Arc<Faulty> {
        Arc::new(Faulty {
            log: Mutex::new(log),
            loses: AtomicUsize::default(),
            refuses: AtomicUsize::default(),
            shortened: AtomicUsize::default(),
            panics: Arc::default(),
            floods: Arc::default(),
            begun: Mutex::default(),
        })
    }

    fn log(&self) -> SimClient {
        self.log.lock().unwrap().clone()
    }

    /// The topic is deleted, and another one has its name.
    pub(super) fn is_made_anew(&self, log: &Arc<SimLog>) {
        *self.log.lock().unwrap() = SimClient::steady(log);
    }

    pub(super) async fn backend(self: &Arc<Self>, settings: &Settings) -> Arc<KafkaBackend> {
        KafkaBackend::over(vec![self.clone()], settings).await.unwrap()
    }
}

#[async_trait]
impl Log for Faulty {
    fn append(&self, key: Option<&str>, bytes: Vec<u8>) -> Appending {
        if once_more(&self.loses) {
            return Box::pin(std::future::ready(Err(Append::Doubtful("the request timed out".into()))));
        }
        if once_more(&self.refuses) {
            return Box::pin(std::future::ready(Err(Append::NotSent("the queue is full".into()))));
        }
        self.log().append(key, bytes)
    }

    async fn bounds(&self) -> Result<Bounds, String> {
        self.log().bounds().await
    }

    fn reader(&self, offset: u64) -> Box<dyn Reader> {
        if once_more(&self.shortened) {
            self.log().forget(offset + 1);
        }
        self.begun.lock().unwrap().push(offset);
        let client = self.log();
        let (panics, floods) = (self.panics.clone(), self.floods.clone());
        Box::new(FaultyReader {
            reader: client.reader(offset),
            log: client.log,
            next: offset,
            panics,
            floods,
        })
    }

    fn forget(&self, offset: u64) {
        self.log().forget(offset);
    }
}

#[derive(Debug)]
struct FaultyReader {
    reader: Box<dyn Reader>,
    log: Arc<SimLog>,
    next: u64,
    panics: Arc<AtomicBool>,
    floods: Arc<AtomicBool>,
}

#[async_trait]
impl Reader for FaultyReader {
    async fn next(&mut self) -> Result<Batch, Halt> {
        if self.floods.load(SeqCst) {
            // As a channel does it that is never empty.
            tokio::task::consume_budget().await;
            self.log.append(b"not ours");
            let Found::Records { entries, .. } = self.log.read(self.next, None, usize::MAX) else {
                return Err(Halt::Missing);
            };
            self.next += u64::try_from(entries.len()).unwrap();
            return Ok(Batch { entries, next: self.next, end: self.next });
        }
        let batch = self.reader.next().await;
        assert!(!self.panics.load(SeqCst), "the reader panics, as it was told to");
        if let Ok(Batch { entries, .. }) = &batch
            && let Some(last) = entries.last()
        {
            self.next = last.offset + 1;
        }
        batch
    }
}
