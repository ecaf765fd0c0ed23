//! `cargo xtask test`: every test of the workspace, on a machine that has what they need.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use crate::setup;

/// What goes to `cargo test`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Everything after `test` goes to `cargo test --all-features` as it is, `--` included:\n  \
    cargo xtask test -p lock-redis\n  cargo xtask test -- --nocapture"
)]
pub(crate) struct Args {
    /// Arguments for `cargo test`; without `-p` it tests the whole workspace
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Does the set-up, then runs `cargo test`; gives the status of whichever failed.
///
/// # Errors
/// When a program that it needs cannot be run.
pub(crate) fn run(args: &Args) -> io::Result<ExitCode> {
    let ready = setup::run()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    // Cargo tells the programs it runs where it is.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(cargo_args(&verbatim(&args.args))).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Gives back the `--` that the parser of *our* arguments takes for its own when it comes first.
fn verbatim(args: &[OsString]) -> Vec<OsString> {
    let given: Vec<OsString> = env::args_os().collect();
    let with_dashes = given.len().checked_sub(args.len() + 1).filter(|at| given[*at] == "--");
    with_dashes.into_iter().map(|_| "--".into()).chain(args.iter().cloned()).collect()
}

fn cargo_args(args: &[OsString]) -> Vec<OsString> {
    // `--workspace` beside `-p` would test everything all the same.
    let selects = args
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg.to_str().is_some_and(|arg| arg.starts_with("-p") || arg.starts_with("--package")));
    let scope =
        if selects { &["test", "--all-features"][..] } else { &["test", "--workspace", "--all-features"] };
    scope.iter().map(OsString::from).chain(args.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &[&str]) -> String {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        cargo_args(&args).join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn the_whole_workspace_unless_a_package_is_named() {
        assert_eq!(line(&[]), "test --workspace --all-features");
        assert_eq!(line(&["-p", "lockcore", "state"]), "test --all-features -p lockcore state");
        assert_eq!(line(&["--package=lockcore"]), "test --all-features --package=lockcore");
        assert_eq!(line(&["--", "-p"]), "test --workspace --all-features -- -p");
    }
}
