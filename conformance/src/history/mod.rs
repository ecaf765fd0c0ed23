//! What many clients did at once, recorded, and checked afterwards.
//!
//! A [`Recorder`] takes down what each client believed, when; [`check`] tells in `O(n log n)` whether any order of events
//! explains it under the rules of the lock. If none does, [`explain`] says why in words, and [`timeline`] draws it. One line
//! of JSON per event, so that histories of other programs can be checked too (`fencelock verify`).

mod check;
mod event;
mod explain;
#[cfg(test)]
mod generated;
mod recorder;
mod sweep;
#[cfg(test)]
mod tests;
mod timeline;
mod violation;

pub use self::check::{Options, Summary, check};
pub use self::event::{Act, Event, read_json_lines};
pub use self::explain::explain;
pub use self::recorder::{Recorder, Track};
pub use self::timeline::timeline;
pub use self::violation::Violation;
