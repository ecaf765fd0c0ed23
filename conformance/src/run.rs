//! The suite's main function.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::cancel;
use crate::harness::{Harness, Seclusion};
use crate::mutants::{Mutant, hunt};
use crate::outcome::Outcome;
use crate::play::{Verdict, alone, play};
use crate::property;
use crate::report::{self, Ended, Promises, Report};
use crate::rules::Rule;
use crate::table::{Level, SCENARIOS};

/// Runs the suite against a backend, as the main function of a test without the built-in runner.
///
/// It goes on after a failure. The arguments are those of `cargo test`, and `--report FOLDER`, which writes what was found as
/// JSON and Markdown; so does `CONFORMANCE_REPORT=FOLDER`.
pub fn run(harness: impl Harness) -> ExitCode {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    if let Some(code) = crate::child::play(&harness) {
        return code;
    }
    let (folder, arguments) = report_folder(env::args().collect());
    let mut arguments = Arguments::from_iter(arguments);
    if !harness.timing().paused && arguments.test_threads.is_none() {
        arguments.test_threads = Some(harness.side_by_side());
    }
    let seed = match env::var("SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => seed,
        Ok(Err(error)) => {
            eprintln!("SEED is a number: {error}");
            return ExitCode::FAILURE;
        }
        Err(_) => fastrand::u64(..1_000_000),
    };
    let suite = Suite { harness, seed, trials: Arc::default(), mutants: Arc::default() };
    let conclusion = libtest_mimic::run(&arguments, suite.trials());
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let report = match suite.report() {
        Ok(report) => report,
        Err(stop) => {
            eprintln!("no report, for the server cannot be asked what it is: {stop}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", report.line());
    if let Some(folder) = folder
        && let Err(error) = report.write_to(&folder)
    {
        eprintln!("no report in {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Takes `--report FOLDER` out of the arguments.
fn report_folder(arguments: Vec<String>) -> (Option<PathBuf>, Vec<String>) {
    let mut folder = env::var_os("CONFORMANCE_REPORT").map(PathBuf::from);
    let mut rest = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--report" {
            folder = arguments.next().map(PathBuf::from);
        } else if let Some(path) = argument.strip_prefix("--report=") {
            folder = Some(PathBuf::from(path));
        } else {
            rest.push(argument);
        }
    }
    (folder, rest)
}

/// What is played, and what came of it so far.
struct Suite {
    harness: Arc<dyn Harness>,
    seed: u64,
    trials: Arc<Mutex<Vec<report::Trial>>>,
    mutants: Arc<Mutex<Vec<report::Mutant>>>,
}

/// What the report says of a trial besides its result.
struct About {
    name: String,
    says: String,
    rules: Vec<Rule>,
    level: Level,
}

impl Suite {
    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        let all = self.harness.level() == Level::Extended;
        // They take longest on a real server, so they begin first.
        for case in cancel::CASES.iter().filter(|_| all) {
            let about = About {
                name: case.label(),
                says: format!("{} is dropped at every poll and leaves nothing behind", case.name),
                rules: vec![Rule::S18],
                level: Level::Extended,
            };
            let harness = self.harness.clone();
            trials.push(self.trial(about, move || Verdict::from(cancel::play(&harness, case))));
        }
        for scenario in SCENARIOS.iter().filter(|scenario| all || scenario.level == Level::Core) {
            let about = About {
                name: scenario.label(),
                says: scenario.says.into(),
                rules: scenario.rules.to_vec(),
                level: scenario.level,
            };
            let (harness, seed) = (self.harness.clone(), self.seed);
            trials.push(self.trial(about, move || play(&harness, scenario, seed)));
        }
        let about = About {
            name: property::LABEL.into(),
            says: "random commands are answered as the state machine answers them".into(),
            rules: property::RULES.to_vec(),
            level: Level::Core,
        };
        let (harness, seed) = (self.harness.clone(), self.seed);
        trials.push(self.trial(about, move || Verdict::from(property::play(&harness, seed))));
        trials.extend(Mutant::ALL.iter().filter(|_| all).map(|&mutant| self.hunt(mutant)));
        trials
    }

    fn trial(&self, about: About, run: impl FnOnce() -> Verdict + Send + 'static) -> Trial {
        let results = self.trials.clone();
        Trial::ignorable_test(about.name.clone(), move || {
            let start = tokio::time::Instant::now();
            let verdict = run();
            let (result, reason) = match &verdict {
                Verdict::Passed => (Ended::Passed, None),
                Verdict::Skipped(reason) => (Ended::Ignored, Some(reason.clone())),
                Verdict::Failed(message) => (Ended::Failed, message.lines().next().map(ToOwned::to_owned)),
            };
            results.lock().unwrap_or_else(PoisonError::into_inner).push(report::Trial {
                name: about.name,
                says: about.says,
                rules: about.rules.iter().map(ToString::to_string).collect(),
                level: match about.level {
                    Level::Core => "core".into(),
                    Level::Extended => "extended".into(),
                },
                result,
                reason,
                millis: millis(start.elapsed()),
            });
            match verdict {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Skipped(reason) => Ok(Completion::ignored_with(reason)),
                Verdict::Failed(message) => Err(Failed::from(message)),
            }
        })
    }

    /// That the suite notices a mutant, which has nothing to do with the backend.
    fn hunt(&self, mutant: Mutant) -> Trial {
        let results = self.mutants.clone();
        Trial::test(format!("mutant_{}", mutant.name()), move || {
            let hunted = hunt(mutant);
            let caught = hunted.caught.is_some();
            results.lock().unwrap_or_else(PoisonError::into_inner).push(report::Mutant {
                name: mutant.name().into(),
                scenario: hunted.scenario.clone(),
                caught,
                said: hunted.caught,
            });
            if caught { Ok(()) } else { Err(format!("{} did not notice it", hunted.scenario).into()) }
        })
    }

    fn report(&self) -> Outcome<Report> {
        let (version, promises) = alone(self.harness.timing(), async {
            let server = self.harness.open(Seclusion::Shared).await?;
            let promises = Promises::from(server.connect().await?.capabilities());
            Ok((server.version(), promises))
        })?;
        let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // In the order of the table, whichever was done first.
        let order = |name: &str| SCENARIOS.iter().position(|scenario| scenario.label() == name);
        trials.sort_by_cached_key(|trial| (order(&trial.name).unwrap_or(usize::MAX), trial.name.clone()));
        let mut mutants = self.mutants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        mutants.sort_by_cached_key(|mutant| {
            Mutant::ALL.iter().position(|&each| each.name() == mutant.name).unwrap_or(usize::MAX)
        });
        let backend = self.harness.name().into();
        Ok(Report { backend, version, promises, seed: self.seed, trials, mutants })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
