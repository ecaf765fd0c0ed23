//! The conformance suite on the memory backend, under the paused clock.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::{Client, Harness, Hook, Link, Seclusion, Server, Timing};
use lock_memory::{Faults, MemoryServer};
use lockcore::Result;

struct MemoryHarness;

#[async_trait]
impl Harness for MemoryHarness {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn timing(&self) -> Timing {
        Timing::paused()
    }

    async fn open(&self, _seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        Ok(Arc::new(Memory(MemoryServer::new())))
    }
}

struct Memory(MemoryServer);

#[async_trait]
impl Server for Memory {
    fn version(&self) -> String {
        format!("memory {}", env!("CARGO_PKG_VERSION"))
    }

    async fn connect(&self) -> Result<Client> {
        Ok(self.0.client())
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let (client, faults) = self.0.client_with_faults();
        Ok((client, Box::new(MemoryLink(faults))))
    }

    async fn lose_state(&self) -> Hook {
        self.0.forget();
        Ok(())
    }

    // It keeps nothing over a restart, which takes its time.
    async fn restart(&self) -> Hook {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.lose_state().await
    }

    async fn keys_kept(&self) -> Hook<usize> {
        Ok(self.0.keys_kept())
    }
}

struct MemoryLink(Faults);

impl Link for MemoryLink {
    fn partition(&self, on: bool) -> Hook {
        self.0.partition(on);
        Ok(())
    }

    fn lose_replies(&self, on: bool) -> Hook {
        self.0.lose_replies(if on { usize::MAX } else { 0 });
        Ok(())
    }

    fn refuse(&self, on: bool) -> Hook {
        self.0.fail_next(if on { usize::MAX } else { 0 });
        Ok(())
    }

    fn delay(&self, by: Duration) -> Hook {
        self.0.delay(by);
        Ok(())
    }

    // A request that was under way when the connection was cut has arrived, and its answer is lost.
    fn sever(&self) -> Hook {
        self.0.lose_replies(1);
        Ok(())
    }
}

fn main() -> ExitCode {
    lock_conformance::run(MemoryHarness)
}
