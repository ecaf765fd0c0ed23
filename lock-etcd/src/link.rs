//! Requests to the server, each with a deadline.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::ErrorKind;
use tokio::time::timeout;

use crate::errors::Trouble;
use crate::txn::{Answer, Txn};

/// All that a client asks of a server: an etcd, or what takes its place in tests. Reads are linearizable.
#[async_trait]
pub(crate) trait Server: Send + Sync + 'static {
    async fn txn(&self, txn: Txn) -> Result<Answer, Trouble>;

    /// Makes the lease of this id; its length in seconds, which is at least the one that was asked for.
    async fn grant(&self, id: i64, seconds: i64) -> Result<i64, Trouble>;

    /// Sets the lease anew; `false` when there is no such lease.
    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble>;

    async fn revoke(&self, lease: i64) -> Result<(), Trouble>;

    /// The whole seconds that are left of a lease; -1 when it is not there.
    async fn time_to_live(&self, lease: i64) -> Result<i64, Trouble>;

    /// Opens a watch on all keys whose names begin so, from now on. It is there when this returns.
    async fn watch(&self, beginning: String) -> Result<Box<dyn Watch>, Trouble>;
}

/// An open watch.
#[async_trait]
pub(crate) trait Watch: Send {
    /// What happened since; nothing when the server only says that it is there. An error is the end of the watch.
    ///
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Vec<News>, Trouble>;
}

/// What happened to a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Written { value: Vec<u8>, revision: i64 },
    Deleted { name: Vec<u8> },
}

/// The connection of one client.
pub(crate) struct Link {
    server: Box<dyn Server>,
    request_timeout: Duration,
    closed: AtomicBool,
}

impl Link {
    pub(crate) fn new(server: impl Server, request_timeout: Duration) -> Link {
        Link { server: Box::new(server), request_timeout, closed: AtomicBool::new(false) }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        self.bounded(self.server.txn(txn)).await
    }

    /// Makes the lease of this id, of at least so many seconds; its length as the server gives it.
    pub(crate) async fn grant(&self, id: i64, seconds: i64) -> Result<Duration, Trouble> {
        let ttl = self.bounded(self.server.grant(id, seconds)).await?;
        Ok(Duration::from_secs(ttl.unsigned_abs()))
    }

    /// Sets the lease anew; `false` when there is no such lease.
    pub(crate) async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        self.bounded(self.server.keep_alive(lease)).await
    }

    /// Ends a lease, also when nothing else is sent any more.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        self.timed(self.server.revoke(lease)).await
    }

    /// What is left of a lease, rounded up to a second; zero when it is not there.
    pub(crate) async fn time_to_live(&self, lease: i64) -> Result<Duration, Trouble> {
        let ttl = self.bounded(self.server.time_to_live(lease)).await?;
        // The server cuts the fraction off; -1 says that there is none.
        Ok(Duration::from_secs(u64::try_from(ttl.saturating_add(1)).unwrap_or(0)))
    }

    /// Opens a watch on all keys whose names begin so, within `patience`.
    pub(crate) async fn watch(
        &self,
        beginning: String,
        patience: Duration,
    ) -> Result<Box<dyn Watch>, Trouble> {
        timeout(patience, self.server.watch(beginning))
            .await
            .unwrap_or_else(|_| Err(Trouble::silence().beforehand()))
    }

    /// One request, for as long as requests may take.
    async fn bounded<T>(&self, request: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Trouble::new(ErrorKind::Closed, "this backend was closed"));
        }
        self.timed(request).await
    }

    async fn timed<T>(&self, request: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        timeout(self.request_timeout, request).await.unwrap_or_else(|_| Err(Trouble::silence()))
    }
}
