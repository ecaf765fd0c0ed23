//! Real servers as child processes for the tests of fencelock.
//!
//! Everything here blocks and needs no async runtime, so that it serves sync and async tests alike: a call takes
//! milliseconds, and what a server or a [`Proxy`] does meanwhile runs on threads and processes of its own.
//!
//! A server that a test started ends with it: when its handle is dropped (also by a panic), when the test
//! process exits, and when the test process is killed. A server that is not installed is an error with the advice to
//! run `cargo xtask setup`, never a silent skip.
//!
//! Linux only: it leans on `/proc` and on `setpriv` of util-linux.

mod certificates;
mod clock;
mod etcd;
mod folder;
mod http;
mod kafka;
mod link;
mod ports;
mod process;
mod proxy;
mod redis;
mod resp;
mod tools;
mod urls;
mod wait;

pub use etcd::{EtcdCluster, EtcdOptions, EtcdServer, EtcdVersion};
pub use http::http_get;
pub use kafka::{KafkaCluster, KafkaOptions, KafkaServer};
pub use process::is_running;
pub use proxy::{Counters, Proxy};
pub use redis::{Fsync, RedisOptions, RedisServer};
pub use resp::Reply;
pub use tools::{built, require};
pub use wait::wait_for;
