//! What a client may do to its topic, and the words for what it may not.

use lockcore::{Error, ErrorKind};
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

/// Whose rights on which topic.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    brokers: String,
    /// Not known of a client whose certificate says who it is.
    user: Option<String>,
    topic: String,
}

/// A right, by Kafka's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Describe,
    DescribeConfigs,
    Read,
    Write,
    Create,
    Delete,
}

impl Rights {
    pub(crate) fn new(config: &ClientConfig, brokers: &str, topic: &str) -> Rights {
        let user = config.get("sasl.username").map(str::to_owned);
        Rights { brokers: brokers.to_owned(), user, topic: topic.to_owned() }
    }

    /// This right is missing; with the command that gives it.
    pub(crate) fn lacks(&self, right: Right) -> Error {
        let Rights { brokers, user, topic } = self;
        let who = user.as_ref().map_or_else(|| "this client".to_owned(), |user| format!("the user {user}"));
        let message = format!(
            "{who} has no right to {right:?} on the topic {topic}. This gives it: kafka-acls.sh --bootstrap-server {brokers} --add \
             --allow-principal User:{} --operation {right:?} --topic {topic}",
            user.as_deref().unwrap_or("…")
        );
        Error::new(ErrorKind::Denied, message)
    }
}

/// Whether this says that a right is missing. (Without `Write` on any topic at all it is one of the cluster.)
pub(crate) fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
}
