//! What is asked of a cluster before locks are kept on it.

use std::time::Duration;

use etcd_client::Client;
use lockcore::{Capabilities, ErrorKind, KeyPrefix, LeaseClock, TokenStrength, Wake};
use tokio::time::timeout;

use crate::core::Core;
use crate::errors::{NAME, Trouble};
use crate::leases::new_id;
use crate::link::Link;
use crate::txn::{Compare, Get, Is, OnLease, Txn, TxnOp};

/// The oldest version that this library is tested with.
const OLDEST: (u32, u32) = (3, 4);

/// Refuses a cluster that is too old, and finds out what this one can promise.
pub(crate) async fn check(client: &Client, link: &Link, patience: Duration) -> Result<Capabilities, Trouble> {
    match version(client, patience).await {
        Ok(version) if version < OLDEST => {
            let (major, minor) = version;
            let message = format!("this is etcd {major}.{minor}; 3.4 or newer is needed");
            return Err(Trouble::new(ErrorKind::Unsupported, message));
        }
        // Where users are asked for, it is told to administrators only.
        Err(trouble) if trouble.kind != ErrorKind::Denied => return Err(trouble.at_first()),
        Ok(_) | Err(_) => {}
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

async fn version(client: &Client, patience: Duration) -> Result<(u32, u32), Trouble> {
    let mut maintenance = client.maintenance_client();
    let status = timeout(patience, maintenance.status()).await.map_err(|_| Trouble::silence())?;
    let status = status.map_err(Trouble::of)?;
    let mut parts = status.version().split('.').map(|part| part.parse().ok());
    let unreadable =
        || Trouble::new(ErrorKind::Unsupported, format!("this is no etcd: version {:?}", status.version()));
    parts.next().flatten().zip(parts.next().flatten()).ok_or_else(unreadable)
}

impl Core {
    /// Whether keys under the prefix may be read and written. A server looks at the rights to both branches of a transaction,
    /// and the first of this one is never taken.
    pub(crate) async fn may_act(&self) -> Result<(), Trouble> {
        let (start, end) = self.keys.listing(&KeyPrefix::default());
        let count = Get { start, end: Some(end), count_only: true, ..Get::default() };
        let news = self.keys.news(&self.session);
        let never = Compare { start: news.clone(), end: None, is: Is::CreatedAt(-1) };
        let write = TxnOp::Put { name: news, value: Vec::new(), lease: OnLease::Of(0) };
        let txn = Txn::new().when([never]).and_then([write]).or_else([TxnOp::Get(count)]);
        let what = format!("keys that begin with {:?} must be open to reads and writes", self.keys.prefix());
        self.txn(txn).await.map(drop).map_err(|trouble| trouble.because(ErrorKind::Denied, &what))
    }
}
