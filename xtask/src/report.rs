//! `cargo xtask report`: what the conformance suite finds on every backend and version of a server, as documents.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::setup;

/// The crates that have the suite, which of their tests it is, and the names of their backends in it. A new backend is a new line.
const SUITES: &[(&str, &str, &str)] = &[
    ("lock-memory", "conformance", "memory"),
    ("lock-redis", "conformance", "redis"),
    ("lock-etcd", "conformance", "etcd"),
    ("lock-etcd", "conformance_3_4", "etcd"),
    ("lock-kafka", "conformance_kafka", "kafka"),
];

/// Plays the suite on every backend and writes what it found; fails if anything did.
///
/// # Errors
/// When cargo cannot be run, or a file cannot be read or written.
pub(crate) fn run() -> io::Result<ExitCode> {
    let ready = setup::run()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    // Beside the programs that cargo builds, wherever that is.
    let folder = env::current_exe()?.with_file_name("conformance-report");
    let mut all_passed = true;
    let mut reports = Vec::new();
    for (package, test, backend) in SUITES {
        let folder = folder.join(package).join(test);
        let report = folder.join(format!("{backend}.json"));
        remove_old(&report)?;
        let mut suite = cargo();
        suite.args(["test", "--package", package, "--test", test]);
        // A failure on one backend is no reason not to look at the next.
        all_passed &= suite.env("CONFORMANCE_REPORT", &folder).status()?.success();
        reports.push(report);
    }
    write(&reports)?;
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an earlier run left must not pass for what this one found.
fn remove_old(report: &Path) -> io::Result<()> {
    match fs::remove_file(report) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The reports as the documents of the project. The suite's crate does it: depending on it would make every chore wait for its build.
fn write(reports: &[PathBuf]) -> io::Result<()> {
    let mut write = cargo();
    write.args(["run", "--quiet", "--package", "lock-conformance", "--example", "write_report", "--"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("");
    if !write.arg(root).args(reports).status()?.success() {
        return Err(io::Error::other("the reports could not be written: see above"));
    }
    Ok(())
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
        let mut reported: Vec<&str> = SUITES.iter().map(|(package, ..)| *package).collect();
        reported.sort_unstable();
        reported.dedup();
        assert_eq!(with_suite, reported);
    }
}
