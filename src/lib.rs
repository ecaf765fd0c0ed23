//! Distributed exclusive and shared locks on the server that a team already runs.
//!
//! One set of semantics on every backend: FIFO queues, leases that are renewed for you, fencing tokens, guards that tell
//! you when they are lost. Backends are chosen by feature; none is on by default.
//!
//! # Examples
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> fencelock::Result<()> {
//! let locks = fencelock::connect("memory:").await?;
//! let guard = locks.lock("invoices/2026-11")?.exclusive().acquire().await?;
//! println!("mine, with token {}", guard.token());
//! guard.release().await?;
//! # Ok(()) }
//! ```

mod connect;

pub use lockcore::*;

#[cfg(feature = "etcd")]
pub use lock_etcd as etcd;
#[cfg(feature = "kafka")]
pub use lock_kafka as kafka;
#[cfg(feature = "memory")]
pub use lock_memory as memory;
#[cfg(feature = "redis")]
pub use lock_redis as redis;

pub use self::connect::{backend, connect};

#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../README.md")]
struct Readme;
