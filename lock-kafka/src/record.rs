//! What lies in the log: one JSON object a record, that any Kafka tool shows.
//!
//! ```json
//! {"v":1,"session":"5f0c…","seq":7,"type":"acquire","identifier":"invoices/2026-11","claim":"9a41…","mode":"exclusive",
//!  "ttl_us":30000000,"waiter_ttl_us":10000000,"owner":"web-3"}
//! ```
//!
//! How a record is read is a rule of the protocol, since all must read the same:
//! 1. Longer than [`MAX_RECORD_BYTES`], or not a JSON object with a whole number `v` of at least 1: *skipped*.
//! 2. `v` is another version than ours: everybody *halts*, because nobody knows what it does.
//! 3. Not one of the records of `what`, or with a value out of its bounds: *skipped*.
//!
//! A skipped record moves the clock, as every record does, and nothing else.

use std::fmt;

use lockcore::ClaimId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::errors::Halt;
use crate::what::What;

/// The version of the protocol that is spoken here.
pub(crate) const VERSION: u32 = 1;

/// The longest record; Kafka's own default limit of a message is a little above it.
pub(crate) const MAX_RECORD_BYTES: usize = 1_000_000;

/// Names a session, or the incarnation of a topic: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Id(ClaimId);

impl Id {
    pub(crate) fn random() -> Id {
        Id(ClaimId::random())
    }

    #[cfg(test)]
    pub(crate) const fn from_bits(bits: u128) -> Id {
        Id(ClaimId::from_bits(bits))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record: who wrote it, as which of their records, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) v: u32,
    pub(crate) session: Id,
    /// Grows with each record of a session. One that is not larger than the last that counted does not count.
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Record(Box<Record>),
    Skipped,
}

impl Record {
    pub(crate) fn new(session: Id, seq: u64, what: What) -> Record {
        Record { v: VERSION, session, seq, what }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings, numbers and lists only: it does not fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record by the rule of this module.
    ///
    /// # Errors
    /// The version that is not known here.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Read, Halt> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Ok(Read::Skipped);
        }
        match serde_json::from_slice::<Record>(bytes) {
            Ok(record) if record.v == VERSION && record.what.is_in_bounds() => {
                Ok(Read::Record(Box::new(record)))
            }
            _ => {
                let object: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
                match object.and_then(|object| object.get("v")?.as_u64()) {
                    None | Some(0) => Ok(Read::Skipped),
                    Some(version) if version == u64::from(VERSION) => Ok(Read::Skipped),
                    Some(newer) => Err(Halt::Version(newer)),
                }
            }
        }
    }
}

/// Whether this program reads and writes as all others do: a feature of `serde_json` that any of its crates turns on, such as
/// `arbitrary_precision`, changes how numbers are read.
pub(crate) fn reads_alike() -> bool {
    const RECORD: &[u8] = br#"{"v":1,"session":"0000000000000000000000000000000a","seq":7,"type":"heartbeat","renew":[{"claim":"0000000000000000000000000000000b","ttl_us":30000000,"order":18446744073709551615}]}"#;
    matches!(Record::decode(RECORD), Ok(Read::Record(record)) if record.encode() == RECORD)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockcore::{Claim, Key, Mode, Queue};

    use super::*;
    use crate::what::Join;

    fn read(text: &str) -> Result<Option<What>, Halt> {
        Record::decode(text.as_bytes()).map(|read| match read {
            Read::Record(record) => Some(record.what),
            Read::Skipped => None,
        })
    }

    const HEAD: &str = r#""session":"0000000000000000000000000000000a","seq":1"#;

    #[test]
    fn a_record_is_read_as_it_was_written_and_shows_the_articles_field() {
        let ttl = Duration::from_secs(30);
        let claim = Claim::new(Key::new("a\"ключ\0").unwrap(), Mode::Exclusive, ttl)
            .with_owner(Some("ann".into()))
            .taking_over(true);
        let record = Record::new(Id::from_bits(10), 7, What::Acquire(Join::of(&claim, Queue::Never)));
        let bytes = record.encode();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(
            text.starts_with(&format!(
                r#"{{"v":1,{},"type":"acquire","identifier":"#,
                HEAD.replace(":1", ":7")
            )),
            "{text}"
        );
        let Ok(Read::Record(read)) = Record::decode(&bytes) else { panic!("{text}") };
        assert_eq!(*read, record);
    }

    #[test]
    fn this_program_reads_as_others_do() {
        assert!(reads_alike());
    }

    #[test]
    fn what_is_not_ours_is_skipped_and_what_is_newer_halts() {
        assert_eq!(read(&format!(r#"{{"v":1,{HEAD},"type":"barrier"}}"#)), Ok(Some(What::Barrier)));
        for skipped in [
            String::new(),
            r#"{"identifier":"example_identifier"}"#.into(),
            r#"{"v":0}"#.into(),
            r#"{"v":"2"}"#.into(),
            "[2]".into(),
            format!(r#"{{"v":1,{HEAD},"type":"lock"}}"#),
            format!(r#"{{"v":1,{HEAD},"type":"barrier"}}{}"#, " ".repeat(MAX_RECORD_BYTES)),
        ] {
            assert_eq!(read(&skipped), Ok(None), "{skipped:.99}");
        }
        assert_eq!(read(&format!(r#"{{"v":2,{HEAD},"type":"barrier"}}"#)), Err(Halt::Version(2)));
        assert_eq!(read(r#"{"v":3,"whatever":[]}"#), Err(Halt::Version(3)));
    }

    /// Every type of record, as it is in the logs that there are.
    const ALL: [&str; 15] = [
        r#""type":"genesis","incarnation":"0000000000000000000000000000000a","partitions":2,"partition":1,"margin_us":5000000,"grace_us":2000000,"step_us":10000000,"checkpoint_every":10000,"window":100000"#,
        r#""type":"open","end":3,"incarnation":"00000000000000000000000000000001","partition":0"#,
        r#""type":"close""#,
        r#""type":"acquire","identifier":"k","claim":"0000000000000000000000000000000b","mode":"exclusive","ttl_us":30000000,"waiter_ttl_us":10000000,"owner":"ann","note":"why","take_over":true,"try":true"#,
        r#""type":"acquire","identifier":"k","claim":"0000000000000000000000000000000b","mode":{"permit":{"at_most":2}},"ttl_us":1,"waiter_ttl_us":1"#,
        r#""type":"heartbeat","renew":[{"claim":"0000000000000000000000000000000b","ttl_us":30000000,"order":1}]"#,
        r#""type":"convert","identifier":"k","claim":"0000000000000000000000000000000b","mode":"shared","order":1"#,
        r#""type":"release","identifier":"k","claim":"0000000000000000000000000000000b","answered":true"#,
        r#""type":"release","identifier":"k","claim":"0000000000000000000000000000000b","answered":false,"only_waiting":true"#,
        r#""type":"break","identifier":"k","target":{"owner":"ann"}"#,
        r#""type":"expire","leases":[{"claim":"0000000000000000000000000000000b","lease":7}],"unanswered":[{"claim":"0000000000000000000000000000000c","lease":8}]"#,
        r#""type":"suspect","leases":[{"claim":"0000000000000000000000000000000b","lease":7}]"#,
        r#""type":"alive","claims":["0000000000000000000000000000000b"]"#,
        r#""type":"checkpoint","at_offset":10000,"hash":"cbf29ce484222325","number":0,"of":2,"state":"{}""#,
        r#""type":"barrier""#,
    ];

    #[test]
    fn every_record_is_written_as_it_is_in_the_logs_that_there_are() {
        for one in ALL {
            let text = format!(r#"{{"v":1,{HEAD},{one}}}"#);
            let Ok(Read::Record(record)) = Record::decode(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(String::from_utf8(record.encode()).unwrap(), text);
        }
    }

    #[test]
    fn a_record_with_a_value_out_of_its_bounds_is_skipped() {
        let too_long = lockcore::MAX_TTL.as_micros() + 1;
        let key = "k".repeat(513);
        for (right, wrong) in [
            (r#""ttl_us":30000000"#, r#""ttl_us":0"#.to_owned()),
            (r#""ttl_us":30000000"#, format!(r#""ttl_us":{too_long}"#)),
            (r#""waiter_ttl_us":10000000"#, r#""waiter_ttl_us":0"#.to_owned()),
            (r#""identifier":"k""#, r#""identifier":"""#.to_owned()),
            (r#""identifier":"k""#, format!(r#""identifier":"{key}""#)),
            (r#""owner":"ann","note""#, r#""owner":"","note""#.to_owned()),
            (r#""at_most":2"#, r#""at_most":0"#.to_owned()),
            (r#""number":0"#, r#""number":2"#.to_owned()),
            (r#""grace_us":2000000"#, r#""grace_us":0"#.to_owned()),
            (r#""partition":1"#, r#""partition":2"#.to_owned()),
        ] {
            let those: Vec<_> = ALL.iter().filter(|one| one.contains(right)).collect();
            assert!(!those.is_empty(), "{right}");
            for one in those {
                let text = format!(r#"{{"v":1,{HEAD},{}}}"#, one.replace(right, &wrong));
                assert_eq!(read(&text), Ok(None), "{text:.300}");
            }
        }
    }
}
