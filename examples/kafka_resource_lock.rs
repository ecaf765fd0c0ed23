//! The program of the article "Implementing distributed resource locks", on a lock that excludes.
//!
//! Start it in two shells: the second one waits until the first one is done.
//!
//! `cargo run --features kafka --example kafka_resource_lock -- kafka://localhost:9092/resource_lock`

use std::collections::HashMap;
use std::env;
use std::time::Duration;

use fencelock::{Error, ErrorKind, Exclusive, LockClient, LockGuard, Result};

/// Locks on one topic, each by an identifier of the caller's choice.
struct DistributedLock {
    locks: LockClient,
    held: HashMap<String, LockGuard<Exclusive>>,
}

impl DistributedLock {
    /// Connects to the topic, which is made if it is not there.
    async fn new(url: &str) -> Result<DistributedLock> {
        Ok(DistributedLock { locks: fencelock::connect(url).await?, held: HashMap::new() })
    }

    /// Waits until nobody else holds this identifier.
    async fn acquire_lock(&mut self, identifier: &str) -> Result<()> {
        let guard = self.locks.lock(identifier)?.exclusive().acquire().await?;
        self.held.insert(identifier.to_owned(), guard);
        Ok(())
    }

    /// Lets the next one in.
    async fn release_lock(&mut self, identifier: &str) -> Result<()> {
        let guard = self.held.remove(identifier);
        guard.ok_or_else(|| Error::new(ErrorKind::Lost, "it is not held"))?.release().await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = env::args().nth(1).unwrap_or_else(|| "kafka://localhost:9092/resource_lock".to_owned());
    let mut lock = DistributedLock::new(&url).await?;
    let identifier = "example_identifier";

    println!("Acquiring lock...");
    lock.acquire_lock(identifier).await?;
    println!("Lock acquired!");

    // The work on the resource.
    tokio::time::sleep(Duration::from_secs(3)).await;

    println!("Releasing lock...");
    lock.release_lock(identifier).await?;
    println!("Lock released!");
    Ok(())
}
