//! The twin as a backend.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, Key, KeyPrefix, Lease,
    LeaseClock, LockBackend, Page, PageToken, Queue, Release, Released, Renewal, Result, Snapshot,
    TokenStrength, Wake,
};

use super::Mutant;
use super::twin::Twin;

#[async_trait]
impl LockBackend for Twin {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "twin",
            fair: true,
            wake: Wake::Push,
            convert: true,
            permits: true,
            list: true,
            tokens: TokenStrength::ClockOverLoss,
            clock: LeaseClock::Own,
            min_ttl: Duration::from_millis(1),
            ttl_step: Duration::from_micros(1),
            survives_failover: false,
        }
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        self.way.there().await?;
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).insert(claim.id());
        let attempt = self.apply(claim.key(), |lock, now| {
            let attempt = self.join(lock, now, &claim, queue);
            lock.last = Some(lock.last.filter(|_| self.is(Mutant::TtlIgnored)).unwrap_or(now));
            attempt
        });
        self.way.back().map(|()| attempt)
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let mut answers = Vec::with_capacity(renewals.len());
        for renewal in renewals {
            let answer = match self.way.there().await {
                Ok(()) => self
                    .apply(renewal.claim.key(), |lock, now| self.renew_one(lock, now, &renewal))
                    .map_err(Error::from),
                Err(error) => Err(error),
            };
            answers.push(answer.and_then(|lease| self.way.back().map(|()| lease)));
        }
        answers
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        self.way.there().await?;
        let Conversion { claim, to, order } = conversion;
        let attempt = self.apply(claim.key(), |lock, now| {
            let attempt = lock.state.convert(now, claim.id(), to, order, &mut lock.effects)?;
            if let (Attempt::Queued(_), true) = (attempt, self.is(Mutant::UpgradeDoesNotWait)) {
                let lease = lock.state.renew(now, claim.id(), claim.ttl(), u64::MAX, &mut lock.effects)?;
                return Ok::<_, Error>(Attempt::Granted(lease));
            }
            Ok(self.tell(lock, claim.id(), attempt))
        });
        self.way.back()?;
        attempt
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        let mut answers = Vec::with_capacity(releases.len());
        for release in releases {
            let answer = match self.way.there().await {
                Ok(()) => Ok(self.apply(release.claim.key(), |lock, now| self.let_go(lock, now, &release))),
                Err(error) => Err(error),
            };
            answers.push(answer.and_then(|released| self.way.back().map(|()| released)));
        }
        answers
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        self.way.there().await?;
        let target = match target {
            BreakTarget::Token(_) if self.is(Mutant::BreakWithoutTokenCheck) => BreakTarget::Holders,
            other @ (BreakTarget::Token(_)
            | BreakTarget::Claim(_)
            | BreakTarget::Owner(_)
            | BreakTarget::Holders
            | BreakTarget::All) => other,
        };
        let broken = self.apply(&key, |lock, now| lock.state.break_claims(now, &target, &mut lock.effects));
        self.way.back().map(|()| broken)
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        self.way.there().await?;
        let snapshot = self.apply(&key, |lock, now| self.look(lock, now));
        self.way.back().map(|()| snapshot)
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, _page: PageToken) -> Result<Page> {
        self.way.there().await?;
        let keys = self.shelf.keys(&prefix);
        self.way.back().map(|()| Page { keys, next: None })
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        Ok(())
    }
}
