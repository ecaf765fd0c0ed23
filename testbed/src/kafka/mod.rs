//! A real Kafka broker for a test, or three of them.

mod api;
mod cluster;
mod options;
mod rights;
mod security;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use cluster::KafkaCluster;
pub use options::KafkaOptions;

use crate::clock::Clock;
use crate::folder::Folder;
use crate::process::{Process, Program};
use crate::proxy::Proxy;
use crate::wait::{PATIENCE, wait_for};

/// What a broker prints when it serves clients.
const STARTED: &str = "Kafka Server started";

/// A broker, which is its own controller or one of a [`KafkaCluster`]'s, on free ports of 127.0.0.1, with its data in a temporary
/// folder.
///
/// Dropping the handle kills the broker and removes the folder; the broker also dies with the test process.
///
/// # Examples
/// ```
/// use testbed::KafkaServer;
/// let server = KafkaServer::start().unwrap();
/// assert_eq!(server.url("locks"), format!("kafka://127.0.0.1:{}/locks", server.port()));
/// ```
#[derive(Debug)]
pub struct KafkaServer {
    // Before the folder: a server must be gone before its folder goes.
    process: Mutex<Option<Process>>,
    port: u16,
    operator: u16,
    authority: Option<PathBuf>,
    proxies: Vec<Proxy>,
    program: Program,
    clock: Option<Clock>,
    folder: Folder,
}

impl KafkaServer {
    /// Starts a broker.
    ///
    /// # Errors
    /// As [`KafkaOptions::start`].
    pub fn start() -> io::Result<Self> {
        Self::options().start()
    }

    /// Begins the description of a broker that is special.
    ///
    /// # Examples
    /// ```
    /// use testbed::KafkaServer;
    /// let server = KafkaServer::options().proxies(1).start().unwrap();
    /// server.proxies()[0].sever();
    /// ```
    #[must_use]
    pub fn options() -> KafkaOptions {
        KafkaOptions::default()
    }

    /// Gives the URL of a topic.
    #[must_use]
    pub fn url(&self, topic: &str) -> String {
        self.url_at(self.addr(), topic)
    }

    /// Gives the URL of a topic with another address in it: that of one of the [`proxies`](Self::proxies).
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr, topic: &str) -> String {
        format!("kafka://{addr}/{topic}")
    }

    /// Gives the address for clients.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Gives the port for clients, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives its address for whoever may do everything, and speaks without TLS; the same as for clients unless it has users or a
    /// certificate.
    #[must_use]
    pub fn operator(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.operator).into()
    }

    /// Gives the file with the certificate of its authority, if it was started with one.
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Gives the proxies in front of it, as many as it was started with.
    #[must_use]
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Gives the process id of the broker, or nothing when it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Kills the broker (SIGKILL) and waits for its end; nothing happens when it has ended already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Asks the broker to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.terminate())
    }

    /// Starts the broker again on the same ports and data, after a kill if it still runs, and waits until it serves clients.
    ///
    /// # Errors
    /// The end of the broker's log when it does not start.
    pub fn restart(&self) -> io::Result<()> {
        self.kill()?;
        self.launch()?;
        self.ready()
    }

    /// Stops the broker in its tracks (SIGSTOP): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.pause()
    }

    /// Lets a paused broker go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.process().as_mut().ok_or_else(not_running)?.resume()
    }

    /// Sets its wall clock so many seconds ahead of this machine's, or behind; at once, and for restarts too.
    ///
    /// # Errors
    /// When it was started without [`KafkaOptions::own_clock`].
    pub fn set_clock_ahead(&self, seconds: i64) -> io::Result<()> {
        let clock = self.clock.as_ref();
        clock.ok_or_else(|| io::Error::other("this Kafka has no clock of its own"))?.set_ahead(seconds)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("kafka.log")
    }

    /// Starts the process, which need not serve yet.
    fn launch(&self) -> io::Result<()> {
        // What an earlier one has printed must not be taken for this one's.
        fs::write(self.log(), "")?;
        *self.process() = Some(Process::start(&self.program, &self.log())?);
        Ok(())
    }

    /// Waits until the broker serves clients.
    fn ready(&self) -> io::Result<()> {
        let ready = wait_for("Kafka to start", 2 * PATIENCE, || {
            self.process().as_mut().ok_or_else(not_running)?.check_alive()?;
            Ok(fs::read_to_string(self.log())?.contains(STARTED).then_some(()))
        });
        ready.map_err(|error| match self.process().as_ref() {
            Some(process) if error.kind() == io::ErrorKind::TimedOut => {
                io::Error::new(error.kind(), format!("{error}; its log says:\n{}", process.log_end()))
            }
            _ => error,
        })
    }
}

fn not_running() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this Kafka does not run: it was stopped")
}
