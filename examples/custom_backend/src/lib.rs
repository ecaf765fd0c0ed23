//! Locks in an `SQLite` file: a whole backend, as somebody else would write one. `docs/writing-a-backend.md` leads through it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use lockcore::state::{LockState, Moment};
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimId, ClaimInfo, Conversion, Error, ErrorKind, Key,
    KeyPrefix, Lease, LeaseClock, LockBackend, Page, PageToken, Queue, Queued, Release, Released, Renewal,
    Result, Snapshot, TokenStrength, Wake,
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior::Immediate};

/// How often the first in the queue asks again, for `SQLite` tells nobody that something has changed. Whoever is further back asks less often.
const POLL: Duration = Duration::from_millis(100);
const MIN_TTL: Duration = Duration::from_millis(100);

const SCHEMA: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS locks (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;";

/// One client of the locks in a file.
#[derive(Debug)]
pub struct SqliteBackend(Mutex<Connection>);

impl SqliteBackend {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// `Unavailable`, with what `SQLite` says.
    pub fn open(path: &Path) -> Result<Arc<SqliteBackend>> {
        let file = Connection::open(path).map_err(nothing_happened)?;
        file.busy_timeout(Duration::from_secs(1)).map_err(nothing_happened)?;
        file.execute_batch(SCHEMA).map_err(nothing_happened)?;
        Ok(Arc::new(SqliteBackend(Mutex::new(file))))
    }

    /// One transaction, on a thread that may wait for the disk.
    async fn all<T: Send + 'static>(
        self: Arc<Self>,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(move || {
            let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let all = file.transaction_with_behavior(Immediate).map_err(nothing_happened)?;
            let answer = act(&all).map_err(nothing_happened)?;
            all.commit().map_err(|error| Error::new(ErrorKind::Indeterminate, error.to_string()))?;
            Ok(answer)
        });
        done.await.map_err(|error| Error::new(ErrorKind::Indeterminate, error.to_string()))?
    }

    /// Reads the lock on `key`, lets `LockState` decide, and writes down what came of it.
    async fn on<T: Send + 'static>(
        self: Arc<Self>,
        key: Key,
        command: impl FnOnce(&mut LockState, Moment) -> T + Send + 'static,
    ) -> Result<T> {
        let act = move |all: &Transaction<'_>| {
            let torn = |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
            let find = "SELECT state FROM locks WHERE key = ?1";
            let text: Option<String> = all.query_row(find, [key.as_str()], |row| row.get(0)).optional()?;
            let image = text.map(|text| serde_json::from_str(&text)).transpose().map_err(torn)?;
            let mut state = image.map_or_else(LockState::default, |image| LockState::of_image(&key, image));
            let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            // No token is given out twice, though a lock that nobody uses is forgotten.
            state.raise_token(u64::try_from(since_1970.as_micros()).unwrap_or_default());
            let answer = command(&mut state, Moment::default().after(since_1970));
            if state.is_idle() {
                all.execute("DELETE FROM locks WHERE key = ?1", [key.as_str()])?;
            } else {
                let text = serde_json::to_string(&state.image()).map_err(torn)?;
                all.execute("INSERT OR REPLACE INTO locks VALUES (?1, ?2)", [key.as_str(), &text])?;
            }
            Ok(answer)
        };
        self.all(act).await
    }
}

fn nothing_happened(error: rusqlite::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}

/// Tells a waiter when to ask again.
fn polled(state: &mut LockState, now: Moment, id: ClaimId, attempt: Attempt) -> Attempt {
    let Attempt::Queued(queued) = attempt else { return attempt };
    let waiters = state.inspect(now, &mut vec![]).waiters;
    let place = waiters.iter().take_while(|waiter| waiter.id != id).count();
    let recheck = Some(POLL * u32::try_from(place + 1).unwrap_or(u32::MAX));
    Attempt::Queued(Queued { recheck, ..queued })
}

#[async_trait]
impl LockBackend for SqliteBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "sqlite",
            fair: true,
            wake: Wake::Poll,
            convert: true,
            permits: true,
            list: true,
            tokens: TokenStrength::ClockOverLoss,
            clock: LeaseClock::ServerWall,
            min_ttl: MIN_TTL,
            ttl_step: Duration::from_micros(1),
            survives_failover: false,
        }
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        let key = claim.key().clone();
        let acquire = move |state: &mut LockState, now| {
            let attempt = state.acquire(now, &claim, queue, &mut vec![]);
            polled(state, now, claim.id(), attempt)
        };
        self.on(key, acquire).await
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let mut answers = Vec::new();
        for Renewal { claim, ttl, order } in renewals {
            let (id, ttl) = (claim.id(), ttl.max(MIN_TTL));
            let renew = move |state: &mut LockState, now| state.renew(now, id, ttl, order, &mut vec![]);
            let renewed = self.clone().on(claim.key().clone(), renew).await;
            answers.push(renewed.and_then(|lease| Ok(lease?)));
        }
        answers
    }

    async fn convert(self: Arc<Self>, Conversion { claim, to, order }: Conversion) -> Result<Attempt> {
        let id = claim.id();
        let convert = move |state: &mut LockState, now| {
            let attempt = state.convert(now, id, to, order, &mut vec![])?;
            Ok(polled(state, now, id, attempt))
        };
        self.on(claim.key().clone(), convert).await?
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let mut answers = Vec::new();
        for Release { claim, answered, only_waiting } in releases {
            let id = claim.id();
            let release =
                move |state: &mut LockState, now| state.release(now, id, answered, only_waiting, &mut vec![]);
            answers.push(self.clone().on(claim.key().clone(), release).await);
        }
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.on(key, move |state, now| state.break_claims(now, &target, &mut vec![])).await
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.on(key, |state, now| state.inspect(now, &mut vec![])).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, _page: PageToken) -> Result<Page> {
        let keys = self.clone().all(|all| {
            let mut all = all.prepare("SELECT key FROM locks")?;
            all.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        });
        let mut page = Page::default();
        for key in keys.await?.into_iter().filter_map(|key| Key::new(key).ok()) {
            if prefix.begins(&key) && !self.clone().inspect(key.clone()).await?.is_free() {
                page.keys.push(key);
            }
        }
        Ok(page)
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        Ok(())
    }
}
