//! What was found, trial by trial, as Markdown.

use std::fmt::Write as _;

use super::{Ended, Report, Trial};

/// Several reports as Markdown: one line for each backend and version, then what each scenario found.
#[must_use]
pub fn to_markdown(reports: &[Report]) -> String {
    let mut text = String::from(
        "| backend | server | passed | failed | ignored | mutants caught |\n|---|---|---|---|---|---|\n",
    );
    for report in reports {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {}/{} |",
            cell(&report.backend),
            cell(&report.version),
            report.count(Ended::Passed),
            report.count(Ended::Failed),
            report.count(Ended::Ignored),
            report.caught(),
            report.mutants.len(),
        );
    }
    text.push_str("\n| trial | shows | rules |");
    for report in reports {
        let _ = write!(text, " {} |", cell(&report.version));
    }
    text.push_str("\n|---|---|---|");
    text.push_str(&"---|".repeat(reports.len()));
    let mut shown: Vec<&str> = Vec::new();
    for trial in reports.iter().flat_map(|report| &report.trials) {
        if shown.contains(&trial.name.as_str()) {
            continue;
        }
        shown.push(&trial.name);
        let _ = write!(text, "\n| {} | {} | {} |", trial.name, cell(&trial.says), trial.rules.join(" "));
        for report in reports {
            let found = report.trials.iter().find(|each| each.name == trial.name);
            let _ = write!(text, " {} |", found.map_or_else(|| "–".into(), result));
        }
    }
    if let Some(report) = reports.iter().find(|report| !report.mutants.is_empty()) {
        text.push_str("\n\n| mutant | caught by |\n|---|---|");
        for mutant in &report.mutants {
            let by = if mutant.caught { mutant.scenario.as_str() } else { "**nothing**" };
            let _ = write!(text, "\n| {} | {by} |", mutant.name);
        }
    }
    text.push('\n');
    text
}

fn result(trial: &Trial) -> String {
    match trial.result {
        Ended::Passed => "yes".into(),
        Ended::Failed => "**no**".into(),
        Ended::Ignored => format!("ignored: {}", cell(trial.reason.as_deref().unwrap_or("no reason"))),
    }
}

pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
