//! The backend itself: each method is one script.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LeaseClock, LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
    TokenStrength, Wake,
};
use redis::{Cmd, Value};

use crate::connect::RedisBuilder;
use crate::errors::{NAME, Trouble};
use crate::grants::read_all;
use crate::link::Link;
use crate::news::Registry;
use crate::replicas::Replicas;
use crate::reply::{self, Answer};
use crate::request::{MIN_TTL, Requests};
use crate::scripts::{Operation, Scripts};

/// How many keys of the server one page of a listing looks at.
const SCAN_COUNT: usize = 1000;

/// Locks on one Redis server.
///
/// One connection carries the requests of all tasks and the server's messages to all waiters. It is made again by itself
/// when it breaks; a request that was under way then ends with `Indeterminate`.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), lockcore::Error> {
/// let backend = lock_redis::RedisBackend::connect("redis://127.0.0.1").await?;
/// # drop(backend);
/// # Ok(())
/// # }
/// ```
pub struct RedisBackend {
    pub(crate) link: Arc<Link>,
    pub(crate) scripts: Arc<Scripts>,
    registry: Arc<Registry>,
    pub(crate) requests: Requests,
    /// Who confirms grants, if anybody must.
    pub(crate) replicas: Option<Replicas>,
}

impl RedisBackend {
    /// Connects to the server at `url`, such as `redis://user:password@host:6379/2` or `rediss://host?ca=/path/ca.pem`.
    ///
    /// # Errors
    /// As [`RedisBuilder::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(url: &str) -> Result<Arc<RedisBackend>> {
        RedisBackend::builder(url).connect().await
    }

    /// Begins a connection with options.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }

    pub(crate) fn new(
        link: Arc<Link>,
        scripts: Arc<Scripts>,
        registry: Arc<Registry>,
        requests: Requests,
    ) -> RedisBackend {
        RedisBackend { link, scripts, registry, requests, replicas: None }
    }

    /// How many claims of this client wait for messages: none is left behind when all were released.
    #[doc(hidden)]
    #[must_use]
    pub fn listening(&self) -> usize {
        self.registry.len()
    }

    async fn answer(&self, operation: &Operation, command: &Cmd, name: &str) -> Result<Answer> {
        let value = self.link.run(operation, command, name).await.map_err(Trouble::error)?;
        Ok(reply::answer(&value)?.0)
    }

    pub(crate) fn header(&self, key: &Key) -> String {
        self.requests.keys.header(key)
    }

    async fn all(&self, operation: &Operation, requests: Vec<(String, Cmd)>) -> Vec<Result<Answer>> {
        read_all(self.link.run_all(operation, &requests).await)
    }
}

#[async_trait]
impl LockBackend for RedisBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: NAME,
            fair: true,
            wake: Wake::Push,
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
        let operation = &self.scripts.acquire;
        let allowed = self.check_leases(&claim).and_then(|()| self.may_grant());
        allowed.map_err(|error| at(error, operation, claim.key()))?;
        let header = self.header(claim.key());
        // Before the request: its grant may be told before the request is answered.
        self.registry.add(&claim);
        let command = self.requests.acquire(operation, &header, &claim, queue);
        let mut answer = self.answer(operation, &command, &header).await;
        self.weigh(&[&claim], std::slice::from_mut(&mut answer)).await;
        // Lost is what was granted and ended before it was confirmed.
        let attempt = answer
            .and_then(|answer| if answer == Answer::Lost { Ok(Attempt::Gone) } else { answer.attempt() });
        let stays = match &attempt {
            Ok(Attempt::Granted(_) | Attempt::Queued(_)) => true,
            Ok(Attempt::Busy | Attempt::Gone) => false,
            // It may be queued; its release takes it out.
            Err(error) => error.may_have_happened(),
        };
        if !stays {
            self.registry.remove(claim.id());
        }
        attempt.map_err(|error| at(error, operation, claim.key()))
    }

    async fn renew(self: Arc<Self>, mut renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let operation = &self.scripts.renew;
        if let Some(restart) = self.restart() {
            for renewal in &mut renewals {
                renewal.ttl = restart.cap(renewal.ttl);
            }
        }
        let requests = renewals
            .iter()
            .map(|renewal| {
                let header = self.header(renewal.claim.key());
                let command = self.requests.renew(operation, &header, renewal);
                // A claim that was resumed here has not been heard of yet.
                self.registry.add(&renewal.claim);
                (header, command)
            })
            .collect();
        let answers = match &self.replicas {
            None => self.all(operation, requests).await,
            Some(replicas) => read_all(replicas.confirm(requests).await),
        };
        let lease = |(answer, renewal): (Result<Answer>, &Renewal)| {
            if matches!(answer, Ok(Answer::Lost)) {
                self.registry.remove(renewal.claim.id());
            }
            answer.and_then(Answer::lease).map_err(|error| at(error, operation, renewal.claim.key()))
        };
        answers.into_iter().zip(&renewals).map(lease).collect()
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        let operation = &self.scripts.convert;
        let key = conversion.claim.key();
        let header = self.header(key);
        self.registry.add(&conversion.claim);
        let command = Requests::convert(operation, &header, &conversion);
        let attempt = async {
            if conversion.to.is_exclusive() {
                self.may_grant()?;
            }
            let mut answer = self.answer(operation, &command, &header).await?;
            if conversion.to.is_exclusive() {
                answer = self.weigh_upgrade(answer, header, command).await?;
            }
            answer.attempt()
        };
        attempt.await.map_err(|error| at(error, operation, key))
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let operation = &self.scripts.release;
        if let [release] = releases.as_slice() {
            let header = self.header(release.claim.key());
            let command = Requests::release(operation, &header, release);
            let mut answer = self.answer(operation, &command, &header).await;
            self.weigh(&[&release.claim], std::slice::from_mut(&mut answer)).await;
            return vec![self.released(release, answer)];
        }
        let requests = releases
            .iter()
            .map(|release| {
                let header = self.header(release.claim.key());
                let command = Requests::release(operation, &header, release);
                (header, command)
            })
            .collect();
        let mut answers = self.all(operation, requests).await;
        let claims: Vec<&Arc<Claim>> = releases.iter().map(|release| &release.claim).collect();
        self.weigh(&claims, &mut answers).await;
        answers.into_iter().zip(&releases).map(|(answer, release)| self.released(release, answer)).collect()
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        let operation = &self.scripts.break_claims;
        let header = self.header(&key);
        let command = Requests::break_claims(operation, &header, &target);
        let value = self.link.run(operation, &command, &header).await.map_err(Trouble::error);
        let claims = value.and_then(|value| reply::claims(&value));
        claims.map(|(claims, _)| claims).map_err(|error| at(error, operation, &key))
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        let operation = &self.scripts.inspect;
        let header = self.header(&key);
        let command = Requests::look(operation, &header);
        let value = self.link.run(operation, &command, &header).await.map_err(Trouble::error);
        let claims = value.and_then(|value| reply::claims(&value));
        claims.map(|(claims, _)| reply::snapshot(claims)).map_err(|error| at(error, operation, &key))
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        let operation = &self.scripts.in_use;
        let page = self.page(operation, &prefix, &page).await;
        page.map_err(|error| error.at(operation.name, NAME, None))
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        self.link.close();
        if let Some(replicas) = &self.replicas {
            replicas.close();
        }
        Ok(())
    }
}

impl RedisBackend {
    fn released(&self, release: &Release, answer: Result<Answer>) -> Result<Released> {
        let released = answer.map(Answer::released);
        if matches!(released, Ok(Released::Released | Released::NotHeld)) {
            self.registry.remove(release.claim.id());
        }
        released.map_err(|error| at(error, &self.scripts.release, release.claim.key()))
    }

    async fn page(&self, operation: &Operation, prefix: &KeyPrefix, page: &PageToken) -> Result<Page> {
        let cursor = page.0.as_deref().unwrap_or("0");
        if cursor.parse::<u64>().is_err() {
            return Err(Error::new(ErrorKind::InvalidArgument, "this page token is not one of ours"));
        }
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(self.requests.keys.pattern(prefix)).arg("COUNT").arg(SCAN_COUNT);
        let value = self.link.send(&scan, "the listing").await.map_err(Trouble::error)?;
        let scanned = value.extract_error().and_then(|value| Ok(redis::from_redis_value(value)?));
        let (cursor, names): (String, Vec<Vec<u8>>) =
            scanned.map_err(|error| Trouble::requesting(error, None).error())?;
        let keys: Vec<Key> = names.iter().filter_map(|name| self.requests.keys.key_of(name)).collect();
        let looks: Vec<(String, Cmd)> = keys
            .iter()
            .map(|key| {
                let header = self.header(key);
                let look = Requests::look(operation, &header);
                (header, look)
            })
            .collect();
        let used = self.link.run_all(operation, &looks).await;
        let mut page = Page { keys: Vec::new(), next: (cursor != "0").then_some(PageToken(Some(cursor))) };
        for (key, used) in keys.into_iter().zip(used) {
            match used {
                Ok(Value::Int(1)) => page.keys.push(key),
                Ok(_) => {}
                // Of another type: somebody else's, and no lock.
                Err(trouble) if trouble.kind == ErrorKind::Conflict => {}
                Err(trouble) => return Err(trouble.error()),
            }
        }
        Ok(page)
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("address", &self.link.target().address())
            .field("prefix", &self.requests.keys.prefix())
            .finish_non_exhaustive()
    }
}

fn at(error: Error, operation: &Operation, key: &Key) -> Error {
    error.at(operation.name, NAME, Some(key))
}
