//! What the suite found, as JSON and as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the suite found on one version of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// Name and version of the server.
    pub version: String,
    /// The seed of the run.
    pub seed: u64,
    /// One entry for each trial that was played.
    pub trials: Vec<Trial>,
    /// One entry for each mutant that was hunted.
    pub mutants: Vec<Mutant>,
}

/// One trial of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Its name, such as `s07_fifo_excl`.
    pub name: String,
    /// What it shows.
    pub says: String,
    /// The rules that it shows.
    pub rules: Vec<String>,
    /// `core` or `extended`.
    pub level: String,
    /// How it ended.
    pub result: Ended,
    /// Why it was ignored, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took.
    pub millis: u64,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The backend did what the rules say.
    Passed,
    /// It did not.
    Failed,
    /// It was not played.
    Ignored,
}

/// One mutant of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// The scenario that was to notice it.
    pub scenario: String,
    /// Whether it did.
    pub caught: bool,
    /// What it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl Report {
    /// How many trials ended in this way.
    #[must_use]
    pub fn count(&self, result: Ended) -> usize {
        self.trials.iter().filter(|trial| trial.result == result).count()
    }

    /// How many mutants were caught.
    #[must_use]
    pub fn caught(&self) -> usize {
        self.mutants.iter().filter(|mutant| mutant.caught).count()
    }

    /// The result in one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} ({}): {} passed, {} failed, {} ignored; mutants caught {}/{}",
            self.backend,
            self.version,
            self.count(Ended::Passed),
            self.count(Ended::Failed),
            self.count(Ended::Ignored),
            self.caught(),
            self.mutants.len(),
        )
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// None that is known; serialising may not promise that.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Reads what [`to_json`](Report::to_json) wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(text: &str) -> serde_json::Result<Report> {
        serde_json::from_str(text)
    }

    /// Writes `<backend>.json` and `<backend>.md` into the folder, which is made if need be.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_to(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let name: String =
            self.backend.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
        fs::write(folder.join(format!("{name}.json")), self.to_json()?)?;
        fs::write(folder.join(format!("{name}.md")), to_markdown(std::slice::from_ref(self)))
    }
}

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
        let _ = write!(text, " {} |", cell(&report.backend));
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

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let trial = |name: &str, result, reason: Option<&str>| Trial {
            name: name.into(),
            says: "one | two".into(),
            rules: vec!["S1".into()],
            level: "core".into(),
            result,
            reason: reason.map(Into::into),
            millis: 3,
        };
        Report {
            backend: "memory".into(),
            version: "memory 0.1".into(),
            seed: 7,
            trials: vec![
                trial("s01_a", Ended::Passed, None),
                trial("s02_b", Ended::Ignored, Some("cannot")),
                trial("s03_c", Ended::Failed, Some("bad")),
            ],
            mutants: vec![Mutant { name: "m".into(), scenario: "s01_a".into(), caught: true, said: None }],
        }
    }

    #[test]
    fn json_comes_back() {
        let report = report();
        assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    }

    #[test]
    fn markdown_has_one_line_per_backend() {
        let text =
            to_markdown(&[report(), Report { backend: "redis".into(), trials: Vec::new(), ..report() }]);
        assert!(text.contains("| memory | memory 0.1 | 1 | 1 | 1 | 1/1 |"), "{text}");
        assert!(text.contains("| redis | memory 0.1 | 0 | 0 | 0 | 1/1 |"), "{text}");
        assert!(text.contains("| s02_b | one \\| two | S1 | ignored: cannot | – |"), "{text}");
        assert!(report().line().ends_with("mutants caught 1/1"));
    }
}
