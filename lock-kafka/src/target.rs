//! What a URL says: the brokers, the topic, how it is to be made, and what librdkafka is to be told.

use std::collections::BTreeMap;

use lockcore::{Error, ErrorKind, Result};
use url::form_urlencoded;

/// The topic unless told.
const TOPIC: &str = "resource_lock";

/// The port of brokers unless told.
const PORT: u16 = 9092;

/// The longest name of a topic.
const TOPIC_LENGTH: usize = 249;

/// Where the locks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port,host:port`.
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) partitions: Option<u32>,
    pub(crate) replication: Option<u16>,
    /// Everything else, in librdkafka's words.
    pub(crate) properties: BTreeMap<String, String>,
}

impl Target {
    /// Reads `kafka://host:port,host:port/topic?partitions=…&replication=…&security.protocol=…`. An error does not repeat the
    /// URL: there may be a password in it.
    pub(crate) fn parse(text: &str) -> Result<Target> {
        let rest = text.strip_prefix("kafka://");
        let rest = rest.ok_or_else(|| invalid("a Kafka URL begins with kafka://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, topic) = place.split_once('/').unwrap_or((place, ""));
        if hosts.contains('@') {
            let advice = "a Kafka URL has no user and password before its hosts: say \
                          ?security.protocol=SASL_SSL&sasl.mechanisms=…&sasl.username=…&sasl.password=…";
            return Err(invalid(advice));
        }
        let mut brokers = Vec::new();
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            brokers.push(with_port(host)?);
        }
        if brokers.is_empty() {
            return Err(invalid("the URL names no broker, as in kafka://127.0.0.1:9092/locks"));
        }
        let mut target = Target { brokers: brokers.join(","), topic: topic_of(topic)?, ..Target::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "partitions" => target.partitions = Some(number(&name, &value)?),
                "replication" => target.replication = Some(number(&name, &value)?),
                // Whether there is one of this name is librdkafka's to say.
                _ => drop(target.properties.insert(name.into_owned(), value.into_owned())),
            }
        }
        Ok(target)
    }
}

/// The name of a topic, by Kafka's rule.
pub(crate) fn topic_of(name: &str) -> Result<String> {
    let name = if name.is_empty() { TOPIC } else { name };
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = name.len() <= TOPIC_LENGTH && name.bytes().all(is_usual) && ![".", ".."].contains(&name);
    if !is_name {
        return Err(invalid(format!(
            "{name:?} is no name of a topic: letters, digits, dots, dashes and underscores are"
        )));
    }
    Ok(name.to_owned())
}

fn with_port(host: &str) -> Result<String> {
    let end = host.rsplit_once(']').map_or(host, |(_, end)| end);
    let Some((name, port)) = end.rsplit_once(':') else { return Ok(format!("{host}:{PORT}")) };
    if port.parse::<u16>().is_err() || (name.is_empty() && !host.contains(']')) {
        return Err(invalid(format!("{host:?} is no host with a port, as in 127.0.0.1:{PORT}")));
    }
    Ok(host.to_owned())
}

fn number<T: std::str::FromStr + PartialEq + Default>(name: &str, value: &str) -> Result<T> {
    let number = value.parse().ok().filter(|number| *number != T::default());
    number.ok_or_else(|| invalid(format!("{name} is a number of at least 1, not {value:?}")))
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_brokers_topic_and_properties() {
        let target = Target::parse(
            "kafka://one,two:1,[::1],[::2]:7/app.locks?partitions=3&replication=2&sasl.password=a%26b",
        )
        .unwrap();
        assert_eq!(target.brokers, "one:9092,two:1,[::1]:9092,[::2]:7");
        assert_eq!((target.partitions, target.replication), (Some(3), Some(2)));
        assert_eq!(target.topic, "app.locks");
        assert_eq!(target.properties, BTreeMap::from([("sasl.password".into(), "a&b".into())]));
        for plain in ["kafka://h", "kafka://h/", "kafka://h?"] {
            assert_eq!(Target::parse(plain).unwrap().topic, "resource_lock");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_password() {
        for url in [
            "",
            "kafka://",
            "kafka:///topic",
            "http://h",
            "kafka://h:port",
            "kafka://:1",
            "kafka://h/a/b",
            "kafka://h/..",
            "kafka://h?partitions=0",
            "kafka://h?replication=x",
            "kafka://ann:geheim@h",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
