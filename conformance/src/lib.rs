//! The conformance suite of fencelock: what every backend must keep, as scenarios, properties and histories that run
//! against any [`LockBackend`](lockcore::LockBackend).
//!
//! Somebody who writes a backend implements [`Harness`], which says how a server is had, and adds one test without the
//! built-in test runner:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//! ```
//! use lock_conformance::mutants::HealthyHarness; // stands for your own harness here
//! # if false {
//! fn main() -> std::process::ExitCode {
//!     lock_conformance::run(HealthyHarness)
//! }
//! # main();
//! # }
//! ```
//!
//! Each scenario has a stable id, and cites the rules that it shows. Names, filters and options are those of `cargo test`:
//! `cargo test --test conformance -- s07` plays scenario 7. What a backend does not declare in its
//! [`Capabilities`](lockcore::Capabilities), or what its harness cannot do, is ignored with the reason; what it declares and
//! does not keep, fails.
//!
//! | variable or option | effect |
//! |---|---|
//! | `SEED=…` | the seed of everything random, as a failure prints it |
//! | `--report FOLDER`, `CONFORMANCE_REPORT=FOLDER` | writes `FOLDER/<backend>.json` and `.md` |
//!
//! The suite is itself held to account: [`mutants`] are backends that are broken in one way each, and every run shows that
//! the scenario that is meant to notice does.
//!
//! For tests of one's own: [`Faulty`] is a bad network before any backend, [`simulation`] plays whole clients under the paused
//! clock, and [`history`] says whether a lock can have led to what clients believed.

mod cancel;
mod child;
mod claims;
mod counting;
mod doomed;
mod faulty;
mod harness;
pub mod history;
pub mod mutants;
mod outcome;
mod pausing;
mod play;
mod property;
pub mod report;
mod rules;
mod run;
mod scenarios;
mod scene;
pub mod simulation;
mod table;

pub use self::faulty::{Fault, Faulty};
pub use self::harness::{Client, Harness, Hook, HookError, Link, Seclusion, Server, Timing};
pub use self::outcome::{Outcome, Stop};
pub use self::play::{Verdict, play};
pub use self::rules::Rule;
pub use self::run::run;
pub use self::scene::Scene;
pub use self::table::{Level, Need, SCENARIOS, Scenario};
