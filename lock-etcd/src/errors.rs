//! What the server and the connection answer, told as errors of this library.

use std::sync::Arc;

use lockcore::{Error, ErrorKind};

use crate::members::Unreachable;

/// The backend's name in errors and capabilities.
pub(crate) const NAME: &str = "etcd";

/// Something that went wrong, kept so that several callers can be told.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: ErrorKind,
    message: String,
    source: Option<Arc<etcd_client::Error>>,
    /// A lease that the request named is not there (any more): nothing was done.
    pub(crate) lease_gone: bool,
}

impl Trouble {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Trouble {
        Trouble { kind, message: message.into(), source: None, lease_gone: false }
    }

    /// Nobody answered in time.
    pub(crate) fn silence() -> Trouble {
        Trouble::new(ErrorKind::Indeterminate, "the server did not answer in time")
    }

    /// What a server says when a lease is not there.
    #[cfg(test)]
    pub(crate) fn lease_gone() -> Trouble {
        Trouble { lease_gone: true, ..Trouble::new(ErrorKind::Unavailable, "requested lease not found") }
    }

    /// What happened to a request.
    pub(crate) fn of(error: etcd_client::Error) -> Trouble {
        let (kind, message, lease_gone) = judge(&error);
        Trouble { kind, message, source: Some(Arc::new(error)), lease_gone }
    }

    /// Whether the database is full: nothing may be put then, but all may be deleted.
    pub(crate) fn is_full(&self) -> bool {
        let source = self.source.as_deref();
        matches!(source, Some(etcd_client::Error::GRpcStatus(status)) if status.message().contains(FULL.0))
    }

    /// The same trouble with a request that only came before the one that matters: nothing happened to that.
    pub(crate) fn beforehand(mut self) -> Trouble {
        if self.kind == ErrorKind::Indeterminate {
            self.kind = ErrorKind::Unavailable;
        }
        self
    }

    /// The same trouble with the first request of all: what answers may not be what it should be.
    pub(crate) fn at_first(self) -> Trouble {
        let what = "no etcd answers there (a port that speaks TLS needs etcds://)";
        self.because(ErrorKind::Indeterminate, what).beforehand()
    }

    /// The same trouble, with what it means to this caller.
    pub(crate) fn because(mut self, kind: ErrorKind, what: &str) -> Trouble {
        if self.kind == kind {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }

    /// The error for a caller. It says all that a status says; the status itself would say it again, at length.
    pub(crate) fn error(self) -> Error {
        let error = Error::new(self.kind, self.message);
        match self.source {
            Some(source) if !matches!(*source, etcd_client::Error::GRpcStatus(_)) => {
                error.with_source(source)
            }
            _ => error,
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        trouble.error()
    }
}

/// The same error behind the write that matters: nobody may say that nothing happened. That the claim is lost stays so.
pub(crate) fn afterwards(error: Error) -> Error {
    if error.kind() == ErrorKind::Lost { error } else { error.with_kind(ErrorKind::Indeterminate) }
}

fn judge(error: &etcd_client::Error) -> (ErrorKind, String, bool) {
    let etcd_client::Error::GRpcStatus(status) = error else {
        let text = error.to_string();
        let lease_gone = text.contains("lease not found");
        // The client library found something wrong before it sent anything.
        return (ErrorKind::Unavailable, text, lease_gone);
    };
    if let Some(unreachable) = unreachable(status) {
        let (kind, message) = judge_connection(unreachable);
        return (kind, message, false);
    }
    let said = status.message();
    let causes = causes(status);
    judge_status(status.code() as i32, said, &causes)
}

/// Which member could not be asked, if that is what happened.
fn unreachable(error: &dyn std::error::Error) -> Option<&Unreachable> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

fn judge_connection(error: &Unreachable) -> (ErrorKind, String) {
    let mut root: &dyn std::error::Error = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    let causes = causes(error);
    let advice = ADVICE.iter().find(|(word, _)| causes.contains(word)).map_or("", |(_, advice)| advice);
    let never_sent = NOT_SENT.iter().any(|word| causes.contains(word));
    let kind = if never_sent { ErrorKind::Unavailable } else { ErrorKind::Indeterminate };
    (kind, format!("cannot ask {error}: {root}{advice}"))
}

/// What the errors below say, which a status does not repeat.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The codes of gRPC that matter here.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// What the server itself says when it did nothing, each with what to do.
const REFUSED: [(&str, &str); 4] = [
    ("no leader", "the cluster has no leader: is a majority of its members up?"),
    ("too many requests", "the server has too many requests waiting"),
    ("not capable", "the server is not ready yet"),
    ("auth store is old", "users or roles were changed just now"),
];

/// What the server also says of the very write that filled it, which it has done.
const FULL: (&str, &str) = (
    "database space exceeded",
    "the server's database is full (NOSPACE): compact, defragment, disarm the alarm",
);

/// What a connection says that was never made: nothing was sent.
const NOT_SENT: [&str; 6] = [
    "Connection refused",
    "tcp connect error",
    "dns error",
    "failed to lookup",
    "invalid peer certificate",
    "tls handshake",
];

/// How a connection fails that something is wrong with, each with what to do.
const ADVICE: [(&str, &str); 3] = [
    ("invalid peer certificate", " (is its authority the system's, or that of ?ca=…?)"),
    ("tls handshake", " (etcds:// needs a port that speaks TLS)"),
    ("corrupt message", " (etcds:// needs a port that speaks TLS)"),
];

fn judge_status(code: i32, said: &str, causes: &str) -> (ErrorKind, String, bool) {
    let full = format!("{said}{causes}");
    if said.contains("requested lease not found") {
        return (ErrorKind::Unavailable, full, code == code::NOT_FOUND);
    }
    if said.contains("authentication is not enabled") {
        let advice = "the server knows no users: leave user and password out";
        return (ErrorKind::Denied, format!("{advice} ({full})"), false);
    }
    let denied = said.contains("authentication failed")
        || said.contains("user name is empty")
        || matches!(code, code::PERMISSION_DENIED | code::UNAUTHENTICATED);
    if denied {
        let advice = "the server refused the user, the password or the permission";
        return (ErrorKind::Denied, format!("{advice} ({full})"), false);
    }
    if let Some((_, advice)) = REFUSED.iter().find(|(word, _)| said.contains(word)) {
        return (ErrorKind::Unavailable, format!("{advice} ({full})"), false);
    }
    if said.contains(FULL.0) {
        return (ErrorKind::Indeterminate, format!("{} ({full})", FULL.1), false);
    }
    if NOT_SENT.iter().any(|word| full.contains(word)) {
        return (ErrorKind::Unavailable, format!("cannot connect: {full}"), false);
    }
    match code {
        code::INVALID_ARGUMENT | code::NOT_FOUND | code::FAILED_PRECONDITION => {
            (ErrorKind::Other, full, false)
        }
        code::RESOURCE_EXHAUSTED => (ErrorKind::Unavailable, full, false),
        // A time-out of the server, a change of its leader, a broken connection: it may have been done.
        _ => (ErrorKind::Indeterminate, full, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_whether_it_may_have_happened() {
        let kind = |code, said, causes| judge_status(code, said, causes).0;
        assert_eq!(kind(14, "etcdserver: no leader", ""), ErrorKind::Unavailable);
        assert_eq!(kind(14, "etcdserver: request timed out", ""), ErrorKind::Indeterminate);
        assert_eq!(kind(14, "etcdserver: leader changed", ""), ErrorKind::Indeterminate);
        assert_eq!(
            kind(14, "", ": tcp connect error: Connection refused (os error 111)"),
            ErrorKind::Unavailable
        );
        assert_eq!(kind(2, "transport error", ": connection reset"), ErrorKind::Indeterminate);
        assert_eq!(
            kind(3, "etcdserver: authentication failed, invalid user ID or password", ""),
            ErrorKind::Denied
        );
        assert_eq!(kind(9, "etcdserver: authentication is not enabled", ""), ErrorKind::Denied);
        assert_eq!(kind(8, "etcdserver: mvcc: database space exceeded", ""), ErrorKind::Indeterminate);
        assert!(judge_status(5, "etcdserver: requested lease not found", "").2);
    }
}
