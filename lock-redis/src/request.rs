//! Requests as the scripts take them.

use std::time::Duration;

use lockcore::{BreakTarget, Claim, ClaimId, Conversion, MAX_TTL, Mode, Queue, Release, Renewal};
use redis::Cmd;

use crate::keys::Keys;
use crate::scripts::Operation;

/// The shortest lease: what is shorter is rounded up to it.
pub(crate) const MIN_TTL: Duration = Duration::from_millis(10);

/// A duration in whole microseconds, rounded up, below 2^53.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_TTL).as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// A number as the scripts take it.
fn number(value: u64) -> [u8; 8] {
    #[expect(clippy::cast_precision_loss, reason = "microseconds, modes and counts lie below 2^53")]
    let value = value as f64;
    value.to_le_bytes()
}

fn ttl(duration: Duration) -> [u8; 8] {
    number(micros(duration.max(MIN_TTL)))
}

fn mode(mode: Mode) -> [u8; 8] {
    match mode {
        Mode::Exclusive => 0f64,
        Mode::Shared => -1f64,
        Mode::Permit { at_most } => f64::from(at_most.get()),
    }
    .to_le_bytes()
}

/// An id as it is written on the server: 32 hexadecimal digits.
pub(crate) fn hex(id: ClaimId) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(id.to_bits().to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// `EVALSHA sha 1 key`; the arguments follow.
fn call(operation: &Operation, header: &str, arguments: usize) -> Cmd {
    let mut command = Cmd::with_capacity(4 + arguments, 192 + header.len());
    command.arg("EVALSHA").arg(&operation.sha).arg("1").arg(header);
    command
}

/// Builds requests for one client.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) keys: Keys,
    /// Where this client hears of its claims.
    pub(crate) channel: String,
}

impl Requests {
    pub(crate) fn acquire(&self, operation: &Operation, header: &str, claim: &Claim, queue: Queue) -> Cmd {
        let mut command = call(operation, header, 4);
        let mut numbers = [0; 32];
        numbers[..8].copy_from_slice(&ttl(claim.ttl()));
        numbers[8..16].copy_from_slice(&ttl(claim.waiter_ttl()));
        numbers[16..24].copy_from_slice(&mode(claim.mode()));
        numbers[24..].copy_from_slice(&number(u64::from(queue == Queue::Join)));
        command.arg(&hex(claim.id())).arg(&numbers).arg(self.rest(claim));
        if claim.take_over() {
            command.arg("take-over");
        }
        command
    }

    pub(crate) fn renew(&self, operation: &Operation, header: &str, renewal: &Renewal) -> Cmd {
        let mut command = call(operation, header, 3);
        let mut numbers = [0; 16];
        numbers[..8].copy_from_slice(&ttl(renewal.ttl));
        numbers[8..].copy_from_slice(&number(renewal.order));
        command.arg(&hex(renewal.claim.id())).arg(&numbers).arg(&self.channel);
        command
    }

    pub(crate) fn convert(operation: &Operation, header: &str, conversion: &Conversion) -> Cmd {
        let mut command = call(operation, header, 2);
        let mut numbers = [0; 16];
        numbers[..8].copy_from_slice(&mode(conversion.to));
        numbers[8..].copy_from_slice(&number(conversion.order));
        command.arg(&hex(conversion.claim.id())).arg(&numbers);
        command
    }

    pub(crate) fn release(operation: &Operation, header: &str, release: &Release) -> Cmd {
        let mut command = call(operation, header, 2);
        command.arg(&hex(release.claim.id()));
        match (release.answered, release.only_waiting) {
            (true, false) => {}
            (false, false) => _ = command.arg("1"),
            (true, true) => _ = command.arg("2"),
            (false, true) => _ = command.arg("3"),
        }
        command
    }

    pub(crate) fn break_claims(operation: &Operation, header: &str, target: &BreakTarget) -> Cmd {
        let mut command = call(operation, header, 2);
        match target {
            BreakTarget::Claim(id) => command.arg("id").arg(&hex(*id)),
            BreakTarget::Token(token) => command.arg("token").arg(token.get()),
            BreakTarget::Owner(owner) => command.arg("owner").arg(&**owner),
            BreakTarget::Holders => command.arg("holders").arg(""),
            BreakTarget::All => command.arg("all").arg(""),
        };
        command
    }

    pub(crate) fn look(operation: &Operation, header: &str) -> Cmd {
        call(operation, header, 0)
    }

    /// What is kept of a claim and not looked at in the fast path: channel, owner, note.
    fn rest(&self, claim: &Claim) -> Vec<u8> {
        let owner = claim.owner().map(|text| &**text);
        let note = claim.note().map(|text| &**text);
        let length = |text: Option<&str>| text.map_or(0, |text| text.len() + 1);
        let mut rest = Vec::with_capacity(6 + self.channel.len() + length(owner) + length(note));
        let mut put = |mark: &[u8], text: &str| {
            let length = u16::try_from(mark.len() + text.len()).unwrap_or(u16::MAX);
            rest.extend_from_slice(&length.to_le_bytes());
            rest.extend_from_slice(mark);
            rest.extend_from_slice(text.as_bytes());
        };
        put(b"", &self.channel);
        for text in [owner, note] {
            put(if text.is_some() { b"=" } else { b"" }, text.unwrap_or_default());
        }
        rest
    }
}
