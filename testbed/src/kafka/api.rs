//! What the tests ask of brokers past any client library, in Kafka's own protocol: who leads a partition, and who is to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A broker answers at once, or is paused.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long the brokers may work on an order, in milliseconds.
const WORK_WITHIN: i32 = 10_000;

/// The requests by their number, in a version that is simple and still known.
const METADATA: (i16, i16) = (3, 1);
const ELECT_LEADERS: (i16, i16) = (43, 1);
const ALTER_PARTITION_REASSIGNMENTS: (i16, i16) = (45, 0);

/// How a leader is elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The first of the replicas, if it has all that counts.
    Preferred = 0,
    /// Whichever lives: what only others had is lost.
    Unclean = 1,
}

/// The first partition of a topic, as a broker describes it: the numbers of nodes, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) leader: Option<i32>,
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
}

/// Asks how things are with the first partition.
pub(super) fn describe(broker: SocketAddr, topic: &str) -> io::Result<Described> {
    let mut body = Body::default();
    body.int32(1);
    body.text(topic);
    let mut answer = ask(broker, METADATA, false, &body, ANSWER_WITHIN)?;
    for _ in 0..answer.int32()? {
        answer.int32()?;
        answer.text()?;
        answer.int32()?;
        answer.text()?;
    }
    answer.int32()?;
    answer.int32()?;
    answer.worked("there is no such topic")?;
    answer.text()?;
    answer.bytes(1)?;
    answer.int32()?;
    // Whether it has a leader is told below.
    answer.int16()?;
    answer.int32()?;
    let leader = Some(answer.int32()?).filter(|leader| *leader >= 0);
    let (replicas, in_sync) = (answer.int32s()?, answer.int32s()?);
    Ok(Described { leader, replicas, in_sync })
}

/// Says on which nodes the first partition is to be, the preferred leader first.
pub(super) fn reassign(broker: SocketAddr, topic: &str, replicas: &[i32]) -> io::Result<()> {
    let mut body = Body::default();
    body.int32(WORK_WITHIN);
    body.short_count(1);
    body.short_bytes(topic.as_bytes());
    body.short_count(1);
    body.int32(0);
    body.short_count(replicas.len());
    for replica in replicas {
        body.int32(*replica);
    }
    // No more fields: of the partition, the topic, and the request.
    body.0.extend([0, 0, 0]);
    let mut answer = ask(broker, ALTER_PARTITION_REASSIGNMENTS, true, &body, ANSWER_WITHIN)?;
    answer.int32()?;
    answer.worked("the replicas stay")?;
    answer.short_text()?;
    answer.bytes(1)?;
    answer.short_text()?;
    answer.bytes(1)?;
    answer.int32()?;
    answer.worked("the replicas of the partition stay")
}

/// Has the leader of the first partition elected.
pub(super) fn elect(broker: SocketAddr, topic: &str, how: Election) -> io::Result<()> {
    /// The right one leads already.
    const NOT_NEEDED: i16 = 84;
    let mut body = Body(vec![how as u8]);
    body.int32(1);
    body.text(topic);
    body.int32(1);
    body.int32(0);
    body.int32(WORK_WITHIN);
    let mut answer = ask(broker, ELECT_LEADERS, false, &body, ANSWER_WITHIN)?;
    answer.int32()?;
    answer.worked("nobody is elected")?;
    answer.int32()?;
    answer.text()?;
    answer.int32()?;
    answer.int32()?;
    match answer.int16()? {
        0 | NOT_NEEDED => Ok(()),
        code => Err(io::Error::other(format!("nobody is elected: error {code} of Kafka"))),
    }
}

/// Sends a request, and gives what comes back behind its head. New ones are *flexible*: heads and structures may have more fields.
pub(super) fn ask(
    broker: SocketAddr,
    (key, version): (i16, i16),
    flexible: bool,
    body: &Body,
    within: Duration,
) -> io::Result<Answer> {
    const NUMBER: i32 = 7;
    let mut request = Body::default();
    request.int16(key);
    request.int16(version);
    request.int32(NUMBER);
    request.text("testbed");
    let none: &[u8] = if flexible { &[0] } else { &[] };
    request.0.extend(none);
    request.0.extend(&body.0);
    let mut framed = Body::default();
    framed.int32(i32::try_from(request.0.len()).map_err(io::Error::other)?);
    framed.0.extend(request.0);
    let mut stream = TcpStream::connect_timeout(&broker, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(&framed.0)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?];
    stream.read_exact(&mut bytes)?;
    let mut answer = Answer { bytes, at: 0 };
    answer.int32()?;
    answer.bytes(none.len())?;
    Ok(answer)
}

/// What is sent.
#[derive(Default)]
pub(super) struct Body(pub(super) Vec<u8>);

impl Body {
    fn int16(&mut self, number: i16) {
        self.0.extend(number.to_be_bytes());
    }

    pub(super) fn int32(&mut self, number: i32) {
        self.0.extend(number.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.int16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.0.extend(text.as_bytes());
    }

    /// As flexible requests have it; those here are short.
    pub(super) fn short_bytes(&mut self, bytes: &[u8]) {
        self.short_count(bytes.len());
        self.0.extend(bytes);
    }

    /// One more than how many follow, of the few that there are here.
    pub(super) fn short_count(&mut self, count: usize) {
        self.0.push(u8::try_from(count + 1).ok().filter(|byte| *byte < 0x80).unwrap_or(0));
    }
}

/// What came back, and how far it was read.
pub(super) struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn bytes(&mut self, count: usize) -> io::Result<&[u8]> {
        let bytes = self.bytes.get(self.at..self.at + count).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.at += count;
        Ok(bytes)
    }

    fn int16(&mut self) -> io::Result<i16> {
        let bytes = self.bytes(2)?.try_into().map_err(io::Error::other)?;
        Ok(i16::from_be_bytes(bytes))
    }

    pub(super) fn int32(&mut self) -> io::Result<i32> {
        let bytes = self.bytes(4)?.try_into().map_err(io::Error::other)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn int32s(&mut self) -> io::Result<Vec<i32>> {
        (0..self.int32()?).map(|_| self.int32()).collect()
    }

    /// Skips a text, which may be none.
    pub(super) fn text(&mut self) -> io::Result<()> {
        let length = usize::try_from(self.int16()?).unwrap_or(0);
        self.bytes(length).map(drop)
    }

    /// The same, as it is in flexible answers; those here are short.
    fn short_text(&mut self) -> io::Result<()> {
        let length = usize::from(self.bytes(1)?[0]).saturating_sub(1);
        self.bytes(length).map(drop)
    }

    /// Reads an error code.
    pub(super) fn worked(&mut self, otherwise: &str) -> io::Result<()> {
        match self.int16()? {
            0 => Ok(()),
            code => Err(io::Error::other(format!("{otherwise}: error {code} of Kafka"))),
        }
    }
}
