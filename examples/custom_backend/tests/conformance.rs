//! The conformance suite on the backend of this example.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custom_backend::SqliteBackend;
use lock_conformance::{Client, Harness, Hook, Seclusion, Server, Timing};
use lockcore::{Error, ErrorKind, Result};
use tempfile::TempDir;

struct SqliteHarness;

/// A file in a folder that is removed with it.
struct File(TempDir);

impl File {
    fn path(&self) -> PathBuf {
        self.0.path().join("locks.sqlite")
    }
}

#[async_trait]
impl Harness for SqliteHarness {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn timing(&self) -> Timing {
        Timing::real(Duration::from_millis(500))
    }

    async fn open(&self, _seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        let folder = TempDir::new().map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        Ok(Arc::new(File(folder)))
    }

    async fn connect_to(&self, address: &str) -> Hook<Client> {
        Ok(SqliteBackend::open(address.as_ref())?)
    }
}

#[async_trait]
impl Server for File {
    fn version(&self) -> String {
        format!("SQLite {}", rusqlite::version())
    }

    async fn connect(&self) -> Result<Client> {
        Ok(SqliteBackend::open(&self.path())?)
    }

    // Processes of the suite's own hold locks, and are killed and stopped.
    fn address(&self) -> Hook<String> {
        Ok(self.path().display().to_string())
    }
}

fn main() -> ExitCode {
    lock_conformance::run(SqliteHarness)
}
