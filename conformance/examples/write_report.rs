//! Joins reports of the suite into one: `join_reports REPORT.json…` prints Markdown, and a line for each on stderr.

use std::error::Error;
use std::{env, fs};

use lock_conformance::report::{Report, to_markdown};

fn main() -> Result<(), Box<dyn Error>> {
    let mut reports = Vec::new();
    for path in env::args_os().skip(1) {
        let report = Report::from_json(&fs::read_to_string(path)?)?;
        eprintln!("{}", report.line());
        reports.push(report);
    }
    print!("{}", to_markdown(&reports));
    Ok(())
}
