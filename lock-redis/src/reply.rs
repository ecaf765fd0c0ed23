//! Answers as the scripts give them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Attempt, ClaimId, ClaimInfo, Error, ErrorKind, Fence, FencingToken, Lease, Mode, Queued, Released,
    Result, Snapshot,
};
use redis::Value;

/// An answer that makes no sense: a server that is not what we take it for, or a mistake of ours.
fn nonsense(value: &Value) -> Error {
    Error::new(ErrorKind::Other, format!("the server gave an answer that makes no sense: {value:?}"))
}

/// There is no text where one should be.
struct Unreadable;

/// Reads what Lua's `struct.pack` has written.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn float(&mut self) -> Option<f64> {
        self.take(8)?.try_into().ok().map(f64::from_le_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        let float = self.float()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: an integer below 2^53"
        )]
        (0.0..9_007_199_254_740_992.0).contains(&float).then_some(float as u64)
    }

    fn duration(&mut self) -> Option<Duration> {
        self.number().map(Duration::from_micros)
    }

    fn token(&mut self) -> Option<FencingToken> {
        FencingToken::new(self.number()?)
    }

    fn fence(&mut self) -> Option<Fence> {
        Some(Fence { token: self.token()?, floor: self.token()? })
    }

    fn lease(&mut self) -> Option<Lease> {
        Some(Lease { fence: self.fence()?, left: self.duration()? })
    }

    fn id(&mut self) -> Option<ClaimId> {
        std::str::from_utf8(self.take(32)?).ok()?.parse().ok()
    }

    fn mode(&mut self) -> Option<Mode> {
        let code = self.float()?;
        if code == 0.0 {
            return Some(Mode::Exclusive);
        }
        if code < 0.0 {
            return Some(Mode::Shared);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what we wrote was a u32"
        )]
        NonZeroU32::new(code as u32).map(|at_most| Mode::Permit { at_most })
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2)?.try_into().ok().map(u16::from_le_bytes)?;
        self.take(usize::from(length))
    }

    /// A text that may be missing: empty, or it begins with `=`.
    fn label(&mut self) -> Result<Option<Arc<str>>, Unreadable> {
        let Some((_, text)) = self.text().ok_or(Unreadable)?.split_first() else { return Ok(None) };
        std::str::from_utf8(text).map(|text| Some(text.into())).map_err(|_| Unreadable)
    }
}

/// One operation's answer, and the moment on the server's clock at which it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Granted(Lease),
    Queued(Queued),
    Busy,
    Gone,
    Lost,
    WouldDeadlock,
    Unsupported,
    Released,
    NotHeld,
}

/// Reads the answer of any operation on one claim: what, and when in microseconds.
pub(crate) fn answer(value: &Value) -> Result<(Answer, u64)> {
    let Value::BulkString(bytes) = value else { return Err(nonsense(value)) };
    parse(bytes).ok_or_else(|| nonsense(value))
}

fn parse(bytes: &[u8]) -> Option<(Answer, u64)> {
    let mut reader = Reader(bytes);
    let kind = reader.take(1)?[0];
    let now = reader.number()?;
    let answer = match kind {
        b'G' => Answer::Granted(reader.lease()?),
        b'Q' => {
            let left = reader.duration()?;
            Answer::Queued(Queued { left, recheck: reader.duration() })
        }
        b'B' => Answer::Busy,
        b'X' => Answer::Gone,
        b'L' => Answer::Lost,
        b'D' => Answer::WouldDeadlock,
        b'U' => Answer::Unsupported,
        b'R' => Answer::Released,
        b'N' => Answer::NotHeld,
        _ => return None,
    };
    Some((answer, now))
}

impl Answer {
    /// The answer to an acquire or a convert.
    pub(crate) fn attempt(self) -> Result<Attempt> {
        match self {
            Answer::Granted(lease) => Ok(Attempt::Granted(lease)),
            Answer::Queued(queued) => Ok(Attempt::Queued(queued)),
            Answer::Busy => Ok(Attempt::Busy),
            Answer::Gone => Ok(Attempt::Gone),
            Answer::WouldDeadlock => Err(Error::new(
                ErrorKind::WouldDeadlock,
                "another holder waits to upgrade already; both would wait for each other",
            )),
            Answer::Unsupported => Err(Error::new(
                ErrorKind::Unsupported,
                "only exclusive and shared, or exclusive and permit, convert into each other",
            )),
            Answer::Lost | Answer::Released | Answer::NotHeld => Err(lost()),
        }
    }

    /// The answer to a renewal.
    pub(crate) fn lease(self) -> Result<Lease> {
        if let Answer::Granted(lease) = self { Ok(lease) } else { Err(lost()) }
    }

    /// The answer to a release.
    pub(crate) fn released(self) -> Released {
        match self {
            Answer::Released => Released::Released,
            Answer::Granted(lease) => Released::Granted(lease),
            Answer::NotHeld
            | Answer::Queued(_)
            | Answer::Busy
            | Answer::Gone
            | Answer::Lost
            | Answer::WouldDeadlock
            | Answer::Unsupported => Released::NotHeld,
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the server does not know this claim as a holder")
}

/// Reads the claims that a break or an inspection lists: when, then the claims.
pub(crate) fn claims(value: &Value) -> Result<(Vec<ClaimInfo>, u64)> {
    let parse = || {
        let Value::Array(items) = value else { return None };
        let mut items = items
            .iter()
            .map(|item| if let Value::BulkString(bytes) = item { Some(bytes.as_slice()) } else { None });
        let now = Reader(items.next()??).number()?;
        let upgrading = Reader(items.next()??).id();
        let infos = items.map(|item| info(item?, now, upgrading)).collect::<Option<Vec<_>>>()?;
        Some((infos, now))
    };
    parse().ok_or_else(|| nonsense(value))
}

fn info(bytes: &[u8], now: u64, upgrading: Option<ClaimId>) -> Option<ClaimInfo> {
    let mut reader = Reader(bytes);
    let id = reader.id()?;
    let token = FencingToken::new(reader.number()?);
    let expires = reader.number()?;
    let since = reader.number()?;
    let _renewed_and_converted = reader.take(16)?;
    let mode = reader.mode()?;
    let _floor_and_place = reader.take(16)?;
    let _channel = reader.text()?;
    let (owner, note) = (reader.label().ok()?, reader.label().ok()?);
    Some(ClaimInfo {
        id,
        mode,
        owner,
        note,
        token,
        age: Duration::from_micros(now.saturating_sub(since)),
        left: Duration::from_micros(expires.saturating_sub(now)),
        upgrading: upgrading == Some(id),
    })
}

/// Holders and waiters of a list that has the holders first.
pub(crate) fn snapshot(claims: Vec<ClaimInfo>) -> Snapshot {
    let (holders, waiters) = claims.into_iter().partition(|info| info.token.is_some());
    Snapshot { holders, waiters }
}

/// What a message on the client's channel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Granted(ClaimId, Fence),
    Expired(ClaimId),
    Broken(ClaimId),
    TakenOver(ClaimId),
}

/// Reads a message; what cannot be read ends it.
pub(crate) fn lines(message: &[u8]) -> impl Iterator<Item = Line> {
    let mut reader = Reader(message);
    std::iter::from_fn(move || {
        let kind = reader.take(1)?[0];
        let id = reader.id()?;
        match kind {
            b'G' => Some(Line::Granted(id, reader.fence()?)),
            b'E' => Some(Line::Expired(id)),
            b'B' => Some(Line::Broken(id)),
            b'T' => Some(Line::TakenOver(id)),
            _ => None,
        }
    })
}
