//! Whether it is still the same cluster that answers, with all that it has ever told.
//!
//! A token is a revision. Behind the same address there may come to be another cluster, one that has lost its data, or one
//! that was restored from a backup: there revisions begin anew, or again, and a token would be given a second time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use etcd_client::ResponseHeader;
use lockcore::ErrorKind;

use crate::errors::Trouble;

/// What one client has seen of its cluster.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    cluster: OnceLock<u64>,
    newest: AtomicI64,
}

impl Lineage {
    /// The newest revision that was seen: to be asked for before a request goes out.
    pub(crate) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Takes in an answer to a request that was sent when `newest` had been seen.
    ///
    /// # Errors
    /// `Conflict` when no answer of the same cluster can say so: its revisions never go back, whichever member is asked.
    pub(crate) fn follow(&self, header: Option<&ResponseHeader>, newest: i64) -> Result<(), Trouble> {
        let Some(header) = header else { return Ok(()) };
        let (cluster, revision) = (header.cluster_id(), header.revision());
        let why = if *self.cluster.get_or_init(|| cluster) != cluster {
            "another cluster answers"
        } else if revision < newest {
            "the cluster has lost its data, or was restored from a backup without --bump-revision"
        } else {
            self.newest.fetch_max(revision, Ordering::AcqRel);
            return Ok(());
        };
        let message = format!("{why}: tokens would be used again; connect anew if that is meant");
        Err(Trouble::new(ErrorKind::Conflict, message))
    }
}
