//! Random commands, and the state machine that says what their answers are.
//!
//! The backend and a [`LockState`](lockcore::state::LockState) are given the same commands. Under a paused clock they must
//! agree to the smallest step of a lease; on a real server in everything but the exact microsecond: who holds, who waits, in
//! which order, with tokens in the same order.

mod command;
mod model;

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::command::{CLAIMS, Command, Shape, command, shape};
use self::model::Both;
use crate::harness::{Harness, Seclusion};
use crate::outcome::{Outcome, Stop};
use crate::play::alone;
use crate::rules::Rule;

/// The name of the trial.
pub(crate) const LABEL: &str = "p01_random_commands";

/// What a backend decides by itself; the rest is the client's.
pub(crate) const RULES: &[Rule] = {
    use Rule::{S2, S3, S4, S6, S7, S9, S12, S14, S15, S16, S17, S21};
    &[S2, S3, S4, S6, S7, S9, S12, S14, S15, S16, S17, S21]
};

/// How many sequences are tried, and how long they are.
const CASES: u32 = 400;
const REAL_CASES: u32 = 25;
const COMMANDS: usize = 40;

/// Plays random sequences; a failure shows the shortest one that was found.
pub(crate) fn play(harness: &Arc<dyn Harness>, seed: u64) -> Outcome {
    let paused = harness.timing().paused;
    let config = Config {
        cases: if paused { CASES } else { REAL_CASES },
        max_shrink_iters: if paused { 2000 } else { 60 },
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    // Real time must not pass too often.
    let steps = if harness.timing().exact { 4 } else { 2 };
    let cases = (vec(shape(), CLAIMS), vec(command(steps), 1..COMMANDS));
    let ran = runner.run(&cases, |(shapes, commands)| {
        match one(harness, &shapes, &commands) {
            Ok(()) => Ok(()),
            // Nothing can be told of a sequence during which the machine was too slow.
            Err(Stop::Skipped(reason)) => Err(TestCaseError::reject(reason)),
            Err(Stop::Failed(message)) => Err(TestCaseError::fail(message)),
        }
    });
    match ran {
        Ok(()) => Ok(()),
        Err(TestError::Abort(reason)) => Err(Stop::failed(format_args!("given up: {reason}"))),
        Err(TestError::Fail(reason, (shapes, commands))) => {
            // Writing to a string does not fail.
            let mut text = format!("{reason}\n  claims:");
            for (number, shape) in shapes.iter().enumerate() {
                let _ = write!(text, "\n    {number}: {shape:?}");
            }
            text.push_str("\n  commands:");
            for command in &commands {
                let _ = write!(text, "\n    {command:?}");
            }
            let _ = write!(text, "\n  again: SEED={seed} cargo test --test conformance -- {LABEL}");
            Err(Stop::Failed(text))
        }
    }
}

fn one(harness: &Arc<dyn Harness>, shapes: &[Shape], commands: &[Command]) -> Outcome {
    alone(harness.timing(), async {
        let server = harness.open(Seclusion::Shared).await?;
        let mut both = Both::new(harness.timing(), server.connect().await?, shapes)?;
        for (number, &command) in commands.iter().enumerate() {
            both.play(command).await.map_err(|stop| match stop {
                Stop::Failed(message) => Stop::Failed(format!("command {number} ({command:?}): {message}")),
                skipped @ Stop::Skipped(_) => skipped,
            })?;
        }
        both.compare_all().await
    })
}
