//! What each backend promises and was seen to keep, in one table.

use std::fmt::Write as _;

use super::markdown::cell;
use super::{Ended, Report};
use crate::rules::Rule;

/// The reports as one table of guarantees in Markdown: a column for each, a line for each promise.
#[must_use]
pub fn to_matrix(reports: &[Report]) -> String {
    let mut text = String::from("| |");
    let mut line = |head: &str, of: &dyn Fn(&Report) -> String| {
        if !head.is_empty() {
            // Writing to a string does not fail, here and below.
            let _ = write!(text, "\n| {head} |");
        }
        for report in reports {
            let _ = write!(text, " {} |", cell(&of(report)));
        }
        if head.is_empty() {
            let _ = write!(text, "\n|---|{}", "---|".repeat(reports.len()));
        }
    };
    line("", &|report| report.version.clone());
    line("trials passed, of those played", &|report| {
        let (passed, failed) = (report.count(Ended::Passed), report.count(Ended::Failed));
        format!("{passed} of {}", passed + failed)
    });
    line(&format!("rules kept, of {}", Rule::ALL.len()), &|report| kept(report).to_string());
    line("first come, first served", &|report| yes(report.promises.fair));
    line("a waiter is told of its turn", &|report| {
        if report.promises.push { "at once".into() } else { "when it asks again".into() }
    });
    line("upgrade and downgrade", &|report| yes(report.promises.convert));
    line("permits", &|report| yes(report.promises.permits));
    line("keys can be listed", &|report| yes(report.promises.list));
    line("tokens grow", &|report| report.promises.tokens.clone());
    line("the clock of leases", &|report| report.promises.clock.clone());
    line("shortest ttl", &|report| format!("{:?}", report.promises.min_ttl));
    text.push('\n');
    text
}

/// How many rules are cited by trials that were played, all of which passed.
fn kept(report: &Report) -> usize {
    let is_kept = |rule: &&Rule| {
        let name = rule.to_string();
        let mut shown = report.trials.iter().filter(|trial| trial.rules.contains(&name));
        shown.clone().any(|trial| trial.result == Ended::Passed)
            && shown.all(|trial| trial.result != Ended::Failed)
    };
    Rule::ALL.iter().filter(is_kept).count()
}

fn yes(promised: bool) -> String {
    if promised { "yes".into() } else { "**no**".into() }
}
