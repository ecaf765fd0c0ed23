//! What is asked of a cluster before locks are kept on it.

use std::time::Duration;

use etcd_client::Client;
use lockcore::{Capabilities, ErrorKind, KeyPrefix, LeaseClock, TokenStrength, Wake};
use tokio::time::timeout;

use crate::core::Core;
use crate::errors::{NAME, Trouble};
use crate::leases::new_id;
use crate::link::Link;
use crate::txn::{Get, Txn, TxnOp};

/// The oldest version that this library is tested with.
const OLDEST: (u32, u32) = (3, 4);

/// Refuses a cluster that is too old, and finds out what this one can promise.
pub(crate) async fn check(client: &Client, link: &Link, patience: Duration) -> Result<Capabilities, Trouble> {
    let mut maintenance = client.maintenance_client();
    let silent = |_| Trouble::new(ErrorKind::Unavailable, "the server does not answer");
    let status = timeout(patience, maintenance.status()).await.map_err(silent)?;
    let status = status.map_err(|error| Trouble::of(error).beforehand())?;
    if let Some((major, minor)) = version(status.version()).filter(|version| *version < OLDEST) {
        let message = format!("this is etcd {major}.{minor}; 3.4 or newer is needed");
        return Err(Trouble::new(ErrorKind::Unsupported, message));
    }
    // The shortest lease depends on the election timeout of the cluster, and is only to be had by asking for less.
    let lease = new_id();
    let min_ttl = link.grant(lease, 1).await.map_err(Trouble::beforehand)?;
    link.revoke(lease).await.map_err(Trouble::beforehand)?;
    Ok(capabilities(min_ttl, members(client, patience).await >= 3))
}

/// What a cluster can promise whose shortest lease is this.
pub(crate) fn capabilities(min_ttl: Duration, survives_failover: bool) -> Capabilities {
    Capabilities {
        backend: NAME,
        fair: true,
        wake: Wake::Push,
        convert: true,
        permits: true,
        list: true,
        tokens: TokenStrength::Strict,
        clock: LeaseClock::ServerMonotonic,
        min_ttl,
        ttl_step: Duration::from_secs(1),
        survives_failover,
    }
}

/// How many members vote; one when that is not to be known.
async fn members(client: &Client, patience: Duration) -> usize {
    let mut cluster = client.cluster_client();
    match timeout(patience, cluster.member_list()).await {
        Ok(Ok(list)) => list.members().iter().filter(|member| !member.is_learner()).count(),
        Ok(Err(_)) | Err(_) => 1,
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

impl Core {
    /// Whether keys under the prefix may be read.
    pub(crate) async fn may_read(&self) -> Result<(), Trouble> {
        let (start, end) = self.keys.listing(&KeyPrefix::default());
        let count = Get { start, end: Some(end), count_only: true, ..Get::default() };
        self.txn(Txn::new().and_then([TxnOp::Get(count)])).await.map(drop)
    }
}
