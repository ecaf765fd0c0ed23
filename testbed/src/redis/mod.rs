//! A real Redis server for a test.

mod options;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use options::{Fsync, RedisOptions};

use options::Login;

use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::folder::Folder;
use crate::process::{Process, Program};
use crate::resp::{Connection, Reply};
use crate::urls::percent_encode;
use crate::wait::{PATIENCE, wait_for};

/// A `redis-server` of its own, on a free port of 127.0.0.1, with its data in a temporary folder.
///
/// Nothing is persisted unless asked for. Dropping the handle kills the server and removes the folder; the server also dies
/// with the test process. It does not mind which thread started it, so that a `static` may share one among tests.
///
/// # Examples
/// ```
/// use testbed::{RedisServer, Reply};
/// let server = RedisServer::start().unwrap();
/// assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
/// assert_eq!(server.command(&["INCR", "n"]).unwrap(), Reply::Integer(1));
/// ```
#[derive(Debug)]
pub struct RedisServer {
    // Before the folder: a server must be gone before its folder goes.
    process: Mutex<Option<Process>>,
    port: u16,
    login: Option<Login>,
    certificates: Option<Certificates>,
    ca: Option<PathBuf>,
    replica: bool,
    program: Program,
    clock: Option<Clock>,
    folder: Folder,
}

/// The name of the Unix socket that testbed's own commands take, in the server's folder.
const SOCKET: &str = "redis.sock";

impl RedisServer {
    /// Starts a server with nothing special about it.
    ///
    /// # Errors
    /// As [`RedisOptions::start`].
    pub fn start() -> io::Result<Self> {
        Self::options().start()
    }

    /// Begins the description of a server that is special.
    ///
    /// # Examples
    /// ```
    /// use testbed::{Fsync, RedisServer};
    /// let server = RedisServer::options().password("secret").appendfsync(Fsync::Always).start().unwrap();
    /// assert!(server.url().starts_with("redis://:secret@127.0.0.1:"));
    /// ```
    #[must_use]
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// Gives the URL of the server, with user and password if it asks for them.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// Gives the URL with another address in it: that of a [`Proxy`](crate::Proxy) in front of the server.
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        let login = self.login.as_ref().map_or_else(String::new, |login| {
            let user = login.user.as_deref().map(percent_encode).unwrap_or_default();
            format!("{user}:{}@", percent_encode(&login.password))
        });
        format!("{scheme}://{login}{addr}")
    }

    /// Gives the address of the server.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Gives the port of the server, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives the process id of the server, or nothing when it has been killed or stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Gives the certificate (PEM) of the authority that a client must trust, if the server speaks TLS.
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Kills the server (SIGKILL) and waits for its end; nothing happens when it has ended already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Asks the server to end (SIGTERM) and waits until it has; nothing happens when it has ended already.
    ///
    /// # Errors
    /// `TimedOut` when it does not end.
    pub fn stop(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.terminate())
    }

    /// Starts the server again on the same port and folder, after a kill if it still runs.
    ///
    /// Its data survive only when it persists them: see [`RedisOptions::appendfsync`].
    ///
    /// # Errors
    /// The end of the server's log when it does not start.
    pub fn restart(&self) -> io::Result<()> {
        let mut process = self.process();
        if let Some(mut running) = process.take() {
            running.kill()?;
        }
        self.launch(&mut process)
    }

    /// Stops the server in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.pause()
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.resume()
    }

    /// Sets its wall clock so many seconds ahead of this machine's, or behind; at once, and for restarts too.
    ///
    /// # Errors
    /// When it was started without [`RedisOptions::own_clock`].
    pub fn set_clock_ahead(&self, seconds: i64) -> io::Result<()> {
        let clock = self.clock.as_ref();
        clock.ok_or_else(|| io::Error::other("this Redis has no clock of its own"))?.set_ahead(seconds)
    }

    /// Sends the server a command on a connection of its own, past TLS and any [`Proxy`](crate::Proxy), and gives the answer.
    ///
    /// # Errors
    /// When the server does not run, refuses the command, or is paused for longer than 30 s.
    pub fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> io::Result<Reply> {
        let mut connection = Connection::open(&self.folder.path().join(SOCKET))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot reach redis: {error}")))?;
        if let Some(login) = &self.login {
            let user = login.user.as_deref().unwrap_or("default");
            connection.call(&["AUTH", user, &login.password])?;
        }
        connection.call(words)
    }

    /// Reads one field of the server's INFO, such as `total_commands_processed`.
    ///
    /// Each look is a command (two where there is a password) that the server counts too.
    ///
    /// # Errors
    /// As [`command`](Self::command); `NotFound` when there is no such field.
    pub fn info(&self, field: &str) -> io::Result<String> {
        let info = self.command(&["INFO", "everything"])?;
        info.as_text()
            .into_iter()
            .flat_map(str::lines)
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(ToOwned::to_owned)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("redis' INFO has no field {field:?}"))
            })
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process and waits until it answers, and has caught up if it is a replica.
    fn launch(&self, slot: &mut Option<Process>) -> io::Result<()> {
        let mut process = Process::start(&self.program, &self.folder.path().join("redis.log"))?;
        let ready = wait_for("redis to answer", PATIENCE, || {
            process.check_alive()?;
            // The socket lies in our own folder and comes after the port: who answers is ours, and has its port.
            Ok(self.is_ready().unwrap_or(false).then_some(()))
        });
        ready.map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                return io::Error::new(
                    error.kind(),
                    format!(
                        "{error}; its log says:
{}",
                        process.log_end()
                    ),
                );
            }
            error
        })?;
        *slot = Some(process);
        Ok(())
    }

    fn is_ready(&self) -> io::Result<bool> {
        if self.replica {
            return Ok(self.info("master_link_status")? == "up");
        }
        self.command(&["PING"]).map(|_| true)
    }
}

fn not_running() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this redis does not run: it was killed or stopped")
}
