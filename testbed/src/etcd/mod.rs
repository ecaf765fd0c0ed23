//! A real etcd server for a test, or three of them.

mod api;
mod cluster;
mod options;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use cluster::EtcdCluster;
pub use options::{EtcdOptions, EtcdVersion};

use api::Api;
use serde_json::json;

use crate::folder::Folder;
use crate::process::{Process, Program};
use crate::urls::percent_encode;
use crate::wait::{PATIENCE, wait_for};

/// An etcd of one member, or one member of an [`EtcdCluster`], on free ports of 127.0.0.1, with its data in a temporary folder.
///
/// Dropping the handle kills the server and removes the folder; the server also dies with the test process.
///
/// # Examples
/// ```
/// use testbed::EtcdServer;
/// let server = EtcdServer::start().unwrap();
/// assert_eq!(server.url(), format!("etcd://127.0.0.1:{}", server.port()));
/// ```
#[derive(Debug)]
pub struct EtcdServer {
    // Before the folder: a server must be gone before its folder goes.
    process: Mutex<Option<Process>>,
    port: u16,
    api: Api,
    root: Option<String>,
    ca: Option<PathBuf>,
    program: Program,
    folder: Folder,
}

impl EtcdServer {
    /// Starts the newest version that is there.
    ///
    /// # Errors
    /// As [`EtcdOptions::start`].
    pub fn start() -> io::Result<Self> {
        Self::options().start()
    }

    /// Starts a server of this version and waits until it answers.
    ///
    /// # Errors
    /// As [`EtcdOptions::start`].
    pub fn start_version(version: EtcdVersion) -> io::Result<Self> {
        Self::options().version(version).start()
    }

    /// Begins the description of a server that is special.
    ///
    /// # Examples
    /// ```
    /// use testbed::EtcdServer;
    /// let server = EtcdServer::options().auth("secret").user("ann", "pass", "lock/").start().unwrap();
    /// assert!(server.url().starts_with("etcd://root:secret@127.0.0.1:"));
    /// assert!(server.url_of("ann", "pass").starts_with("etcd://ann:pass@127.0.0.1:"));
    /// ```
    #[must_use]
    pub fn options() -> EtcdOptions {
        EtcdOptions::default()
    }

    /// Gives the URL of the server, with root's password if it asks for one.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// Gives the URL with another address in it: that of a [`Proxy`](crate::Proxy) in front of the server.
    #[must_use]
    pub fn url_at(&self, addr: SocketAddr) -> String {
        let login = self.root.as_deref().map(|password| login("root", password));
        format!("{}://{}{addr}", self.scheme(), login.unwrap_or_default())
    }

    /// Gives the URL with another user in it.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("{}://{}{}", self.scheme(), login(user, password), self.addr())
    }

    fn scheme(&self) -> &'static str {
        if self.ca.is_some() { "etcds" } else { "etcd" }
    }

    /// Gives the certificate (PEM) of the authority that a client must trust, if the server speaks TLS.
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.ca.as_deref()
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

    /// Gives the process id of the server, or nothing when it has been killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    /// Asks the server for its version, such as `3.4.23`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> io::Result<String> {
        let answer = self.api.get("/version")?;
        let version = answer.split_once("\"etcdserver\":\"").and_then(|(_, rest)| rest.split_once('"'));
        version
            .map(|(version, _)| version.to_owned())
            .ok_or_else(|| io::Error::other("no version in the answer"))
    }

    /// Sums up the server's metrics whose line begins so, such as `etcd_server_proposals_committed_total`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, beginning: &str) -> io::Result<f64> {
        let answer = self.api.get("/metrics")?;
        let lines = answer.lines().filter(|line| line.starts_with(beginning));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Kills the server (SIGKILL) and waits for its end; nothing happens when it has ended already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        self.process().take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts the server again on the same ports and data, after a kill if it still runs, and waits until it answers: as a
    /// member of a cluster, that is, until it sees a leader.
    ///
    /// # Errors
    /// The end of the server's log when it does not start.
    pub fn restart(&self) -> io::Result<()> {
        self.kill()?;
        self.launch()?;
        self.ready()
    }

    /// Starts the server again on the same ports without its data and users: for a server that is no member of a cluster.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub fn restart_empty(&self) -> io::Result<()> {
        self.kill()?;
        std::fs::remove_dir_all(self.folder.path().join(options::DATA))?;
        self.launch()?;
        self.ready()
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

    /// Logs root in, where that is asked for.
    fn token(&self) -> io::Result<Option<String>> {
        let Some(password) = &self.root else { return Ok(None) };
        let login = json!({ "name": "root", "password": password });
        let answer = self.api.call(None, "/v3/auth/authenticate", &login)?;
        Ok(answer["token"].as_str().map(ToOwned::to_owned))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process, which need not answer yet.
    fn launch(&self) -> io::Result<()> {
        *self.process() = Some(Process::start(&self.program, &self.folder.path().join("etcd.log"))?);
        Ok(())
    }

    /// Waits until the server answers and sees a leader.
    fn ready(&self) -> io::Result<()> {
        let ready = wait_for("etcd to answer", PATIENCE, || {
            self.process().as_mut().ok_or_else(not_running)?.check_alive()?;
            let healthy = self.api.get("/health").is_ok_and(|answer| answer.contains("\"true\""));
            Ok(healthy.then_some(()))
        });
        ready.map_err(|error| match self.process().as_ref() {
            Some(process) if error.kind() == io::ErrorKind::TimedOut => {
                io::Error::new(error.kind(), format!("{error}; its log says:\n{}", process.log_end()))
            }
            _ => error,
        })
    }
}

fn login(user: &str, password: &str) -> String {
    format!("{}:{}@", percent_encode(user), percent_encode(password))
}

fn not_running() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "this etcd does not run: it was killed")
}
