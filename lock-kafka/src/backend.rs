//! The backend: a partition for each key, a record for each request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use lockcore::{
    Attempt, BreakTarget, Capabilities, Claim, ClaimInfo, Conversion, Error, ErrorKind, Key, KeyPrefix,
    Lease, LeaseClock, LockBackend, MAX_TTL, Page, PageToken, Queue, Release, Released, Renewal, Result,
    Snapshot, TokenStrength, Wake,
};

use crate::checkpoint::Hash;
use crate::connect::Workers;
use crate::core::{Core, Over};
use crate::errors::{BACKEND, copy, unexpected};
use crate::fold::Answer;
use crate::what::{Break, Convert, Join, LetGo, Renew, What, micros};

/// A lease is never shorter: a record must have been read within it, many times over.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);

/// At most so many renewals in one record, which is long enough for them: no claim is renewed more than 10^15 times.
const RENEWALS: usize = 10_000;

/// One client of the locks in a topic.
pub struct KafkaBackend {
    pub(crate) partitions: Vec<Arc<Core>>,
    pub(crate) capabilities: Capabilities,
    pub(crate) workers: Workers,
}

/// What this client can do, and what is promised.
pub(crate) fn capabilities(replicated: bool) -> Capabilities {
    Capabilities {
        backend: BACKEND,
        fair: true,
        wake: Wake::Push,
        convert: true,
        permits: true,
        list: true,
        tokens: TokenStrength::ClockOverLoss,
        clock: LeaseClock::ServerWall,
        min_ttl: MIN_TTL,
        ttl_step: Duration::from_micros(1),
        survives_failover: replicated,
    }
}

impl KafkaBackend {
    /// The number of the partition of a key, the same in every version of every program.
    fn number(&self, key: &Key) -> usize {
        let count = u64::try_from(self.partitions.len()).unwrap_or(1).max(1);
        let which = Hash::of(key.as_str().as_bytes()).get() % count;
        usize::try_from(which).unwrap_or(0)
    }

    fn partition(&self, key: &Key) -> &Arc<Core> {
        &self.partitions[self.number(key)]
    }

    async fn release_one(&self, Release { claim, answered, only_waiting }: Release) -> Result<Released> {
        let core = self.partition(claim.key());
        if !only_waiting {
            // Whatever becomes of it, nobody here counts on it any more.
            core.inner().registry.remove(claim.id());
        }
        let let_go = LetGo { identifier: claim.key().clone(), claim: claim.id(), answered, only_waiting };
        let Answer::Released(released) = core.ask(What::Release(let_go)).await? else {
            return Err(unexpected());
        };
        Ok(released)
    }
}

#[async_trait]
impl LockBackend for KafkaBackend {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn renewal_group(&self, key: &Key) -> Option<usize> {
        Some(self.number(key))
    }

    async fn acquire(self: Arc<Self>, claim: Arc<Claim>, queue: Queue) -> Result<Attempt> {
        let core = self.partition(claim.key());
        core.inner().registry.add(&claim);
        let mut join = Join::of(&claim, queue);
        join.ttl_us = join.ttl_us.max(micros(MIN_TTL));
        join.waiter_ttl_us = join.waiter_ttl_us.max(micros(MIN_TTL));
        match core.ask(What::Acquire(join)).await {
            Ok(Answer::Attempt(attempt)) => Ok(attempt),
            Ok(_) => Err(unexpected()),
            Err(error) => {
                let mut inner = core.inner();
                // Nothing happened; and unless an earlier request had joined it, it is nowhere.
                if !error.may_have_happened() && inner.replica.lease(claim.id()).is_none() {
                    inner.registry.remove(claim.id());
                }
                Err(error)
            }
        }
    }

    async fn renew(self: Arc<Self>, renewals: Vec<Renewal>) -> Vec<Result<Lease>> {
        let mut answers: Vec<Option<Result<Lease>>> = renewals.iter().map(|_| None).collect();
        let mut records: Vec<(&Arc<Core>, Vec<usize>)> = Vec::new();
        for core in &self.partitions {
            let mine = renewals.iter().enumerate();
            let mine = mine.filter(|(_, renewal)| Arc::ptr_eq(self.partition(renewal.claim.key()), core));
            let mine: Vec<usize> = mine.map(|(at, _)| at).collect();
            records.extend(mine.chunks(RENEWALS).map(|some| (core, some.to_vec())));
        }
        let asked = records.iter().map(|(core, some)| {
            let (mut inner, mut unread) = (core.inner(), Vec::new());
            let renew = some.iter().map(|&at| {
                let Renewal { claim, ttl, order } = &renewals[at];
                // One that is too long would have the record skipped.
                let ttl = (*ttl).clamp(MIN_TTL, MAX_TTL);
                // One that was let go meanwhile is not taken up again.
                if inner.replica.lease(claim.id()).is_some() {
                    inner.registry.add(claim);
                } else {
                    unread.push(claim.clone());
                }
                Renew { claim: claim.id(), ttl_us: micros(ttl), order: *order }
            });
            let renew = renew.collect();
            core.renew(renew, unread)
        });
        for ((_, some), answer) in records.iter().zip(join_all(asked).await) {
            match answer {
                Ok(Answer::Renewed(renewed)) => {
                    for (&at, renewed) in some.iter().zip(renewed) {
                        answers[at] = Some(renewed.map(|renewed| renewed.lease).map_err(Error::from));
                    }
                }
                Ok(_) => some.iter().for_each(|&at| answers[at] = Some(Err(unexpected()))),
                Err(error) => {
                    for &at in some {
                        answers[at] = Some(Err(copy(&error)));
                    }
                }
            }
        }
        let missing = || Err(Error::new(ErrorKind::Other, "a renewal was not asked for"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    async fn convert(self: Arc<Self>, conversion: Conversion) -> Result<Attempt> {
        let Conversion { claim, to, order } = conversion;
        let identifier = claim.key().clone();
        let convert = Convert { identifier, claim: claim.id(), mode: to, order };
        let core = self.partition(claim.key());
        let Answer::Converted(converted) = core.ask(What::Convert(convert)).await? else {
            return Err(unexpected());
        };
        converted.map_err(Error::from)
    }

    async fn release(self: Arc<Self>, releases: Vec<Release>) -> Vec<Result<Released>> {
        join_all(releases.into_iter().map(|release| self.release_one(release))).await
    }

    async fn break_claims(self: Arc<Self>, key: Key, target: BreakTarget) -> Result<Vec<ClaimInfo>> {
        let of = Break { identifier: key.clone(), target: target.into() };
        let core = self.partition(&key);
        let Answer::Broken(broken) = core.ask(What::Break(of)).await? else { return Err(unexpected()) };
        Ok(broken)
    }

    async fn inspect(self: Arc<Self>, key: Key) -> Result<Snapshot> {
        let core = self.partition(&key);
        core.look(key.clone()).await
    }

    async fn list(self: Arc<Self>, prefix: KeyPrefix, page: PageToken) -> Result<Page> {
        let mut which = match page.0 {
            None => 0,
            Some(at) => at.parse::<usize>().map_err(|error| {
                Error::new(ErrorKind::InvalidArgument, "not a page of this listing").with_source(error)
            })?,
        };
        while let Some(core) = self.partitions.get(which) {
            core.ask(What::Barrier).await?;
            let keys = core.inner().replica.keys(&prefix);
            which += 1;
            if !keys.is_empty() {
                let more = which < self.partitions.len();
                return Ok(Page { keys, next: more.then(|| PageToken(Some(which.to_string()))) });
            }
        }
        Ok(Page::default())
    }

    async fn close(self: Arc<Self>) -> Result<()> {
        for core in &self.partitions {
            // That the session ends is a kindness to the others' memory: they forget it by themselves.
            core.say(What::Close);
            core.end(&Over::Closed);
        }
        self.workers.end();
        Ok(())
    }
}

impl fmt::Debug for KafkaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBackend").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use lockcore::ClaimId;

    use super::*;
    use crate::record::{Id, MAX_RECORD_BYTES, Record};

    #[test]
    fn the_longest_heartbeat_is_a_record() {
        let ttl_us = micros(MAX_TTL);
        let renew = (0..RENEWALS).map(|_| Renew { claim: ClaimId::random(), ttl_us, order: 10_u64.pow(15) });
        let record = Record::new(Id::random(), u64::MAX, What::Heartbeat { renew: renew.collect() });
        let bytes = record.encode().len();
        assert!(bytes <= MAX_RECORD_BYTES, "{bytes}");
    }
}
