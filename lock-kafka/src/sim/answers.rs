//! What a client is told, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Claim, Conversion, ErrorKind, Key, LockBackend, LockClient, Mode, Queue, Release,
    Released, Renew, Renewal,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::checkpoints::{UNTIL_DELETED, fill};
use super::client::SimClient;
use super::in_paused_time;
use super::store::{Found, SimLog};
use super::stories::{appends, backend, client, halted, holds};
use crate::backend::KafkaBackend;
use crate::errors::Halt;
use crate::log::{Append, Appending, Batch, Bounds, Log, Reader};
use crate::record::Id;
use crate::settings::Settings;
use crate::what::What;

const TTL: Duration = Duration::from_secs(30);

/// A connection that loses records, to a log that others shorten, and whose reader may panic.
#[derive(Debug)]
struct Faulty {
    log: SimClient,
    /// How many of the next records are lost.
    loses: AtomicUsize,
    /// How often somebody deletes the first record just before it is read.
    shortened: AtomicUsize,
    panics: Arc<AtomicBool>,
}

/// Whether it is to happen once more.
fn once_more(times: &AtomicUsize) -> bool {
    times.fetch_update(SeqCst, SeqCst, |times| times.checked_sub(1)).is_ok()
}

impl Faulty {
    fn new(log: &Arc<SimLog>) -> Arc<Faulty> {
        let (loses, shortened) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Faulty { log: SimClient::steady(log), loses, shortened, panics: Arc::default() })
    }

    async fn backend(self: &Arc<Self>, settings: &Settings) -> Arc<KafkaBackend> {
        KafkaBackend::over(vec![self.clone()], settings).await.unwrap()
    }
}

#[async_trait]
impl Log for Faulty {
    fn append(&self, key: Option<&str>, bytes: Vec<u8>) -> Appending {
        if once_more(&self.loses) {
            return Box::pin(std::future::ready(Err(Append::Doubtful("the request timed out".into()))));
        }
        self.log.append(key, bytes)
    }

    async fn bounds(&self) -> Result<Bounds, String> {
        self.log.bounds().await
    }

    fn reader(&self, offset: u64) -> Box<dyn Reader> {
        if once_more(&self.shortened) {
            self.log.forget(offset + 1);
        }
        Box::new(Panicking { reader: self.log.reader(offset), panics: self.panics.clone() })
    }

    fn forget(&self, offset: u64) {
        self.log.forget(offset);
    }
}

#[derive(Debug)]
struct Panicking {
    reader: Box<dyn Reader>,
    panics: Arc<AtomicBool>,
}

#[async_trait]
impl Reader for Panicking {
    async fn next(&mut self) -> Result<Batch, Halt> {
        let batch = self.reader.next().await;
        assert!(!self.panics.load(SeqCst), "the reader panics, as it was told to");
        batch
    }
}

fn claim() -> Arc<Claim> {
    Arc::new(Claim::new(Key::new("k").unwrap(), Mode::Exclusive, TTL))
}

// S19: a record that was lost is known to be lost as soon as a later one was read.
#[test]
fn whose_record_was_lost_is_told_that_nothing_happened() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        let backend = log.backend(&Settings::default()).await;
        assert_eq!(halted(&backend).await, None);
        log.loses.store(1, SeqCst);
        let asked = timeout(Duration::from_secs(1), backend.clone().acquire(claim(), Queue::Join)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(backend.partitions[0].inner().registry.ids().is_empty());
    });
}

// S18
#[test]
fn who_does_not_wait_any_more_is_forgotten_however_long_brokers_are_away() {
    in_paused_time(async {
        let log = Faulty::new(&SimLog::new());
        let backend = log.backend(&Settings::default()).await;
        log.loses.store(usize::MAX, SeqCst);
        for _ in 0..5_000 {
            let asked = timeout(Duration::from_millis(1), backend.clone().acquire(claim(), Queue::Join));
            assert!(asked.await.is_err());
        }
        let under_way = backend.partitions[0].inner().pending.len();
        assert!(under_way <= 1_024, "{under_way}");
    });
}

// S10: the log's clock is behind when little is written. What it says is left is more than what may be counted on.
#[test]
fn what_is_left_of_a_lease_counts_from_when_it_was_set() {
    in_paused_time(async {
        let backend = backend(&SimLog::new()).await;
        let claim = claim();
        backend.clone().acquire(claim.clone(), Queue::Join).await.unwrap();
        let renew = |order| {
            let renewal = Renewal { claim: claim.clone(), ttl: TTL, order };
            let backend = backend.clone();
            async move { backend.renew(vec![renewal]).await.remove(0).unwrap().left }
        };
        assert_eq!(renew(5).await, TTL);
        sleep(Duration::from_secs(25)).await;
        let little = Duration::from_secs(4)..=Duration::from_secs(5);
        let late = renew(3).await;
        assert!(little.contains(&late), "a late renewal: {late:?}");
        let conversion = Conversion { claim: claim.clone(), to: Mode::Shared, order: 6 };
        let converted = backend.clone().convert(conversion).await;
        assert!(
            matches!(&converted, Ok(Attempt::Granted(lease)) if little.contains(&lease.left)),
            "{converted:?}"
        );
        let withdrawal = Release { claim: claim.clone(), answered: true, only_waiting: true };
        let found = backend.clone().release(vec![withdrawal]).await.remove(0);
        assert!(matches!(&found, Ok(Released::Granted(lease)) if little.contains(&lease.left)), "{found:?}");
    });
}

// S5, S15
#[test]
fn grants_and_ends_are_told_as_they_are_read() {
    in_paused_time(async {
        let log = SimLog::new();
        let (one, other) = (client(&log).await, client(&log).await);
        let guard = holds(&one, Renew::Manual).await;
        let next = tokio::spawn(async move { (holds(&other, Renew::Manual).await, Instant::now()) });
        sleep(Duration::from_secs(1)).await;
        let released = Instant::now();
        guard.release().await.unwrap();
        let (guard, granted) = next.await.unwrap();
        assert!(granted - released < Duration::from_millis(20), "{:?}", granted - released);
        one.lock("k").unwrap().break_claims(BreakTarget::Holders).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert!(!guard.is_held());
    });
}

// A session that was silent for too long is begun anew; the first record of that may be lost.
#[test]
fn a_session_that_does_not_open_is_begun_anew() {
    in_paused_time(async {
        let store = SimLog::new();
        let log = Faulty::new(&store);
        let backend = log.backend(&Settings { window: 20, ..Settings::default() }).await;
        sleep(Duration::from_secs(1)).await;
        log.loses.store(1, SeqCst);
        appends(&store, Id::random(), (0..40).map(|_| What::Barrier));
        sleep(Duration::from_millis(100)).await;
        let looked = timeout(Duration::from_secs(3), backend.inspect(Key::new("k").unwrap())).await;
        looked.expect("it is begun anew after 2 s").unwrap();
    });
}

#[test]
fn whoever_stood_still_for_longer_than_a_window_is_heard_at_once() {
    in_paused_time(async {
        let log = SimLog::new();
        let settings =
            Settings { window: 100, checkpoint_every: 16.try_into().unwrap(), ..Settings::default() };
        let one = KafkaBackend::over(vec![Arc::new(SimClient::steady(&log))], &settings).await.unwrap();
        let (switch, goes_on) = watch::channel(true);
        let connection = SimClient::new(&log, fastrand::Rng::with_seed(7), goes_on);
        let still = KafkaBackend::over(vec![Arc::new(connection)], &settings).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        switch.send_replace(false);
        for _ in 0..3 {
            fill(&one, 100).await;
            sleep(UNTIL_DELETED).await;
        }
        let (end, start) = (log.bounds().end, log.bounds().start);
        assert!(start > 100, "what it was to read next is gone: {start}");
        switch.send_replace(true);
        sleep(Duration::from_millis(100)).await;
        still.inspect(Key::new("k").unwrap()).await.unwrap();
        let Found::Records { entries: since, .. } = log.read(end, None, usize::MAX) else {
            panic!("nothing is missing")
        };
        let opens = since.iter().filter(|entry| String::from_utf8_lossy(&entry.bytes).contains("\"open\""));
        assert_eq!(opens.count(), 1);
    });
}

#[test]
fn a_newcomer_goes_on_searching_a_log_that_is_shortened_meanwhile() {
    in_paused_time(async {
        let log = SimLog::new();
        let one = backend(&log).await;
        for _ in 0..3 {
            fill(&one, 40).await;
        }
        sleep(UNTIL_DELETED).await;
        assert!(log.bounds().start > 0);
        let newcomer = Faulty::new(&log);
        newcomer.shortened.store(8, SeqCst);
        let begun = newcomer.backend(&Settings::default()).await;
        assert_eq!(halted(&begun).await, None);
        assert_eq!(newcomer.shortened.load(SeqCst), 0);
    });
}

// S11, S19
#[test]
fn a_reader_that_panics_is_told_to_all() {
    in_paused_time(async {
        let store = SimLog::new();
        let log = Faulty::new(&store);
        let backend = log.backend(&Settings::default()).await;
        let guard = holds(&LockClient::new(backend.clone()), Renew::Automatic).await;
        log.panics.store(true, SeqCst);
        let asked = timeout(Duration::from_secs(1), backend.clone().acquire(claim(), Queue::Join)).await;
        assert_eq!(asked.expect("it is told at once").unwrap_err().kind(), ErrorKind::Indeterminate);
        assert!(!guard.is_held());
        assert_eq!(halted(&backend).await, Some(Halt::Panicked));
    });
}
