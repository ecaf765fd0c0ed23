//! What the suite found, as JSON and as Markdown.

mod markdown;
mod matrix;
mod published;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use lockcore::{Capabilities, LeaseClock, TokenStrength, Wake};
use serde::{Deserialize, Serialize};

pub use self::markdown::to_markdown;
pub use self::matrix::to_matrix;
pub use self::published::Published;

/// What the suite found on one version of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// Name and version of the server.
    pub version: String,
    /// What it declares, and the suite has held it to.
    pub promises: Promises,
    /// The seed of the run.
    pub seed: u64,
    /// One entry for each trial that was played.
    pub trials: Vec<Trial>,
    /// One entry for each mutant that was hunted.
    pub mutants: Vec<Mutant>,
}

/// What a backend declares in its [`Capabilities`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as those of `Capabilities`")]
pub struct Promises {
    /// Claims are granted in the order of their arrival.
    pub fair: bool,
    /// The server tells a waiter of its turn.
    pub push: bool,
    /// Guards change their mode.
    pub convert: bool,
    /// A bounded number of holders.
    pub permits: bool,
    /// Keys can be listed.
    pub list: bool,
    /// How far the growth of tokens can be relied on.
    pub tokens: String,
    /// Whose clock leases run on.
    pub clock: String,
    /// The shortest lease.
    pub min_ttl: Duration,
    /// A lock outlives the loss of one server.
    pub survives_failover: bool,
}

impl From<Capabilities> for Promises {
    fn from(declared: Capabilities) -> Promises {
        let tokens = match declared.tokens {
            TokenStrength::Strict => "always",
            TokenStrength::ClockOverLoss => "while the server keeps its data, or its clock does not go back",
        };
        let clock = match declared.clock {
            LeaseClock::Own => "the process's own",
            LeaseClock::ServerWall => "the server's, on the wall",
            LeaseClock::ServerMonotonic => "the server's, monotonic",
        };
        Promises {
            fair: declared.fair,
            push: declared.wake == Wake::Push,
            convert: declared.convert,
            permits: declared.permits,
            list: declared.list,
            tokens: tokens.into(),
            clock: clock.into(),
            min_ttl: declared.min_ttl,
            survives_failover: declared.survives_failover,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Capabilities {
        Capabilities {
            backend: "memory",
            fair: true,
            wake: Wake::Poll,
            convert: true,
            permits: true,
            list: false,
            tokens: TokenStrength::Strict,
            clock: LeaseClock::Own,
            min_ttl: Duration::from_millis(100),
            ttl_step: Duration::from_millis(1),
            survives_failover: false,
        }
    }

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
            promises: Promises::from(declared()),
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
    #[test]
    fn the_matrix_says_what_is_promised_and_shown() {
        let text = to_matrix(&[report()]);
        assert!(text.contains("| trials passed, of those played | 1 of 2 |"), "{text}");
        // S1 is cited by a trial that failed.
        assert!(text.contains("| rules kept, of 22 | 0 |"), "{text}");
        assert!(text.contains("| keys can be listed | **no** |"), "{text}");
        assert!(text.contains("| shortest ttl | 100ms |"), "{text}");
        let passes = Report { trials: report().trials[..1].to_vec(), ..report() };
        assert!(to_matrix(&[passes]).contains("| rules kept, of 22 | 1 |"));
    }
}
