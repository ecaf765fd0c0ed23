//! Plays one scenario against one harness.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::harness::{Harness, Timing};
use crate::history::Recorder;
use crate::outcome::{Outcome, Stop};
use crate::scene::Scene;
use crate::table::Scenario;

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend did what the rules say.
    Passed,
    /// It was not played, for this reason.
    Skipped(String),
    /// It did not, in this way.
    Failed(String),
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Verdict {
        match outcome {
            Ok(()) => Verdict::Passed,
            Err(Stop::Skipped(reason)) => Verdict::Skipped(reason),
            Err(Stop::Failed(message)) => Verdict::Failed(message),
        }
    }
}

/// A trial that takes longer hangs: so long, or so many units. Under a paused clock it is virtual time.
const LONGEST_TRIAL: Duration = Duration::from_secs(120);
const LONGEST_TRIAL_UNITS: u32 = 150;
const LONGEST_PAUSED_TRIAL: Duration = Duration::from_secs(30 * 24 * 3600);

/// The runtime of one trial.
pub(crate) fn runtime(timing: Timing) -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(timing.paused).build()
}

/// Plays `scenario` on a runtime of its own. A failure says how to replay it.
#[must_use]
pub fn play(harness: &Arc<dyn Harness>, scenario: &Scenario, seed: u64) -> Verdict {
    let timing = harness.timing();
    let mut history = None;
    let outcome = alone(timing, async {
        let server = harness.open(scenario.seclusion).await?;
        let capabilities = server.connect().await?.capabilities();
        if let Some(missing) = scenario.needs.iter().find(|need| !need.is_met_by(&capabilities)) {
            return Err(Stop::Skipped(missing.reason().to_owned()));
        }
        let scene = Scene::new(timing, server, capabilities, &scenario.label(), seed);
        history = Some(scene.history.clone());
        (scenario.play)(&scene).await
    });
    match Verdict::from(outcome) {
        fine @ (Verdict::Passed | Verdict::Skipped(_)) => fine,
        Verdict::Failed(message) => {
            let rules: Vec<String> = scenario.rules.iter().map(|r| format!("{r} ({})", r.text())).collect();
            let mut text = format!(
                "{message}\n  scenario {}: {}\n  rules: {}\n  again: SEED={seed} cargo test --test conformance -- {}",
                scenario.id,
                scenario.says,
                rules.join(", "),
                scenario.label(),
            );
            for event in history.iter().flat_map(Recorder::events) {
                text.push_str("\n  ");
                text.push_str(&event.to_json());
            }
            Verdict::Failed(text)
        }
    }
}

/// Runs one trial on a runtime of its own, for a bounded time; a panic is a failure.
pub(crate) fn alone<T>(timing: Timing, trial: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime =
        runtime(timing).map_err(|error| Stop::failed(format_args!("no runtime for the trial: {error}")))?;
    let longest = LONGEST_TRIAL.max(timing.unit * LONGEST_TRIAL_UNITS);
    let limit = if timing.paused { LONGEST_PAUSED_TRIAL } else { longest };
    let bounded = async {
        match timeout(limit, trial).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Stop::failed(format_args!("it hangs: no end after {limit:?}"))),
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(bounded)));
    // A blocking call that hangs must not hang the suite.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|panic| Err(Stop::Failed(format!("it panicked: {}", panic_text(&*panic)))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}
