//! Locks at work with nothing installed: contention, hand-over, expiry and fencing on the memory backend.
//!
//! `cargo run --features memory --example quickstart`

use std::time::Duration;

use fencelock::memory::MemoryServer;
use fencelock::{FenceGate, LockClient, Renew, Result};

/// Two processes, for the purpose of this example: two clients of one server.
fn two_clients() -> (LockClient, LockClient, fencelock::memory::Faults) {
    let server = MemoryServer::new();
    let (backend, faults) = server.client_with_faults();
    (LockClient::new(backend), LockClient::new(server.client()), faults)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (web, worker, network) = two_clients();
    let key = "invoices/2026-11";

    println!("— Contention: the second is told who is in the way.");
    let held = web.lock(key)?.exclusive().owner("web-1").note("nightly export").acquire().await?;
    println!("web-1 holds {key:?} with token {}", held.token());
    let lock = worker.lock(key)?;
    let busy = lock.exclusive().wait(Duration::from_millis(200)).acquire().await;
    match busy {
        Ok(_) => println!("worker: got it, which must not be"),
        Err(error) => println!("worker: {error}"),
    }

    println!("\n— Hand-over: a release is the grant of the next in the queue.");
    let waiting = lock.exclusive().owner("worker-7").acquire();
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        println!("web-1 releases");
        held.release().await
    };
    let (next, released) = tokio::join!(waiting, release);
    released?;
    let next = next?;
    println!("worker-7 holds it with token {}", next.token());
    next.release().await?;

    println!("\n— Shared: readers together, the writer alone.");
    let (one, two) = (lock.shared().acquire().await?, web.lock(key)?.shared().acquire().await?);
    println!("two readers, tokens {} and {}", one.token(), two.token());
    println!(
        "a writer that tries now gets {:?}",
        lock.exclusive().try_acquire().await?.map(|guard| guard.token())
    );
    one.release().await?;
    two.release().await?;

    println!("\n— Expiry and fencing: a holder that the network has cut off.");
    let gate = FenceGate::new();
    let stale =
        web.lock(key)?.exclusive().ttl(Duration::from_millis(300)).renew(Renew::Manual).acquire().await?;
    gate.enter(stale.fence()).map_err(rejected)?;
    println!("web-1 holds token {} and writes: accepted", stale.token());
    network.partition(true);
    println!("web-1 is cut off; it knows at its own deadline: {}", stale.lost().await);
    let fresh = lock.exclusive().acquire().await?;
    gate.enter(fresh.fence()).map_err(rejected)?;
    println!("worker-7 holds token {} and writes: accepted", fresh.token());
    match gate.check(stale.fence()) {
        Ok(()) => println!("web-1 writes once more: accepted, which must not be"),
        Err(refused) => println!("web-1 writes once more, late: refused, {refused}"),
    }
    fresh.release().await
}

fn rejected(fenced: fencelock::Fenced) -> fencelock::Error {
    fencelock::Error::new(fencelock::ErrorKind::Lost, "refused at the gate").with_source(fenced)
}
