//! Requests to the server, each with a deadline.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, LeaseGrantOptions, PutOptions, Txn, TxnOp,
    TxnOpResponse,
};
use lockcore::ErrorKind;
use tokio::time::timeout;

use crate::errors::Trouble;
use crate::keys::Span;

/// The connection of one client.
pub(crate) struct Link {
    client: Client,
    request_timeout: Duration,
    closed: AtomicBool,
}

/// What a transaction did.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The revision that it made, or that it saw.
    pub(crate) revision: i64,
    pub(crate) succeeded: bool,
    /// The answers to its reads, in their order.
    pub(crate) gets: Vec<GetResponse>,
    /// How many keys its deletions removed.
    pub(crate) deleted: i64,
    /// Whether a transaction inside it succeeded, and the answers to its reads.
    pub(crate) inner: Option<(bool, Vec<GetResponse>)>,
}

impl Link {
    pub(crate) fn new(client: Client, request_timeout: Duration) -> Link {
        Link { client, request_timeout, closed: AtomicBool::new(false) }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        let mut kv = self.client.kv_client();
        let response = self.bounded(kv.txn(txn)).await?;
        let mut answer = Answer {
            revision: response.header().map_or(0, etcd_client::ResponseHeader::revision),
            succeeded: response.succeeded(),
            ..Answer::default()
        };
        for part in response.op_responses() {
            match part {
                TxnOpResponse::Get(get) => answer.gets.push(get),
                TxnOpResponse::Delete(delete) => answer.deleted += delete.deleted(),
                TxnOpResponse::Put(_) => {}
                TxnOpResponse::Txn(inner) => {
                    let gets = inner.op_responses().into_iter().filter_map(|part| match part {
                        TxnOpResponse::Get(get) => Some(get),
                        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
                    });
                    answer.inner = Some((inner.succeeded(), gets.collect()));
                }
            }
        }
        Ok(answer)
    }

    /// Makes the lease of this id, of at least so many seconds; its length as the server gives it.
    pub(crate) async fn grant(&self, id: i64, seconds: i64) -> Result<Duration, Trouble> {
        let mut leases = self.client.lease_client();
        let options = LeaseGrantOptions::new().with_id(id);
        let granted = self.bounded(leases.grant(seconds, Some(options))).await?;
        Ok(Duration::from_secs(granted.ttl().unsigned_abs()))
    }

    /// Sets the lease anew; `false` when there is no such lease.
    pub(crate) async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        let mut leases = self.client.lease_client();
        // The stream's first answer is waited for inside, and the stream ends with this call.
        match self.bounded(leases.keep_alive(lease)).await {
            Ok(_stream) => Ok(true),
            Err(trouble) if trouble.lease_gone => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        let mut leases = self.client.lease_client();
        self.bounded(leases.revoke(lease)).await.map(drop)
    }

    /// What is left of a lease, rounded up to a second; zero when it is not there.
    pub(crate) async fn time_to_live(&self, lease: i64) -> Result<Duration, Trouble> {
        let mut leases = self.client.lease_client();
        let answer = self.bounded(leases.time_to_live(lease, None)).await?;
        // The server cuts the fraction off; -1 says that there is none.
        Ok(Duration::from_secs(u64::try_from(answer.ttl().saturating_add(1)).unwrap_or(0)))
    }

    /// One request, for as long as requests may take.
    async fn bounded<T>(
        &self,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Trouble> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Trouble::new(ErrorKind::Closed, "this backend was closed"));
        }
        match timeout(self.request_timeout, request).await {
            Ok(answer) => answer.map_err(Trouble::of),
            Err(_) => Err(Trouble::silence()),
        }
    }
}

/// Is there no such key?
pub(crate) fn absent(name: impl Into<Vec<u8>>) -> Compare {
    Compare::create_revision(name, CompareOp::Equal, 0)
}

/// Is the range empty? An empty range compares as zeros, and a key that is there has no zero.
pub(crate) fn empty((start, end): Span) -> Compare {
    Compare::create_revision(start, CompareOp::Equal, 0).with_range(end)
}

/// Was this key's last write the one of this revision? Never the creation, which a later write keeps.
pub(crate) fn unchanged(name: &str, revision: i64) -> Compare {
    Compare::mod_revision(name, CompareOp::Equal, revision)
}

/// Has nothing in the range been written since this revision? What was deleted since is not seen, and need not be.
pub(crate) fn nothing_new((start, end): Span, revision: i64) -> Compare {
    Compare::mod_revision(start, CompareOp::Less, revision.saturating_add(1)).with_range(end)
}

pub(crate) fn put(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>, lease: i64) -> TxnOp {
    TxnOp::put(name, value, Some(PutOptions::new().with_lease(lease)))
}

/// Another value on the lease that the key has.
pub(crate) fn rewrite(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> TxnOp {
    TxnOp::put(name, value, Some(PutOptions::new().with_ignore_lease()))
}

pub(crate) fn delete(name: impl Into<Vec<u8>>) -> TxnOp {
    TxnOp::delete(name, None)
}

pub(crate) fn get(name: impl Into<Vec<u8>>) -> TxnOp {
    TxnOp::get(name, None)
}

pub(crate) fn get_range((start, end): Span) -> TxnOp {
    TxnOp::get(start, Some(GetOptions::new().with_range(end)))
}
