//! The conformance suite on a real etcd server, the newest that is there.

mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    lock_conformance::run(harness::EtcdHarness::new(None))
}
