//! One partition of a topic on real brokers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::Error;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::task::spawn_blocking;

use crate::log::{Appending, Bounds, Log, Reader};
use crate::producing::Producing;
use crate::rd::Chore;
use crate::reading::Reading;
use crate::rights::{Right, is_missing};

/// How long the brokers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The connections of one backend to its topic.
pub(crate) struct Link {
    pub(crate) topic: String,
    pub(crate) producing: Producing,
    pub(crate) reading: Reading,
}

/// A partition, by its number.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) link: Arc<Link>,
    pub(crate) number: i32,
}

#[async_trait]
impl Log for Partition {
    fn append(&self, key: Option<&str>, bytes: Vec<u8>) -> Appending {
        self.link.producing.append(&self.link.topic, self.number, key, &bytes)
    }

    async fn bounds(&self) -> Result<Bounds, String> {
        // Not the reader's connection: there a question waits until the last one is answered.
        let producer = self.link.producing.producer().ok_or("the backend has ended")?;
        let (topic, number) = (self.link.topic.clone(), self.number);
        let asked =
            spawn_blocking(move || producer.client().fetch_watermarks(&topic, number, ANSWER_WITHIN)).await;
        let (start, end) = asked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        match (u64::try_from(start), u64::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(Bounds { start, end }),
            _ => Err(format!("the log lies between {start} and {end}")),
        }
    }

    fn reader(&self, offset: u64) -> Box<dyn Reader> {
        self.link.reading.reader(self.number, offset)
    }

    fn forget(&self, offset: u64) {
        let (link, number) = (self.link.clone(), self.number);
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        tokio::spawn(async move {
            let mut list = TopicPartitionList::new();
            let chore = Chore::new(link.producing.config());
            let named = list.add_partition_offset(&link.topic, number, offset);
            let (Ok(chore), Ok(())) = (&chore, named) else { return };
            let Some(admin) = chore.admin() else { return };
            let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
            let deleted = admin.delete_records(&list, &options).await;
            let deleted =
                deleted.and_then(|all| all.elements().first().map_or(Ok(()), TopicPartitionListElem::error));
            // Whoever writes the next checkpoint tries again.
            if let Err(error) = deleted {
                let is_denied = error.rdkafka_error_code().is_some_and(is_missing);
                let advice = is_denied.then(|| link.producing.rights().lacks(Right::Delete));
                let advice = advice.as_ref().map(Error::message);
                tracing::warn!(%error, advice, topic = link.topic, partition = number, "the log is not shortened");
            }
        });
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("topic", &self.topic).finish_non_exhaustive()
    }
}
