//! What whoever runs the suite says of their backend: how its server is had, and what can be done to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{Error, LockBackend, Result};

use crate::table::Level;

/// One client of a server, as a backend gives it.
pub type Client = Arc<dyn LockBackend>;

/// A backend under test.
///
/// A harness is made before any server runs, also in the child processes that the suite starts from its own executable,
/// so making one must be cheap: start a server when [`open`](Harness::open) asks for it.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The backend's name, as the report gives it.
    fn name(&self) -> &'static str;

    /// How long things take here.
    fn timing(&self) -> Timing;

    /// How many trials are played side by side at most, unless the command line says so: on a server outside, they mostly wait. Fewer
    /// where it takes the machine some work to begin with a client.
    fn side_by_side(&self) -> usize {
        64
    }

    /// Up to which level the suite is played: all of it, unless this run is for one more version of a server that has
    /// a run of its own. Short of that neither the drop of futures nor mutants are tried, which have nothing to do with
    /// the version.
    fn level(&self) -> Level {
        Level::Extended
    }

    /// The server that one trial uses: a new one, or one that all trials share, as long as `seclusion` allows. It is
    /// called on the runtime of the trial.
    ///
    /// # Errors
    /// When the server is not there; the message says what to install.
    async fn open(&self, seclusion: Seclusion) -> Result<Arc<dyn Server>>;

    /// Connects a process of its own to the server that [`Server::address`] described.
    ///
    /// # Errors
    /// `NotSupported` unless the backend has servers outside this process.
    async fn connect_to(&self, address: &str) -> Hook<Client> {
        Err(HookError::NotSupported(format!("no process of its own reaches {address:?}")))
    }
}

/// Whether a trial minds others on its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seclusion {
    /// It keeps to keys of its own.
    Shared,
    /// It does things to the server that others would suffer from.
    Own,
}

/// The server of a trial.
///
/// The provided methods do harm to it. Each one that is implemented makes scenarios possible that are ignored, with the
/// reason that the method gives, as long as it is not.
#[async_trait]
pub trait Server: Send + Sync {
    /// Name and version of the server, as the report gives them.
    fn version(&self) -> String;

    /// A new client, independent of all others: with a connection of its own, as another machine would have.
    ///
    /// # Errors
    /// When the server cannot be reached.
    async fn connect(&self) -> Result<Client>;

    /// A new client whose way to the server can be broken.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        Err(HookError::not_supported("clients with a breakable link"))
    }

    /// What [`Harness::connect_to`] needs to reach this server from another process.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn address(&self) -> Hook<String> {
        Err(HookError::not_supported("clients in processes of their own"))
    }

    /// Ends the server without warning and starts it again, with the data that it keeps by its configuration. Only
    /// for a server that was opened as [`Seclusion::Own`], as everything below.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn restart(&self) -> Hook {
        Err(HookError::not_supported("restarting the server"))
    }

    /// Loses all state, as a server that comes back empty.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn lose_state(&self) -> Hook {
        Err(HookError::not_supported("losing the server's state"))
    }

    /// Stops the server in its tracks, or lets it go on: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn pause(&self, paused: bool) -> Hook {
        let _ = paused;
        Err(HookError::not_supported("pausing the server"))
    }

    /// Sets the server's wall clock so many seconds ahead of what it was when it was opened, or behind.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn set_clock_ahead(&self, seconds: i64) -> Hook {
        let _ = seconds;
        Err(HookError::not_supported("setting the server's clock"))
    }

    /// How many keys take up room on the server.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    async fn keys_kept(&self) -> Hook<usize> {
        Err(HookError::not_supported("counting the server's keys"))
    }
}

/// The way of one client to the server. Faults last until they are switched off.
pub trait Link: Send + Sync {
    /// Nothing is delivered in either direction; when it ends, everything is.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn partition(&self, on: bool) -> Hook {
        let _ = on;
        Err(HookError::not_supported("partitioning one client"))
    }

    /// The server acts, and the client never hears of it. Switching it off may cut the connection.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn lose_replies(&self, on: bool) -> Hook {
        let _ = on;
        Err(HookError::not_supported("losing replies"))
    }

    /// The server cannot be reached: requests fail, and connections are refused.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn refuse(&self, on: bool) -> Hook {
        let _ = on;
        Err(HookError::not_supported("refusing one client"))
    }

    /// Every request arrives this much later.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn delay(&self, by: Duration) -> Hook {
        let _ = by;
        Err(HookError::not_supported("delaying requests"))
    }

    /// Requests are kept back and delivered when it ends, also those of connections that have gone by then.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn hold_requests(&self, on: bool) -> Hook {
        let _ = on;
        Err(HookError::not_supported("holding requests back"))
    }

    /// Cuts the connections of this moment; new ones are served.
    ///
    /// # Errors
    /// `NotSupported` unless implemented.
    fn sever(&self) -> Hook {
        Err(HookError::not_supported("cutting connections"))
    }
}

/// What a fault hook answers.
pub type Hook<T = ()> = std::result::Result<T, HookError>;

/// Why a fault hook did nothing.
#[derive(Debug)]
pub enum HookError {
    /// This harness cannot do it; the text completes "the harness does not support …".
    NotSupported(String),
    /// It should have worked.
    Failed(Error),
}

impl HookError {
    /// `NotSupported`, for hooks that are not there.
    #[must_use]
    pub fn not_supported(what: &str) -> HookError {
        HookError::NotSupported(what.to_owned())
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookError::NotSupported(what) => write!(f, "the harness does not support {what}"),
            HookError::Failed(error) => write!(f, "a fault could not be made: {error}"),
        }
    }
}

impl std::error::Error for HookError {}

impl From<Error> for HookError {
    fn from(error: Error) -> HookError {
        HookError::Failed(error)
    }
}

/// How long things take on a backend. Scenarios count in units, never in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The time that a few requests take easily, also on a busy machine, and that every lease is a whole multiple of.
    pub unit: Duration,
    /// The trials run under tokio's paused clock: for servers inside this process that live by it.
    pub paused: bool,
    /// Requests take no time there, and leases end to the microsecond.
    pub exact: bool,
    /// A lease that is over is handed over though nobody asks, and not when somebody asks next.
    pub hands_over_at_once: bool,
}

impl Timing {
    /// For a server inside this process that lives by tokio's clock. Each trial must have a server of its own.
    #[must_use]
    pub const fn paused() -> Timing {
        Timing { unit: Duration::from_millis(150), paused: true, exact: true, hands_over_at_once: false }
    }

    /// For a server outside, with this unit.
    #[must_use]
    pub const fn real(unit: Duration) -> Timing {
        Timing { unit, paused: false, exact: false, hands_over_at_once: false }
    }
}
