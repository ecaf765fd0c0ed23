//! The protocol on a log that is simulated: random histories of one partition, random work of whole clients over a log that
//! lies, and every order of a few records.
//!
//! | variable | effect |
//! |---|---|
//! | `SEED=…` | plays this seed only, as a failure prints it |
//! | `SEEDS=start..end` | plays these |
//!
//! A seed fixes the work, the faults and their times; of whole clients it does not fix the ids of sessions, nor the order in which
//! some tasks run that wake at one moment.

mod answers;
mod checkpoints;
mod client;
mod faulty;
mod histories;
mod newcomers;
mod oracle;
mod orders;
mod play;
mod proposals;
mod sessions;
mod speaker;
mod store;
mod stories;

use lock_conformance::simulation::seeds;

/// Runs a play by itself, in time that passes only when nobody has anything to do.
fn in_paused_time<T>(play: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(play)
}

#[test]
fn nobody_is_inside_with_another_whatever_the_log_does() {
    let (mut grants, mut attempts) = (0, 0);
    for seed in seeds(0..100) {
        match play::play(seed) {
            Ok(summary) => {
                grants += summary.grants;
                attempts += summary.attempts;
            }
            Err(wrong) => panic!(
                "{wrong}\n  again: SEED={seed} cargo test -p lock-kafka --lib -- nobody_is_inside_with_another"
            ),
        }
    }
    println!("{grants} grants of {attempts} attempts");
    assert!(grants > 0);
}
