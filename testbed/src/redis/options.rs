//! What a Redis server is to be like.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use super::{RedisServer, SOCKET};
use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::folder::Folder;
use crate::ports;
use crate::process::Program;

/// When Redis writes its append-only file to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer: what was answered survives a crash.
    Always,
    /// Once a second.
    EverySecond,
    /// When the system likes.
    No,
}

/// What a server is to be like: see [`RedisServer::options`].
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    lines: Vec<(String, String)>,
    env: Vec<(String, String)>,
    login: Option<Login>,
    primary: Option<Primary>,
    tls: bool,
    own_clock: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: String,
}

#[derive(Debug, Clone)]
struct Primary {
    port: u16,
    login: Option<Login>,
    certificates: Option<Certificates>,
}

impl RedisOptions {
    /// Adds a line of `redis.conf`, the value written as it would be there; an empty value becomes `""`.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.into(), if value.is_empty() { "\"\"".into() } else { value.into() }));
        self
    }

    /// Sets an environment variable of the server.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Asks clients for a password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.login = Some(Login { user: None, password: password.into() });
        self
    }

    /// Asks clients for a name and a password; that user may do everything, and the default user is off.
    ///
    /// Users with fewer rights come by [`arg`](Self::arg), as in `arg("user", "guest on >secret ~app:* +@read")`.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.login = Some(Login { user: Some(name.into()), password: password.into() });
        self
    }

    /// Serves TLS only, with a certificate for 127.0.0.1 and localhost: its authority is at [`RedisServer::ca_path`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Gives it a wall clock of its own, for [`RedisServer::set_clock_ahead`].
    #[must_use]
    pub fn own_clock(mut self) -> Self {
        self.own_clock = true;
        self
    }

    /// Keeps the data in an append-only file: what was written to it survives [`RedisServer::restart`].
    #[must_use]
    pub fn appendfsync(self, when: Fsync) -> Self {
        let when = match when {
            Fsync::Always => "always",
            Fsync::EverySecond => "everysec",
            Fsync::No => "no",
        };
        self.arg("appendonly", "yes").arg("appendfsync", when)
    }

    /// Makes it a replica, with the primary's TLS; [`start`](Self::start) returns when it has caught up.
    #[must_use]
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        self.primary = Some(Primary {
            port: primary.port,
            login: primary.login.clone(),
            certificates: primary.certificates.clone(),
        });
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// `NotFound`, with the advice to run `cargo xtask setup`, when Redis is not installed; the end of the server's log when
    /// it does not start; `InvalidInput` when an option has a line break in it.
    pub fn start(self) -> io::Result<RedisServer> {
        // Between the choice of a port and Redis' use of it another process may take it.
        let mut attempt = 1;
        loop {
            match self.clone().start_on(ports::free()?) {
                Err(error) if attempt < 5 && error.to_string().contains("Address already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn start_on(mut self, port: u16) -> io::Result<RedisServer> {
        let folder = Folder::new()?;
        let certificates = match &self.primary {
            Some(Primary { certificates: Some(theirs), .. }) => Some(theirs.clone()),
            _ if self.tls => Some(Certificates::generate()?),
            _ => None,
        };
        let ca = if let Some(certificates) = &certificates {
            Some(self.serve_tls(port, certificates, &folder)?)
        } else {
            self = self.arg("port", &port.to_string());
            None
        };
        folder.write("redis.conf", &self.conf()?)?;
        let clock = self.own_clock.then(|| Clock::new(&folder)).transpose()?;
        self.env.extend(clock.as_ref().map(Clock::env).unwrap_or_default());
        let program = Program {
            name: "redis-server",
            file: None,
            args: vec!["redis.conf".into()],
            env: self.env,
            dir: folder.path().to_owned(),
        };
        let replica = self.primary.is_some();
        let login = self.login;
        let process = Mutex::new(None);
        let server = RedisServer { process, port, login, certificates, ca, replica, program, clock, folder };
        server.launch(&mut server.process())?;
        Ok(server)
    }

    /// Puts the certificates into the folder and names them in the configuration; gives the authority's path.
    fn serve_tls(&mut self, port: u16, certificates: &Certificates, folder: &Folder) -> io::Result<PathBuf> {
        let ca = folder.write("ca.pem", &certificates.authority)?;
        folder.write("server.pem", &certificates.certificate)?;
        folder.write("server.key", &certificates.key)?;
        let replication = if self.primary.is_some() { "yes" } else { "no" };
        for (name, value) in [
            ("port", "0"),
            ("tls-port", &port.to_string()),
            ("tls-ca-cert-file", "ca.pem"),
            ("tls-cert-file", "server.pem"),
            ("tls-key-file", "server.key"),
            ("tls-auth-clients", "no"),
            ("tls-replication", replication),
        ] {
            self.lines.push((name.into(), value.into()));
        }
        Ok(ca)
    }

    fn conf(&self) -> io::Result<String> {
        let mut lines: Vec<(&str, String)> = vec![
            ("bind", "127.0.0.1".into()),
            ("unixsocket", SOCKET.into()),
            ("save", "\"\"".into()),
            // A shutdown of a test's server should not wait for replicas that are paused.
            ("shutdown-timeout", "0".into()),
            // Otherwise a primary waits 5 s for more replicas before it sends its data.
            ("repl-diskless-sync-delay", "0".into()),
        ];
        match &self.login {
            Some(Login { user: Some(user), password }) => {
                lines.push(("user", "default off".into()));
                lines.push((
                    "user",
                    format!("{} on {} ~* &* +@all", quote(user), quote(&format!(">{password}"))),
                ));
            }
            Some(Login { user: None, password }) => lines.push(("requirepass", quote(password))),
            None => {}
        }
        if let Some(primary) = &self.primary {
            lines.push(("replicaof", format!("127.0.0.1 {}", primary.port)));
            if let Some(login) = &primary.login {
                lines.push(("masterauth", quote(&login.password)));
                lines.extend(login.user.as_ref().map(|user| ("masteruser", quote(user))));
            }
        }
        lines.extend(self.lines.iter().map(|(name, value)| (name.as_str(), value.clone())));

        let mut conf = String::new();
        for (name, value) in lines {
            if name.contains(['\n', '\r']) || value.contains(['\n', '\r']) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the redis option {name:?} has a line break in it"),
                ));
            }
            // Writing to a string does not fail.
            let _ = writeln!(conf, "{name} {value}");
        }
        Ok(conf)
    }
}

/// Quotes a value for `redis.conf`.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote(r#"a"b\c"#), r#""a\"b\\c""#);
    }

    #[test]
    fn line_breaks_are_refused() {
        let error = RedisServer::options().arg("save", "1\nuser evil on").start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("\"save\""), "{error}");
    }
}
