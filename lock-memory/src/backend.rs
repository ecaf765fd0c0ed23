//! One client of a [`MemoryServer`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::state::LockState;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LeaseClock, LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
    TokenStrength, Wake,
};

use crate::faults::Faults;
use crate::server::{Inner, MIN_TTL, MemoryServer};

/// One client of an in-memory lock server.
// Its reference count is written for every request, by all threads: what they read must not lie beside it.
#[repr(align(128))]
pub struct MemoryBackend {
    server: Arc<Inner>,
    faults: Option<Faults>,
}

impl MemoryBackend {
    /// A client of a new server of its own; [`MemoryServer`] makes several clients of one.
    #[must_use]
    pub fn new() -> Arc<MemoryBackend> {
        MemoryServer::new().client()
    }

    pub(crate) fn of(server: Arc<Inner>, faults: Option<Faults>) -> MemoryBackend {
        MemoryBackend { server, faults }
    }

    async fn before(&self) -> Result<()> {
        match &self.faults {
            Some(faults) => faults.before().await,
            None => Ok(()),
        }
    }

    fn after(&self) -> Result<()> {
        self.faults.as_ref().map_or(Ok(()), Faults::after)
    }
}

#[async_trait]
impl LockBackend for MemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "memory",
            fair: true,
            wake: Wake::Push,
            convert: true,
            permits: true,
            list: true,
            tokens: TokenStrength::ClockOverLoss,
            clock: LeaseClock::Own,
            min_ttl: MIN_TTL,
            ttl_step: Duration::from_micros(1),
            survives_failover: false,
        }
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        if let Some(faults) = &self.faults {
            faults.before().await?;
            faults.claimed(claim.id());
        }
        let attempt =
            self.server.apply(claim.key(), |state, now, effects| state.acquire(now, &claim, queue, effects));
        if let (Some(faults), Attempt::Busy | Attempt::Gone) = (&self.faults, attempt) {
            faults.released(claim.id());
        }
        self.after()?;
        Ok(attempt)
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let mut answers = Vec::with_capacity(renewals.len());
        for renewal in renewals {
            answers.push(match self.before().await {
                Ok(()) => self.renew_one(&renewal),
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.before().await?;
        let Conversion { claim, to, order } = conversion;
        let converted = self
            .server
            .apply(claim.key(), |state, now, effects| state.convert(now, claim.id(), to, order, effects));
        self.after()?;
        converted.map_err(Error::from)
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let mut answers = Vec::with_capacity(releases.len());
        for release in releases {
            answers.push(match self.before().await {
                Ok(()) => self.release_one(&release),
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.before().await?;
        let broken = self.server.apply(&key, |state, now, effects| state.break_claims(now, &target, effects));
        self.after()?;
        Ok(broken)
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.before().await?;
        let snapshot = self.server.apply(&key, LockState::inspect);
        self.after()?;
        Ok(snapshot)
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        self.before().await?;
        let mut shard = match page.0 {
            None => 0,
            Some(at) => at.parse::<usize>().map_err(|error| {
                Error::new(ErrorKind::InvalidArgument, "not a page of this listing").with_source(error)
            })?,
        };
        let mut keys = Vec::new();
        while keys.is_empty() {
            let Some(more) = self.server.keys(shard, &prefix) else { return Ok(Page::default()) };
            keys = more;
            shard += 1;
        }
        self.after()?;
        Ok(Page { keys, next: Some(PageToken(Some(shard.to_string()))) })
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        Ok(())
    }
}

impl MemoryBackend {
    fn renew_one(&self, renewal: &Renewal) -> Result<Lease> {
        let Renewal { claim, ttl, order } = renewal;
        let ttl = (*ttl).max(MIN_TTL);
        let lease = self.server.apply(claim.key(), |state, now, effects| {
            state.adopt(claim);
            state.renew(now, claim.id(), ttl, *order, effects)
        });
        self.after()?;
        lease.map_err(Error::from)
    }

    fn release_one(&self, release: &Release) -> Result<Released> {
        let Release { claim, answered, only_waiting } = release;
        let released = self.server.apply(claim.key(), |state, now, effects| {
            state.release(now, claim.id(), *answered, *only_waiting, effects)
        });
        self.after()?;
        if let Some(faults) = &self.faults
            && !matches!(released, Released::Granted(_))
        {
            faults.released(claim.id());
        }
        Ok(released)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}
