//! Users and their rights, by Kafka's own requests: its tools take seconds for each.

use std::io;
use std::num::NonZeroU32;

use ring::pbkdf2;

use super::KafkaServer;
use super::api::{Answer, Body, ask};
use crate::wait::{PATIENCE, wait_for};

/// What may be done to a topic, as Kafka counts it.
const OPERATIONS: [(&str, u8); 6] =
    [("Read", 3), ("Write", 4), ("Create", 5), ("Delete", 6), ("Describe", 8), ("DescribeConfigs", 10)];

const CREATE_ACLS: (i16, i16) = (30, 1);
const DELETE_ACLS: (i16, i16) = (31, 1);
const DESCRIBE_ACLS: (i16, i16) = (29, 1);
const ALTER_USERS: (i16, i16) = (51, 0);

/// How often a password is hashed, the least that Kafka allows.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

impl KafkaServer {
    /// Gives a user a right on a topic, such as `"Write"`, and returns when it has it.
    ///
    /// # Errors
    /// When the broker knows no rights, or no such one.
    pub fn allow(&self, user: &str, right: &str, topic: &str) -> io::Result<()> {
        let mut body = Body::default();
        body.int32(1);
        acl(&mut body, user, right, topic)?;
        let mut answer = self.ask(CREATE_ACLS, false, &body)?;
        // The time it was held back, and how many answers.
        answer.int32()?;
        answer.int32()?;
        answer.worked("the right is not given")?;
        self.wait_for_right(user, right, topic, true)
    }

    /// Takes a right away, and returns when it is gone.
    ///
    /// # Errors
    /// As [`allow`](Self::allow).
    pub fn disallow(&self, user: &str, right: &str, topic: &str) -> io::Result<()> {
        let mut body = Body::default();
        body.int32(1);
        acl(&mut body, user, right, topic)?;
        self.ask(DELETE_ACLS, false, &body)?;
        self.wait_for_right(user, right, topic, false)
    }

    fn wait_for_right(&self, user: &str, right: &str, topic: &str, there: bool) -> io::Result<()> {
        let mut filter = Body::default();
        acl(&mut filter, user, right, topic)?;
        wait_for("the broker to know of the right", PATIENCE, || {
            let mut answer = self.ask(DESCRIBE_ACLS, false, &filter)?;
            // The time it was held back; then, behind a message, how many topics.
            answer.int32()?;
            answer.worked("the rights are not told")?;
            answer.text()?;
            Ok(((answer.int32()? > 0) == there).then_some(()))
        })
    }

    /// Lets the broker know its users for SCRAM; those for PLAIN are in its configuration.
    pub(super) fn make_users(&self, users: &[(String, String)]) -> io::Result<()> {
        if users.is_empty() {
            return Ok(());
        }
        // Nobody is deleted.
        let mut body = Body::default();
        body.short_count(0);
        body.short_count(users.len());
        for (user, password) in users {
            const SHA_256: u8 = 1;
            let (salt, mut hashed) = (*b"salt for a while", [0; 32]);
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut hashed);
            body.short_bytes(user.as_bytes());
            body.0.push(SHA_256);
            body.0.extend(ROUNDS.get().to_be_bytes());
            body.short_bytes(&salt);
            body.short_bytes(&hashed);
            body.0.push(0);
        }
        body.0.push(0);
        self.ask(ALTER_USERS, true, &body).map(drop)
    }

    fn ask(&self, request: (i16, i16), flexible: bool, body: &Body) -> io::Result<Answer> {
        ask(self.operator(), request, flexible, body, PATIENCE)
    }
}

/// A right as Kafka writes it, which is also the filter that finds it.
fn acl(body: &mut Body, user: &str, right: &str, topic: &str) -> io::Result<()> {
    const TOPIC: u8 = 2;
    const LITERAL: u8 = 3;
    const ALLOW: u8 = 3;
    let known = OPERATIONS.iter().find(|(name, _)| *name == right);
    let &(_, operation) = known.ok_or_else(|| io::Error::other(format!("there is no right {right}")))?;
    body.0.push(TOPIC);
    body.text(topic);
    body.0.push(LITERAL);
    body.text(&format!("User:{user}"));
    body.text("*");
    body.0.extend([operation, ALLOW]);
    Ok(())
}
