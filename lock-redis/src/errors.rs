//! What the server and the connection answer, told as errors of this library.

use lockcore::{Error, ErrorKind};
use redis::{ConnectionAddr, RedisError};

/// The backend's name in errors and capabilities.
pub(crate) const NAME: &str = "redis";

/// Something that went wrong, kept so that several callers can be told.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) kind: ErrorKind,
    message: String,
    source: Option<RedisError>,
}

impl Trouble {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Trouble {
        Trouble { kind, message: message.into(), source: None }
    }

    /// The same trouble for a caller that knows more of what may have happened.
    pub(crate) fn with_kind(self, kind: ErrorKind) -> Trouble {
        Trouble { kind, ..self }
    }

    /// What happened while a connection was being made: nothing was asked of the server yet.
    pub(crate) fn connecting(address: &ConnectionAddr, error: RedisError) -> Trouble {
        if error.code().is_none() || error.kind() == redis::ErrorKind::AuthenticationFailed {
            let (kind, message) = if error.kind() == redis::ErrorKind::AuthenticationFailed {
                let message = format!("{address} refused the user or the password: check both in the URL");
                (ErrorKind::Denied, message)
            } else if error.kind() == redis::ErrorKind::RESP3NotSupported {
                let message = format!("{address} does not speak RESP3: Redis 6.2 or newer is needed");
                (ErrorKind::Unsupported, message)
            } else {
                let tls = matches!(address, ConnectionAddr::TcpTls { .. });
                // How a server ends what it does not understand.
                let advice = if tls && error.is_timeout() {
                    " (rediss:// needs a port that speaks TLS)"
                } else if !tls && error.is_connection_dropped() && !error.is_connection_refusal() {
                    " (a port that speaks TLS needs rediss://)"
                } else {
                    ""
                };
                (ErrorKind::Unavailable, format!("cannot connect to {address}: {error}{advice}"))
            };
            return Trouble { kind, message, source: Some(error) };
        }
        let mut trouble = Trouble::refused(error, None);
        trouble.message = format!("{address}: {}", trouble.message);
        trouble
    }

    /// What happened to a request that was under way.
    pub(crate) fn requesting(error: RedisError, name: Option<&str>) -> Trouble {
        if error.code().is_some() {
            return Trouble::refused(error, name);
        }
        let message = if error.is_timeout() {
            "the server did not answer in time".to_owned()
        } else {
            format!("the connection was lost before the answer came: {error}")
        };
        Trouble { kind: ErrorKind::Indeterminate, message, source: Some(error) }
    }

    /// An error that the server itself answered: it did not do what was asked.
    fn refused(error: RedisError, name: Option<&str>) -> Trouble {
        let code = error.code().unwrap_or_default().to_owned();
        let detail = error.detail().unwrap_or_default().to_owned();
        let (kind, message) = judge(&code, &detail, name);
        Trouble { kind, message, source: Some(error) }
    }

    /// The error for a caller.
    pub(crate) fn error(self) -> Error {
        let error = Error::new(self.kind, self.message);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

/// Codes that mean that the server cannot act now, each with what to do.
const AWAY: [(&str, &str); 10] = [
    ("READONLY", "this server is a replica and takes no writes: connect to the primary"),
    ("LOADING", "the server is still loading its data: try again when it is done"),
    ("MASTERDOWN", "this replica has lost its primary: connect to the primary"),
    ("OOM", "the server is at its maxmemory: give it more, or find out what fills it"),
    ("MISCONF", "the server cannot persist and therefore refuses writes: look at its log and its disk"),
    ("NOREPLICAS", "the server has too few replicas for its min-replicas-to-write"),
    ("CLUSTERDOWN", "the cluster does not serve this key now"),
    ("TRYAGAIN", "the cluster is moving this key"),
    ("BUSY", "the server is busy with somebody's script: SCRIPT KILL ends it"),
    ("UNBLOCKED", "the server changed its role"),
];

fn judge(code: &str, detail: &str, name: Option<&str>) -> (ErrorKind, String) {
    let said = format!("the server said {code} {detail}");
    // Before version 7 the error of a command in a script comes inside the text of another, some with their dash.
    let says = |word: &str| {
        code == word
            || (code == "ERR" && detail.split([' ', ':']).any(|each| each.trim_start_matches('-') == word))
    };
    if let Some((_, advice)) = AWAY.iter().find(|(word, _)| says(word)) {
        return (ErrorKind::Unavailable, format!("{advice} ({said})"));
    }
    if ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|word| says(word))
        || detail.contains("The user executing the script can't")
    {
        return (
            ErrorKind::Denied,
            format!("the server refused the user, the password or the permission ({said})"),
        );
    }
    let foreign = ["WRONGTYPE", "fencelock-conflict"].iter().any(|word| says(word))
        || detail.contains("data string too short");
    if foreign {
        let name = name.unwrap_or("a key");
        return (
            ErrorKind::Conflict,
            format!("{name} (or a key that begins so) holds data that is not ours ({said})"),
        );
    }
    (ErrorKind::Other, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_old_and_new_servers_are_judged_alike() {
        let kind = |code, detail| judge(code, detail, Some("lock/{a}")).0;
        assert_eq!(kind("WRONGTYPE", "Operation against a key"), ErrorKind::Conflict);
        let old = "Error running script (call to f_ab): @user_script:2: WRONGTYPE Operation against a key";
        assert_eq!(kind("ERR", old), ErrorKind::Conflict);
        assert_eq!(
            kind("ERR", "user_script:40: fencelock-conflict lock/{a} script: ab"),
            ErrorKind::Conflict
        );
        assert_eq!(kind("OOM", "command not allowed"), ErrorKind::Unavailable);
        assert_eq!(kind("ERR", "user_script:2: OOM command not allowed"), ErrorKind::Unavailable);
        let old = "Error running script (call to f_ab): @user_script:4: @user_script: 4: ";
        for (error, expected) in [
            ("-OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Unavailable),
            ("-READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("The user executing the script can't run this command or subcommand", ErrorKind::Denied),
        ] {
            assert_eq!(judge("ERR", &format!("{old}{error}"), None).0, expected, "{error}");
        }
        assert_eq!(kind("NOPERM", "this user has no permissions"), ErrorKind::Denied);
        assert_eq!(kind("ERR", "syntax error"), ErrorKind::Other);
        assert!(judge("WRONGTYPE", "", Some("lock/{a}")).1.contains("lock/{a}"));
    }
}
