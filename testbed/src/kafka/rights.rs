//! Users and their rights, by Kafka's own requests: its tools take seconds for each.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;

use ring::pbkdf2;

use super::KafkaServer;
use crate::wait::{PATIENCE, wait_for};

/// What may be done to a topic, as Kafka counts it.
const OPERATIONS: [(&str, u8); 6] =
    [("Read", 3), ("Write", 4), ("Create", 5), ("Delete", 6), ("Describe", 8), ("DescribeConfigs", 10)];

const CREATE_ACLS: u16 = 30;
const DELETE_ACLS: u16 = 31;
const DESCRIBE_ACLS: u16 = 29;
const ALTER_USERS: u16 = 51;

/// How often a password is hashed, the least that Kafka allows.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

impl KafkaServer {
    /// Gives a user a right on a topic, such as `"Write"`, and returns when it has it.
    ///
    /// # Errors
    /// When the broker knows no rights, or no such one.
    pub fn allow(&self, user: &str, right: &str, topic: &str) -> io::Result<()> {
        let body = [&1_u32.to_be_bytes()[..], &acl(user, right, topic)?].concat();
        // The time it was held back, how many answers, no error.
        let answer = ask(self.operator(), CREATE_ACLS, &body)?;
        if answer.get(8..10) != Some(&[0, 0]) {
            return Err(io::Error::other(format!("the right is not given: {answer:?}")));
        }
        self.wait_for_right(user, right, topic, true)
    }

    /// Takes a right away, and returns when it is gone.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub fn disallow(&self, user: &str, right: &str, topic: &str) -> io::Result<()> {
        let body = [&1_u32.to_be_bytes()[..], &acl(user, right, topic)?].concat();
        ask(self.operator(), DELETE_ACLS, &body)?;
        self.wait_for_right(user, right, topic, false)
    }

    fn wait_for_right(&self, user: &str, right: &str, topic: &str, there: bool) -> io::Result<()> {
        let filter = acl(user, right, topic)?;
        wait_for("the broker to know of the right", PATIENCE, || {
            let answer = ask(self.operator(), DESCRIBE_ACLS, &filter)?;
            // The time it was held back, no error, no message, how many topics.
            let count = answer.get(8..12).ok_or_else(|| io::Error::other("the broker says too little"))?;
            Ok(((count != [0; 4]) == there).then_some(()))
        })
    }

    /// Lets the broker know its users for SCRAM; those for PLAIN are in its configuration.
    pub(super) fn make_users(&self, users: &[(String, String)]) -> io::Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        // Nobody is deleted. Lengths are one more than they are, so that zero means none.
        let mut body = vec![1, length(users.len())?];
        for (user, password) in users {
            let (salt, mut hashed) = (*b"salt for a while", [0; 32]);
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut hashed);
            body.push(length(user.len())?);
            body.extend(user.as_bytes());
            body.push(1);
            body.extend(ROUNDS.get().to_be_bytes());
            for bytes in [&salt[..], &hashed] {
                body.push(length(bytes.len())?);
                body.extend(bytes);
            }
            body.push(0);
        }
        body.push(0);
        ask(self.operator(), ALTER_USERS, &body).map(drop)
    }
}

fn length(length: usize) -> io::Result<u8> {
    u8::try_from(length + 1).ok().filter(|&length| length < 0x80).ok_or_else(|| io::Error::other("too long"))
}

/// A right as Kafka writes it, which is also the filter that finds it.
fn acl(user: &str, right: &str, topic: &str) -> io::Result<Vec<u8>> {
    const TOPIC: u8 = 2;
    const LITERAL: u8 = 3;
    const ALLOW: u8 = 3;
    let known = OPERATIONS.iter().find(|(name, _)| *name == right);
    let &(_, operation) = known.ok_or_else(|| io::Error::other(format!("there is no right {right}")))?;
    let mut bytes = vec![TOPIC];
    text(&mut bytes, topic);
    bytes.push(LITERAL);
    text(&mut bytes, &format!("User:{user}"));
    text(&mut bytes, "*");
    bytes.extend([operation, ALLOW]);
    Ok(bytes)
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// Sends a request, and gives what the answer says after its number.
fn ask(broker: SocketAddr, request: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (version, ending): (u16, &[u8]) = if request == ALTER_USERS { (0, &[0]) } else { (1, &[]) };
    // The request and its version, a number, no client's name.
    let head = [&request.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7, 0xff, 0xff], ending];
    let message = [&head.concat()[..], body].concat();
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}
