//! The in-memory backend of fencelock: for unit tests, and for one process that wants keyed locks with leases, fairness
//! and fencing tokens.
//!
//! It runs the state machine of [`lockcore::state`] behind mutexes, so it is the semantics, not an imitation. Time is
//! tokio's: under a paused clock a lease of 30 minutes is tested in microseconds.
//!
//! # Examples
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> lockcore::Result<()> {
//! use lock_memory::MemoryBackend;
//! use lockcore::LockClient;
//!
//! let locks = LockClient::new(MemoryBackend::new());
//! let guard = locks.lock("task_1")?.exclusive().acquire().await?;
//! assert!(locks.lock("task_1")?.shared().try_acquire().await?.is_none());
//! guard.release().await?;
//! # Ok(()) }
//! ```

mod backend;
mod faults;
mod server;

pub use self::backend::MemoryBackend;
pub use self::faults::Faults;
pub use self::server::MemoryServer;
