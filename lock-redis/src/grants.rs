//! What a grant that the server answers is worth: by the options `replicas` and `restart_grace` it takes more than its word.

use std::sync::Arc;

use lockcore::{Claim, Error, ErrorKind, Lease, Renewal, Result};
use redis::{Cmd, Value};

use crate::backend::RedisBackend;
use crate::errors::Trouble;
use crate::reply::{self, Answer};
use crate::restart::RestartGrace;

impl RedisBackend {
    pub(crate) fn restart(&self) -> Option<&RestartGrace> {
        self.link.target().restart.as_deref()
    }

    /// Refuses to ask for a grant that would not be believed.
    pub(crate) fn may_grant(&self) -> Result<()> {
        self.restart().map_or(Ok(()), RestartGrace::check)
    }

    /// Refuses a claim that would be believed for longer than a restart allows.
    pub(crate) fn check_leases(&self, claim: &Claim) -> Result<()> {
        let longest = claim.ttl().max(claim.waiter_ttl());
        self.restart().map_or(Ok(()), |restart| restart.check_ttl(longest))
    }

    /// Weighs the grants among the answers to `claims`, and replaces those that do not count by errors: they may have
    /// happened, and are to be withdrawn. A claim that ended before it was confirmed is `Lost`.
    pub(crate) async fn weigh(&self, claims: &[&Arc<Claim>], answers: &mut [Result<Answer>]) {
        if self.replicas.is_none() && self.restart().is_none() {
            return;
        }
        let lease = |answer: &Result<Answer>| match answer {
            Ok(Answer::Granted(lease)) => Some(*lease),
            _ => None,
        };
        let grants: Vec<(&Arc<Claim>, Lease, &mut Result<Answer>)> = claims
            .iter()
            .zip(answers)
            .filter_map(|(claim, answer)| Some((*claim, lease(answer)?, answer)))
            .collect();
        let confirmed = match &self.replicas {
            Some(replicas) if !grants.is_empty() => {
                let renewals = grants.iter().map(|(claim, lease, _)| self.first_renewal(claim, *lease));
                read_all(replicas.confirm(renewals.collect()).await)
            }
            _ => Vec::new(),
        };
        let mut confirmed = confirmed.into_iter();
        for (_, _, answer) in grants {
            if let Some(confirmation) = confirmed.next() {
                *answer = confirmation.map_err(happened);
            }
            // The last thing: the connection that was asked may have been to a server that has just restarted.
            if let (Ok(_), Err(error)) = (&answer, self.may_grant()) {
                *answer = Err(happened(error));
            }
        }
    }

    /// Weighs the answer to an upgrade. The confirmation asks for it once more, which changes nothing where it is granted.
    pub(crate) async fn weigh_upgrade(
        &self,
        mut answer: Answer,
        header: String,
        command: Cmd,
    ) -> Result<Answer> {
        if !matches!(answer, Answer::Granted(_)) {
            return Ok(answer);
        }
        if let Some(replicas) = &self.replicas {
            let confirmed = read_all(replicas.confirm(vec![(header, command)]).await).pop();
            answer = confirmed.unwrap_or(Ok(answer)).map_err(happened)?;
        }
        self.may_grant().map_err(happened)?;
        Ok(answer)
    }

    /// The renewal that confirms a grant, to what is left of its lease: being granted changes no lease. `WAIT` alone would say
    /// nothing of the claim if its connection leads to another server than the one that granted. All other renewals have larger
    /// numbers.
    fn first_renewal(&self, claim: &Arc<Claim>, lease: Lease) -> (String, Cmd) {
        let header = self.header(claim.key());
        let renewal = Renewal { claim: claim.clone(), ttl: lease.left, order: 0 };
        let command = self.requests.renew(&self.scripts.renew, &header, &renewal);
        (header, command)
    }
}

/// The error of what the primary has carried out before.
fn happened(error: Error) -> Error {
    error.with_kind(ErrorKind::Indeterminate)
}

pub(crate) fn read_all(values: Vec<Result<Value, Trouble>>) -> Vec<Result<Answer>> {
    let read = |value: Result<Value, Trouble>| Ok(reply::answer(&value.map_err(Trouble::error)?)?.0);
    values.into_iter().map(read).collect()
}
