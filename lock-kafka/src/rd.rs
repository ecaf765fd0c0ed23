//! librdkafka's settings: what locks need, what makes them quick, and what its user may say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use lockcore::{Error, ErrorKind, Result};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::FutureProducer;
use tokio::sync::watch;

use crate::target::invalid;

/// What the protocol rests on: whoever sets it otherwise is refused.
const FIXED: [(&str, &str); 10] = [
    ("acks", "all"),
    ("allow.auto.create.topics", "false"),
    ("auto.offset.reset", "error"),
    ("check.crcs", "true"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.idempotence", "true"),
    // It says how far was read, where the last of it is no record.
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_uncommitted"),
    // The longest record and its header.
    ("message.max.bytes", "1048588"),
];

/// What its user may set otherwise.
const USUAL: [(&str, &str); 13] = [
    ("client.id", "fencelock"),
    // Nobody joins it; the library wants a name before it reads.
    ("group.id", "fencelock"),
    ("linger.ms", "0"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    // A broker that hangs is given up after this time, and another is asked who leads.
    ("socket.timeout.ms", "6000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("message.timeout.ms", "10000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("retry.backoff.ms", "50"),
    // What is new comes at once; a partition that is to be read anew waits for the end of the last question.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "50"),
];

/// Other names of settings that are looked at here, and what they are called: librdkafka takes either, and if both are given the
/// one that is set last.
const ALIASES: [(&str, &str); 4] = [
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
];

/// The settings for all clients of one backend.
///
/// # Errors
/// `InvalidArgument` for one that the protocol cannot do with, or that librdkafka does not know, by its name.
pub(crate) fn config(given: &ClientConfig, more: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let mut config = given.clone();
    for (alias, name) in ALIASES {
        if let Some(value) = given.get(alias) {
            config.remove(alias);
            config.set(name, value);
        }
    }
    for (name, value) in more {
        let named = ALIASES.iter().find(|(alias, _)| *alias == name.as_str());
        config.set(named.map_or(name.as_str(), |(_, name)| *name), value);
    }
    // Whether there is a logger of the crate `log` does not matter: why a connection fails is to be heard.
    config.log_level = RDKafkaLogLevel::Info;
    if config.get("transactional.id").is_some() {
        return Err(invalid("transactional.id cannot be set: a transaction would hide what it writes"));
    }
    for (name, value) in FIXED {
        if let Some(other) = config.get(name)
            && other != value
        {
            return Err(invalid(format!("{name} must be {value}, or be left out")));
        }
        config.set(name, value);
    }
    for (name, value) in USUAL {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config.create_native_config().map_err(refused)?;
    Ok(config)
}

/// Why librdkafka takes a setting not. The value may be a password.
fn refused(error: KafkaError) -> Error {
    if let KafkaError::ClientConfig(_, _, name, _) = &error {
        return invalid(format!("librdkafka does not know the setting {name}, or not with this value"));
    }
    invalid("librdkafka does not take these settings").with_source(error)
}

/// What a client cannot be made of.
pub(crate) fn not_made(error: KafkaError) -> Error {
    let message = format!("librdkafka does not work with these settings: {error}");
    Error::new(ErrorKind::InvalidArgument, message).with_source(error)
}

/// What librdkafka says by itself goes to the log; what matters of it comes back from requests, but for the reason why there is no
/// connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiet(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    failure: Mutex<Option<String>>,
    /// What a broker says that does not believe who this is.
    not_believed: watch::Sender<Option<String>>,
}

impl Quiet {
    /// Why the last connection failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a broker does not believe who this is; what it says.
    pub(crate) async fn not_believed(&self) -> String {
        let mut heard = self.0.not_believed.subscribe();
        // The sender lives as long as this.
        let said = heard.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
        said.unwrap_or_default()
    }
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
        if facility == "FAIL" {
            let mut failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = Some(reason(message).to_owned());
        }
    }

    fn error(&self, error: KafkaError, said: &str) {
        tracing::debug!(%error, said, "librdkafka");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.0.not_believed.send_replace(Some(reason(said).to_owned()));
        }
    }
}

impl ConsumerContext for Quiet {}

/// What librdkafka says without its thread, the broker and how long it took.
fn reason(message: &str) -> &str {
    let said = message.split_once("]: ").map_or(message, |(_, said)| said);
    let said = said.split_once(": ").map_or(said, |(_, said)| said);
    said.split_once(" (after ").map_or(said, |(said, _)| said)
}

/// Does what may take its time, as the end of a client does, on a thread of its own.
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name("fencelock-kafka-end".into()).spawn(work) {
        tracing::warn!(%error, "no thread to end a client of Kafka on");
    }
}

/// A client for one chore, which ends where that may take its time. It is not to be kept: what librdkafka says to it piles up.
pub(crate) struct Chore(Option<Admin>);

impl Chore {
    pub(crate) fn new(config: &ClientConfig) -> Result<Chore> {
        let admin = Admin::from_config_and_context(config, Quiet::default()).map_err(not_made)?;
        Ok(Chore(Some(admin)))
    }

    /// None when it has ended.
    pub(crate) fn admin(&self) -> Option<&Admin> {
        self.0.as_ref()
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        let admin = self.0.take();
        aside(move || drop(admin));
    }
}

pub(crate) type Consumer = BaseConsumer<Quiet>;
pub(crate) type Producer = FutureProducer<Quiet>;
pub(crate) type Admin = rdkafka::admin::AdminClient<Quiet>;

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<ClientConfig> {
        config(&ClientConfig::new(), &BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn what_is_said_counts_and_what_is_not_known_is_named() {
        let config = with("fetch.wait.max.ms", "7").unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("acks"), Some("all"));
        for (name, value) in [("colour", "red"), ("acks", "1"), ("transactional.id", "x")] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = with("sasl.geheim", "geheim2").unwrap_err();
        assert!(
            error.to_string().contains("sasl.geheim") && !error.to_string().contains("geheim2"),
            "{error}"
        );
        assert!(with("enable.idempotence", "true").is_ok());
    }

    #[test]
    fn a_setting_is_the_same_by_its_other_name() {
        let mut given = ClientConfig::new();
        given.set("metadata.broker.list", "other:9092").set("queue.buffering.max.ms", "7");
        let more = [("linger.ms", "5"), ("delivery.timeout.ms", "3000")];
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = config(&given, &BTreeMap::from(more)).unwrap();
        for (name, value) in
            [("bootstrap.servers", "other:9092"), ("linger.ms", "5"), ("message.timeout.ms", "3000")]
        {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert!(ALIASES.iter().all(|(alias, _)| config.get(alias).is_none()));
        let error = with("request.required.acks", "1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("acks must be all"), "{error}");
    }

    #[test]
    fn the_reason_is_what_people_want_to_know() {
        let said = "[thrd:h:1/bootstrap]: h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(reason(said), "Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        assert_eq!(reason("anything"), "anything");
    }
}
