//! Appending: one idempotent producer for all partitions of a backend.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::Result;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureRecord, Producer as _};

use crate::log::{Append, Appending};
use crate::rd::{Producer, Quiet, aside, not_made};
use crate::rights::{Right, Rights, is_missing};

/// How long the last records of a backend that ends may still take.
const LAST: Duration = Duration::from_secs(1);

/// The producer, and how another one is made.
pub(crate) struct Producing {
    config: ClientConfig,
    context: Quiet,
    rights: Arc<Rights>,
    current: Mutex<Option<Producer>>,
}

impl Producing {
    pub(crate) fn new(config: &ClientConfig, rights: Rights) -> Result<Producing> {
        let context = Quiet::default();
        let first = make(config, &context).map_err(not_made)?;
        let (config, rights, current) = (config.clone(), Arc::new(rights), Mutex::new(Some(first)));
        Ok(Producing { config, context, rights, current })
    }

    /// Why the last connection failed, if one did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.context.failure()
    }

    /// Waits until a broker does not believe who this is; what it says.
    pub(crate) async fn not_believed(&self) -> String {
        self.context.not_believed().await
    }

    /// What it may do.
    pub(crate) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// With which settings it was made.
    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Puts a record on its way, after all that were put before it.
    pub(crate) fn append(&self, topic: &str, partition: i32, key: Option<&str>, bytes: &[u8]) -> Appending {
        let mut current = self.current();
        let mut sent = send(current.as_ref(), topic, partition, key, bytes);
        if let Err(KafkaError::MessageProduction(RDKafkaErrorCode::Fatal)) = &sent {
            // It lost count of its records, as when the log has lost some: another one begins to count anew.
            tracing::warn!("the producer gave up, making another one");
            match make(&self.config, &self.context) {
                Ok(next) => {
                    if let Some(old) = current.replace(next) {
                        end(old);
                    }
                    sent = send(current.as_ref(), topic, partition, key, bytes);
                }
                Err(error) => sent = Err(error),
            }
        }
        let (producer, rights) = (current.clone(), self.rights.clone());
        match sent {
            Ok(delivery) => Box::pin(async move {
                match delivery.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err((error, _))) if is_denied(producer.as_ref(), &error) => {
                        Err(Append::Denied(rights.lacks(Right::Write).message().to_owned()))
                    }
                    // Whatever was said last: an earlier try may have arrived.
                    Ok(Err((error, _))) => Err(Append::Doubtful(error.to_string())),
                    Err(_) => Err(Append::Doubtful("the producer ended".to_owned())),
                }
            }),
            Err(error) if is_denied(producer.as_ref(), &error) => {
                Box::pin(async move { Err(Append::Denied(rights.lacks(Right::Write).message().to_owned())) })
            }
            Err(error) => Box::pin(async move { Err(Append::NotSent(error.to_string())) }),
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Producer>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client below, which also answers questions about the topic.
    pub(crate) fn producer(&self) -> Option<Producer> {
        self.current().clone()
    }
}

fn make(config: &ClientConfig, context: &Quiet) -> std::result::Result<Producer, KafkaError> {
    Producer::from_config_and_context(config, context.clone())
}

fn send(
    producer: Option<&Producer>,
    topic: &str,
    partition: i32,
    key: Option<&str>,
    bytes: &[u8],
) -> std::result::Result<rdkafka::producer::DeliveryFuture, KafkaError> {
    let record = FutureRecord {
        topic,
        partition: Some(partition),
        payload: Some(bytes),
        key,
        timestamp: None,
        headers: None,
    };
    let producer = producer.ok_or(KafkaError::Canceled)?;
    producer.send_result(record).map_err(|(error, _)| error)
}

/// Whether it may not write. A producer that may not write anywhere gives up for ever, and with it what it was to write.
fn is_denied(producer: Option<&Producer>, error: &KafkaError) -> bool {
    let fatal = || producer.and_then(|producer| producer.client().fatal_error());
    error.rdkafka_error_code().is_some_and(is_missing) || fatal().is_some_and(|(code, _)| is_missing(code))
}

/// Ends a producer where that may take its time.
fn end(producer: Producer) {
    aside(move || {
        if let Err(error) = producer.flush(LAST) {
            tracing::debug!(%error, "not all that was to be written last was written");
        }
    });
}

impl Drop for Producing {
    fn drop(&mut self) {
        if let Some(last) = self.current().take() {
            end(last);
        }
    }
}

impl fmt::Debug for Producing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Producing")
    }
}
