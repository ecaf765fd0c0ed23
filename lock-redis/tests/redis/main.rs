//! The Redis backend on real servers: what it sends, what it leaves behind, and what it makes of bad input and failing
//! servers. That the scripts decide as `LockState` does is tested in `src/equivalence.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else comes fails the test")]

mod bad_input;
mod bench;
mod faults;
mod keys;
mod replicas;
mod restart;
mod tls;
mod traffic;
