//! What is asked of a topic before locks are kept in it; one that is missing is made so.

use std::time::Duration;

use lockcore::{Error, ErrorKind, Result};
use rdkafka::admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::producing::Producing;
use crate::rd::{Admin, Chore};
use crate::rights::{Right, is_missing};
use crate::target::{Target, invalid};

/// What the log of locks must be, and is made with.
const NEEDED: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("unclean.leader.election.enable", "false"),
];

/// From so many replicas on, two must have a record before it counts.
const MANY: usize = 3;

/// The longest record, and what Kafka adds to it.
const LONGEST: u64 = 1_010_000;

/// How long is waited before it is looked again whether a new topic is there.
const AGAIN: Duration = Duration::from_millis(20);

/// How connections fail that the other side ends without a word, and what is to be looked at then.
const CUT: [&str; 3] = ["Disconnected", "Send failed", "Receive failed"];
const ADVICE: &str = "; is security.protocol (PLAINTEXT unless told) what that port speaks?";

/// A topic that locks can be kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partitions: u32,
    /// A record that counts is on two brokers or more.
    pub(crate) replicated: bool,
}

/// The topic as the brokers describe it.
struct Shape {
    brokers: usize,
    /// How many replicas each of its partitions has; none if there is no such topic.
    replicas: Vec<usize>,
    is_ready: bool,
}

/// Somebody who asks the brokers about one topic.
pub(crate) struct Asker<'a> {
    pub(crate) producing: &'a Producing,
    pub(crate) target: &'a Target,
    /// How long an answer may take.
    pub(crate) patience: Duration,
}

impl Asker<'_> {
    /// Finds the topic or makes it, and checks it.
    pub(crate) async fn find(&self) -> Result<Found> {
        let mut shape = self.shape().await?;
        let chore = Chore::new(self.producing.config())?;
        let admin = chore.admin().ok_or_else(|| self.failed(KafkaError::Canceled, Right::Describe))?;
        if shape.replicas.is_empty() {
            let begun = Instant::now();
            while let Err(error) = self.make(admin, shape.brokers).await {
                // Brokers that have just begun are known before they may have replicas.
                if error.kind() != ErrorKind::Unavailable || begun.elapsed() > self.patience / 2 {
                    return Err(error);
                }
                sleep(AGAIN).await;
            }
        }
        while !shape.is_ready {
            sleep(AGAIN).await;
            shape = self.shape().await?;
        }
        let partitions = u32::try_from(shape.replicas.len()).unwrap_or(u32::MAX);
        if let Some(wanted) = self.target.partitions
            && wanted != partitions
        {
            return Err(invalid(format!(
                "the topic {} has {partitions} partitions, and {wanted} are asked for",
                self.target.topic
            )));
        }
        let replicas = shape.replicas.into_iter().min().unwrap_or_default();
        let min_in_sync = self.check(admin, replicas).await?;
        Ok(Found { partitions, replicated: replicas >= 2 && min_in_sync >= 2 })
    }

    async fn shape(&self) -> Result<Shape> {
        let producer =
            self.producing.producer().ok_or_else(|| self.failed(KafkaError::Canceled, Right::Describe))?;
        let (topic, patience) = (self.target.topic.clone(), self.patience);
        let asked = spawn_blocking(move || producer.client().fetch_metadata(Some(&topic), patience));
        let asked = tokio::select! {
            biased;
            asked = asked => asked,
            // To ask again does not help.
            said = self.producing.not_believed() => {
                let message = format!("the brokers do not believe who this is: {said}");
                return Err(Error::new(ErrorKind::Denied, message));
            }
        };
        let metadata = asked
            .map_err(|error| Error::new(ErrorKind::Closed, "the runtime ends").with_source(error))?
            .map_err(|error| self.failed(error, Right::Describe))?;
        let found =
            metadata.topics().first().ok_or_else(|| self.failed(KafkaError::Canceled, Right::Describe))?;
        match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(Shape {
                    brokers: metadata.brokers().len(),
                    replicas: Vec::new(),
                    is_ready: false,
                });
            }
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(code) => return Err(self.failed(KafkaError::MetadataFetch(code), Right::Describe)),
        }
        let partitions = found.partitions();
        Ok(Shape {
            brokers: metadata.brokers().len(),
            replicas: partitions.iter().map(|partition| partition.replicas().len()).collect(),
            is_ready: !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0),
        })
    }

    async fn make(&self, admin: &Admin, brokers: usize) -> Result<()> {
        let replication = match self.target.replication {
            Some(wanted) => i32::from(wanted),
            None => i32::try_from(brokers.clamp(1, MANY)).unwrap_or(1),
        };
        let partitions = i32::try_from(self.target.partitions.unwrap_or(1)).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(&self.target.topic, partitions, TopicReplication::Fixed(replication));
        for (name, value) in NEEDED {
            topic = topic.set(name, value);
        }
        let longest = LONGEST.to_string();
        topic = topic.set("max.message.bytes", &longest);
        if usize::try_from(replication).unwrap_or_default() >= MANY {
            topic = topic.set("min.insync.replicas", "2");
        }
        let options = AdminOptions::new()
            .request_timeout(Some(self.patience))
            // Until the brokers know it.
            .operation_timeout(Some(self.patience));
        let made = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|error| self.failed(error, Right::Create))?;
        match made.into_iter().next() {
            // Somebody else may have been quicker.
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor)))
                if usize::try_from(replication).is_ok_and(|replication| replication <= brokers) =>
            {
                let message = format!(
                    "the topic cannot be made: of {brokers} brokers not {replication} are in service, which are to have a replica each"
                );
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Some(Err((_, code))) => {
                let error = self.failed(KafkaError::AdminOp(code), Right::Create);
                let message = format!("the topic cannot be made: {}", error.message());
                Err(Error::new(error.kind(), message).with_source(error))
            }
        }
    }

    /// Refuses a topic that would lose locks, and says how many replicas must have a record before it counts.
    async fn check(&self, admin: &Admin, replicas: usize) -> Result<u64> {
        let topic = &self.target.topic;
        let options = AdminOptions::new().request_timeout(Some(self.patience));
        let begun = Instant::now();
        let described = loop {
            let asked = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
            let described =
                asked.map_err(|error| self.failed(error, Right::DescribeConfigs))?.into_iter().next();
            let described = described.unwrap_or(Err(RDKafkaErrorCode::UnknownTopicOrPartition));
            let described =
                described.map_err(|code| self.failed(KafkaError::AdminOp(code), Right::DescribeConfigs))?;
            if !described.entries.is_empty() {
                break described;
            }
            // It is refused, which the library does not say; or the broker has not heard of a new topic yet.
            if begun.elapsed() >= self.patience / 2 {
                return Err(self.producing.rights().lacks(Right::DescribeConfigs));
            }
            sleep(AGAIN).await;
        };
        let wrong = wrong(&described, replicas);
        if wrong.is_empty() {
            return Ok(number(&described, "min.insync.replicas"));
        }
        let told: Vec<String> =
            wrong.iter().map(|(name, is, must)| format!("{name} is {is} and must be {must}")).collect();
        let mended: Vec<String> = wrong.iter().map(|(name, _, must)| format!("{name}={must}")).collect();
        let message = format!(
            "locks would be lost in the topic {topic}: {}. This mends it: kafka-configs.sh --bootstrap-server {} --alter \
             --entity-type topics --entity-name {topic} --add-config {}",
            told.join(", "),
            self.target.brokers,
            mended.join(",")
        );
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// What went wrong, for whoever connects: with something for which this right is needed.
    fn failed(&self, error: KafkaError, right: Right) -> Error {
        use RDKafkaErrorCode as Code;
        let because = self.producing.failure().map(|why| format!(" ({why})")).unwrap_or_default();
        let code =
            if let KafkaError::AdminOp(code) = error { Some(code) } else { error.rdkafka_error_code() };
        let (kind, message) = match code {
            Some(code) if is_missing(code) => return self.producing.rights().lacks(right).with_source(error),
            Some(Code::SaslAuthenticationFailed | Code::Authentication) => {
                (ErrorKind::Denied, format!("{error}{because}"))
            }
            Some(
                Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve,
            ) => {
                let brokers = &self.target.brokers;
                let is_cut = CUT.iter().any(|said| because.contains(said));
                let advice = if is_cut { ADVICE } else { "" };
                (ErrorKind::Unavailable, format!("no Kafka broker answers at {brokers}{because}{advice}"))
            }
            Some(Code::InvalidReplicationFactor | Code::InvalidPartitions | Code::PolicyViolation) => {
                (ErrorKind::InvalidArgument, error.to_string())
            }
            _ => (ErrorKind::Unavailable, format!("{error}{because}")),
        };
        Error::new(kind, message).with_source(error)
    }
}

/// The settings that are not what they must be: name, value, and what it must be.
fn wrong(described: &ConfigResource, replicas: usize) -> Vec<(&'static str, String, String)> {
    let value = |name: &str| described.get(name).and_then(|entry| entry.value.clone());
    let mut wrong = Vec::new();
    for (name, must) in NEEDED {
        let is = value(name).unwrap_or_else(|| "not known".to_owned());
        if is != must {
            wrong.push((name, is, must.to_owned()));
        }
    }
    let longest = number(described, "max.message.bytes");
    if longest < LONGEST {
        wrong.push(("max.message.bytes", longest.to_string(), LONGEST.to_string()));
    }
    let in_sync = number(described, "min.insync.replicas");
    if replicas >= MANY && in_sync < 2 {
        wrong.push(("min.insync.replicas", in_sync.to_string(), "2".to_owned()));
    }
    wrong
}

fn number(described: &ConfigResource, name: &str) -> u64 {
    let value = described.get(name).and_then(|entry| entry.value.as_deref());
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}
