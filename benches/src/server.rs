//! A server that is measured on, and what it says of itself meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use lockcore::LockBackend;

use crate::Result;

/// A server, of our own or somebody else's.
#[async_trait]
pub(crate) trait Server: Sync {
    /// Where it is, as the library is told.
    fn url(&self) -> &str;

    /// A client of the library.
    async fn connect(&self) -> Result<Arc<dyn LockBackend>>;

    /// What it has counted since it began.
    async fn counters(&self) -> Result<Counters>;

    /// What it did, by the difference of its counters.
    fn sum_up(&self, counters: &Counters) -> Counted;
}

/// The counters of a server, by its own names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    counts: HashMap<String, u64>,
    pub(crate) cpu_seconds: f64,
}

impl Counters {
    pub(crate) fn add(&mut self, name: impl Into<String>, count: u64) {
        *self.counts.entry(name.into()).or_default() += count;
    }

    /// Zero when it was never counted.
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, &count)| (name.as_str(), count))
    }

    fn since(&self, before: &Counters) -> Counters {
        let since = |(name, count): (&str, u64)| (name.to_owned(), count.saturating_sub(before.of(name)));
        Counters {
            counts: self.iter().map(since).collect(),
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
        }
    }
}

/// What a server did in a while; what it does not count is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// What clients sent.
    pub(crate) requests: u64,
    /// What clients were told unasked.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) cpu_seconds: f64,
    /// All commands, those within scripts too.
    pub(crate) commands: Option<u64>,
    pub(crate) script_micros: Option<f64>,
    /// How often it read from a client.
    pub(crate) reads: Option<u64>,
    pub(crate) raft_entries: Option<u64>,
    pub(crate) fsyncs: Option<u64>,
}

/// From now on.
pub(crate) struct Counting<'a> {
    server: &'a dyn Server,
    before: Counters,
}

impl<'a> Counting<'a> {
    pub(crate) async fn begin(server: &'a dyn Server) -> Result<Counting<'a>> {
        Ok(Counting { server, before: server.counters().await? })
    }

    /// Until now.
    pub(crate) async fn end(self) -> Result<Counted> {
        let counters = self.server.counters().await?.since(&self.before);
        Ok(Counted { cpu_seconds: counters.cpu_seconds, ..self.server.sum_up(&counters) })
    }
}
