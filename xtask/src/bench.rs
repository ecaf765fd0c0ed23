//! `cargo xtask bench`: how fast it is, beside what the same server can do at best.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

/// What goes to the benchmark.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Everything after `bench` goes to the benchmark: cargo xtask bench redis w1-16 w2; see bench --help"
)]
pub(crate) struct Args {
    /// Arguments for the benchmark: the backend, options and filters
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Builds the benchmark with all optimisations and runs it; gives its status.
///
/// # Errors
/// When cargo cannot be run.
pub(crate) fn run(args: &Args) -> io::Result<ExitCode> {
    // Cargo tells the programs it runs where it is.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "lock-bench", "--"]).args(&args.args);
    let status = command.status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
