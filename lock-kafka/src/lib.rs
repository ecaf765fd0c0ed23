//! The Kafka backend of fencelock: locks in a log.
//!
//! Every client appends what it wants as records and folds the records of all, in the order of the log, with the state machine
//! of [`lockcore::state`]. What a request did is what its client's own fold says at the record's offset; whether the append was
//! acknowledged decides nothing. The protocol, with its reasons and its weak places, is in `docs/backends/kafka.md`.
//!
//! [`KafkaBackend::connect`] keeps them on real brokers, by librdkafka. [`KafkaBackend::over`] takes the partitions of a topic as
//! [`Log`]s from anywhere.
//!
//! # Examples
//! ```no_run
//! # async fn example() -> Result<(), lockcore::Error> {
//! let backend = lock_kafka::KafkaBackend::connect("kafka://one:9092,two:9092,three:9092/locks").await?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `record`, `what` | what lies in the log, and how it is read |
//! | `fold` | what the records lead to: the replica; `sessions`, `leases`, `clock` are its rules, `checkpoint` is how it is written |
//! | `core` | one partition as one client sees it: requests and answers; `worker` is the task that reads |
//! | `keeper` | when this client proposes that a lease is over |
//! | `scribe` | when it writes a checkpoint, and lets the log be shortened |
//! | `newcomer`, `connect` | how a client begins; `target` is its URL, `checks` what is asked of a topic, `rights` what it may do to it |
//! | `partition` | a [`Log`] on real brokers: `producing` and `reading` are its two directions, `rd` the settings of librdkafka |

mod backend;
mod checkpoint;
mod checks;
mod clock;
mod connect;
mod core;
mod errors;
mod fold;
mod keeper;
mod leases;
mod log;
mod newcomer;
mod partition;
mod producing;
mod rd;
mod reading;
mod record;
mod registry;
mod rights;
mod scribe;
mod sessions;
mod settings;
#[cfg(test)]
mod sim;
mod target;
mod what;
mod worker;

pub use self::backend::KafkaBackend;
pub use self::connect::KafkaBuilder;
pub use self::errors::Halt;
pub use self::log::{Append, Appending, Batch, Bounds, Entry, Log, Reader};
pub use self::settings::Settings;
/// The client library, whose settings [`KafkaBuilder::client_config`] takes.
pub use rdkafka;
