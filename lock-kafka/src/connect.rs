//! How a client comes to its partitions.

use std::sync::Arc;

use lockcore::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

use crate::backend::{KafkaBackend, capabilities};
use crate::core::Core;
use crate::errors::Halt;
use crate::log::Log;
use crate::newcomer;
use crate::record::Id;
use crate::settings::Settings;

/// The tasks that read; they end with their backend.
#[derive(Debug)]
pub(crate) struct Workers(Vec<JoinHandle<()>>);

impl KafkaBackend {
    /// A client of the locks in these logs: the partitions of one topic, in their order.
    ///
    /// It returns when each was read up to its end. Whoever comes first begins the topic, with these settings.
    ///
    /// # Errors
    /// A [`Halt`] as its source when the logs cannot be read, or do not belong together. `InvalidArgument` without a log.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind but, perhaps, the first record of an empty topic.
    pub async fn over(logs: Vec<Arc<dyn Log>>, settings: &Settings) -> Result<Arc<KafkaBackend>> {
        let count = u32::try_from(logs.len()).unwrap_or(u32::MAX);
        if logs.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a topic has at least one partition"));
        }
        // The first partition says which topic it is; the others repeat it.
        let mut genesis = settings.genesis(Id::random(), count);
        if let Some(wrong) = genesis.out_of_bounds() {
            return Err(Error::new(ErrorKind::InvalidArgument, wrong));
        }
        let mut begun = Vec::with_capacity(logs.len());
        for (partition, log) in (0..).zip(logs) {
            genesis.partition = partition;
            let (replica, reader) = newcomer::begin_or_found(&log, &genesis).await?;
            let found = replica.genesis().cloned().unwrap_or_else(|| genesis.clone());
            let is_same = found == genesis || partition == 0;
            if !is_same || (found.partition, found.partitions) != (partition, count) {
                return Err(Halt::Replaced.into());
            }
            genesis = found;
            let end = replica.next();
            begun.push((Arc::new(Core::new(log, replica, end)), reader));
        }
        let partitions = begun.iter().map(|(core, _)| core.clone()).collect();
        let work = begun.into_iter().map(|(core, reader)| tokio::spawn(core.work(reader)));
        let workers = Workers(work.collect());
        Ok(Arc::new(KafkaBackend { partitions, capabilities: capabilities(settings.replicated), workers }))
    }
}

impl Workers {
    pub(crate) fn end(&self) {
        for worker in &self.0 {
            worker.abort();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}
