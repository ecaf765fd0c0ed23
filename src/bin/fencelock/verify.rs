//! `fencelock verify`: whether a history can be that of a lock.

use std::fs;
use std::io::{self, Read as _};
use std::time::Duration;

use lock_conformance::history::{Options, Summary, check, explain, read_json_lines, timeline};
use serde_json::json;

use crate::cli::VerifyArgs;
use crate::exit::{Failure, NOT_EXPLAINED};
use crate::look::print;

/// Checks the history, and says what is wrong with it.
pub(crate) fn verify(args: &VerifyArgs) -> Result<u8, Failure> {
    let name = args.history.display();
    let text = if args.history.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(&args.history)
    };
    let text = text.map_err(|error| Failure::own(format!("cannot read {name}: {error}")))?;
    let events = read_json_lines(&text)
        .map_err(|(line, error)| Failure::own(format!("{name}, line {line}, is no event: {error}")))?;
    let options = Options { fair: args.fair, complete: args.complete, drained_within: args.drained_within };
    let violation = match check(&events, options) {
        Ok(summary) => return print(&if args.json { as_json(&summary) } else { as_text(&summary) }),
        Err(violation) => violation,
    };
    if let Some(path) = &args.svg {
        fs::write(path, timeline(&events, &violation))
            .map_err(|error| Failure::own(format!("cannot write {}: {error}", path.display())))?;
    }
    print(&if args.json {
        let rule = violation.rule().map(|rule| rule.to_string());
        let says = violation.to_string();
        let wrong = json!({ "says": says, "rule": rule, "attempts": violation.attempts() });
        format!("{:#}\n", json!({ "explained": false, "violation": wrong }))
    } else {
        explain(&events, &violation) + "\n"
    })?;
    Ok(NOT_EXPLAINED)
}

fn as_text(summary: &Summary) -> String {
    let Summary { events, attempts, grants, longest_wait } = *summary;
    let longest = Duration::from_nanos(longest_wait);
    format!("in order: {events} events, {attempts} attempts, {grants} grants, the longest wait {longest:?}\n")
}

fn as_json(summary: &Summary) -> String {
    let Summary { events, attempts, grants, longest_wait } = *summary;
    let wait_us = longest_wait / 1_000;
    let found = json!({ "explained": true, "events": events, "attempts": attempts, "grants": grants, "longest_wait_us": wait_us });
    format!("{found:#}\n")
}
