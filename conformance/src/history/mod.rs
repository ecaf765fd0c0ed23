//! What many clients did at once, recorded, and checked afterwards.
//!
//! A [`Recorder`] takes down what each client believed, when; [`check`] tells in `O(n log n)` whether any order of events
//! explains it under the rules of the lock. One line of JSON per event, so that histories of other programs can be checked
//! too.

mod check;
mod event;
mod recorder;
mod sweep;
#[cfg(test)]
mod tests;

pub use self::check::{Options, Summary, Violation, check};
pub use self::event::{Act, Event, read_json_lines};
pub use self::recorder::{Recorder, Track};
