//! The chores of this repository: `cargo xtask <chore>`.

mod bench;
mod report;
mod servers;
mod setup;
mod test;

use std::io;
use std::process::ExitCode;

use clap::Parser;

/// The chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Chore {
    /// Install what the tests need and this machine lacks
    Setup,
    /// Do the set-up, then run the tests of every crate with every feature
    Test(test::Args),
    /// Measure how fast it is, beside what the same server can do at best
    Bench(bench::Args),
    /// Play the conformance suite on every backend, and write what it finds to docs/ and the README
    Report,
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Setup => setup::run(),
        Chore::Test(args) => test::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Report => report::run(),
    };
    done.unwrap_or_else(|error: io::Error| {
        eprintln!("cargo xtask: {error}");
        ExitCode::FAILURE
    })
}
