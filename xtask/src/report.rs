//! `cargo xtask report`: what the conformance suite finds on every backend, as `docs/conformance.md`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::setup;

/// The crates that have the suite, which of their tests it is, and the names of their backends in it. A new backend is a new line.
const SUITES: &[(&str, &str, &str)] = &[
    ("lock-etcd", "conformance", "etcd"),
    ("lock-kafka", "conformance_kafka", "kafka"),
    ("lock-memory", "conformance", "memory"),
    ("lock-redis", "conformance", "redis"),
];

/// What stands above the tables.
const HEADING: &str = "# What the conformance suite finds\n\n\
    Each trial of the suite on each backend (`yes` is passed), and the mutants by which the suite itself is tried: backends that\n\
    are broken in one way each. The rules are those of [semantics.md](semantics.md). Written by `cargo xtask report`.\n\n";

/// What to do with the report.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if docs/conformance.md is not what the suite finds now
    #[arg(long)]
    check: bool,
}

/// Plays the suite on every backend and writes what it found; fails if anything did.
///
/// # Errors
/// When cargo cannot be run, or a file cannot be read or written.
pub(crate) fn run(args: &Args) -> io::Result<ExitCode> {
    let ready = setup::run()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    // Beside the programs that cargo builds, wherever that is.
    let folder = env::current_exe()?.with_file_name("conformance-report");
    let mut all_passed = true;
    let mut reports = Vec::new();
    for (package, test, backend) in SUITES {
        let report = folder.join(format!("{backend}.json"));
        remove_old(&report)?;
        let mut suite = cargo();
        suite.args(["test", "--package", package, "--test", test]);
        // A failure on one backend is no reason not to look at the next.
        all_passed &= suite.env("CONFORMANCE_REPORT", &folder).status()?.success();
        reports.push(report);
    }
    let found = [HEADING, &join(&reports)?].concat();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("conformance.md");
    if !args.check {
        fs::write(&file, found)?;
    } else if fs::read_to_string(&file).unwrap_or_default() != found {
        return Err(io::Error::other("docs/conformance.md is out of date: run cargo xtask report"));
    }
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an earlier run left must not pass for what this one found.
fn remove_old(report: &Path) -> io::Result<()> {
    match fs::remove_file(report) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The reports as one, in Markdown. The suite's crate does it: depending on it would make every chore wait for its build.
fn join(reports: &[PathBuf]) -> io::Result<String> {
    let mut join = cargo();
    join.args(["run", "--quiet", "--package", "lock-conformance", "--example", "join_reports", "--"]);
    let output = join.args(reports).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other("the reports could not be joined: see above"));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

fn cargo() -> Command {
    // Cargo tells the programs it runs where it is.
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(""));
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_with_the_suite_is_in_the_report() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let crates = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
        let mut with_suite: Vec<String> = crates
            .filter(|folder| {
                let is_there = |name: &str| folder.path().join("tests").join(name).exists();
                is_there("conformance.rs") || is_there("conformance_kafka.rs")
            })
            .map(|folder| folder.file_name().into_string().unwrap())
            .collect();
        with_suite.sort();
        assert_eq!(with_suite, SUITES.iter().map(|(package, ..)| *package).collect::<Vec<_>>());
    }
}
