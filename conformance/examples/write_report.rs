//! Makes one report of several: `write_report FOLDER REPORT.json…` writes to the folder of the project what the suite found on each
//! backend, and prints a line for each.
//!
//! | file | what |
//! |---|---|
//! | `docs/conformance.json` | the reports |
//! | `docs/conformance.md` | each trial on each backend |
//! | `README.md` | the table of guarantees, between its two marks |

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use lock_conformance::report::{Published, Report};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let mut reports = Vec::new();
    for path in arguments {
        let report = Report::from_json(&fs::read_to_string(path)?)?;
        println!("{}", report.line());
        reports.push(report);
    }
    Ok(Published::of(&reports, &folder)?.write()?)
}
