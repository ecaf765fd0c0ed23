//! The core of the conformance suite on etcd 3.4, the oldest that is promised to work.

mod harness;

use std::process::ExitCode;

use testbed::EtcdVersion;

fn main() -> ExitCode {
    lock_conformance::run(harness::EtcdHarness::new(Some(EtcdVersion::Installed)))
}
