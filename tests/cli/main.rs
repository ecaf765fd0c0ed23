//! The command `fencelock`, run as users run it, on a real Redis.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exclusion;
mod looking;
mod loss;
mod signals;
mod stage;
mod status;
mod terminal;
mod verify;
mod voice;
