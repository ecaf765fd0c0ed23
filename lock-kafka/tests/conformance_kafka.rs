//! The conformance suite on a real Kafka broker.

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    lock_conformance::run(harness::KafkaHarness::default())
}
