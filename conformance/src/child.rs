//! The process that holds a lock, or waits for one, and is killed: the test's own executable, started again.

use std::env;
use std::io::{self, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use lockcore::LockClient;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::harness::Harness;

/// The environment variable that makes the executable such a process, with its [`Part`] as JSON.
const VARIABLE: &str = "LOCK_CONFORMANCE_CHILD";

/// What the process does: it acquires, exclusively, and holds until it is killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) address: String,
    pub(crate) key: String,
    pub(crate) ttl: Duration,
    pub(crate) waiter_ttl: Duration,
    pub(crate) owner: String,
}

/// Starts the process. It ends by itself when this one does.
pub(crate) fn start(part: &Part) -> io::Result<Child> {
    Command::new(env::current_exe()?)
        .env(VARIABLE, serde_json::to_string(part)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
}

/// Plays the part that the environment asks for; `None` when it asks for none.
pub(crate) fn play(harness: &Arc<dyn Harness>) -> Option<ExitCode> {
    let part = env::var(VARIABLE).ok()?;
    // The pipe is closed when whoever started this process is gone, however it went.
    thread::spawn(|| {
        let _end = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    match hold(harness, &part) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("the process that was to hold a lock could not: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

enum Never {}

fn hold(harness: &Arc<dyn Harness>, part: &str) -> Result<Never, Box<dyn std::error::Error>> {
    let part: Part = serde_json::from_str(part)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let backend = harness.connect_to(&part.address).await?;
        let client = LockClient::builder(backend).waiter_ttl(part.waiter_ttl).build();
        let guard = client.lock(part.key)?.exclusive().ttl(part.ttl).owner(part.owner).acquire().await?;
        let loss = guard.lost().await;
        Err(format!("its lock was lost: {loss}").into())
    })
}
