//! W4: many locks held and renewed, and many waiters that only wait.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{LockBackend, LockClient};
use tokio::task::JoinSet;

use crate::Result;
use crate::clock::{cpu_nanos, float, nanos, seconds};
use crate::counted::Counted;
use crate::report::Line;
use crate::server::{Counted as ServerCounted, Counting, Server};

/// What is held.
pub(crate) struct Hold {
    pub(crate) locks: u64,
    pub(crate) ttl: Duration,
    pub(crate) seconds: Duration,
}

/// What holding cost.
pub(crate) struct Seen {
    pub(crate) locks: u64,
    pub(crate) fill_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) requests: u64,
    pub(crate) renewed: u64,
    pub(crate) lost: u64,
    pub(crate) server: Option<ServerCounted>,
}

/// So many tasks fill.
const FILLERS: u64 = 64;

/// Acquires the locks, holds them for a while, and counts from when all are held.
pub(crate) async fn run(
    backend: Arc<dyn LockBackend>,
    hold: &Hold,
    server: Option<&dyn Server>,
) -> Result<Seen> {
    let counted = Counted::new(backend);
    let locks = LockClient::builder(counted.clone()).ttl(hold.ttl).build();
    let began = nanos();
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let (locks, count) = (locks.clone(), hold.locks);
        fillers.spawn(async move {
            let mut guards = Vec::new();
            for index in (filler..count).step_by(64) {
                guards.push(locks.lock(format!("bench/held/{index}"))?.exclusive().acquire().await?);
            }
            Ok::<_, lockcore::Error>(guards)
        });
    }
    let mut guards = Vec::new();
    while let Some(filled) = fillers.join_next().await {
        guards.extend(filled??);
    }
    let fill_seconds = seconds(began, nanos());
    let counting = match server {
        Some(server) => Some(Counting::begin(server).await?),
        None => None,
    };
    let (requests, renewed) = (counted.requests(), counted.renewed());
    let (began, cpu) = (nanos(), cpu_nanos());
    tokio::time::sleep(hold.seconds).await;
    let (ended, cpu_seconds) = (nanos(), seconds(cpu, cpu_nanos()));
    let (requests, renewed) = (counted.requests() - requests, counted.renewed() - renewed);
    let server = match counting {
        Some(counting) => Some(counting.end().await?),
        None => None,
    };
    let lost = guards.iter().map(|guard| u64::from(!guard.is_held())).sum();
    drop(guards);
    locks.close().await?;
    Ok(Seen {
        locks: hold.locks,
        fill_seconds,
        seconds: seconds(began, ended),
        cpu_seconds,
        requests,
        renewed,
        lost,
        server,
    })
}

impl Seen {
    /// As a result line.
    pub(crate) fn line(&self, workload: &str) -> Line {
        Line {
            peer: "fencelock".into(),
            workload: workload.into(),
            clients: 1,
            ops: self.renewed,
            secs: self.seconds,
            ops_per_s: float(self.renewed) / self.seconds,
            fill_secs: Some(self.fill_seconds),
            lost: Some(self.lost),
            requests: Some(self.requests),
            client_cpu_s: self.cpu_seconds,
            ..Line::default()
        }
        .with_server(self.server.as_ref())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} locks, filled in {:.2} s; then in {:.1} s: {:.1} requests/s for {:.0} renewals/s, {:.3} CPU s, {} lost",
            self.locks,
            self.fill_seconds,
            self.seconds,
            float(self.requests) / self.seconds,
            float(self.renewed) / self.seconds,
            self.cpu_seconds,
            self.lost
        )?;
        if let Some(server) = &self.server {
            write!(
                f,
                "; the server had {:.1} requests/s, {:.0} bytes/s",
                float(server.requests) / self.seconds,
                float(server.bytes) / self.seconds
            )?;
            if let Some(reads) = server.reads {
                write!(f, " in {:.1} reads/s", float(reads) / self.seconds)?;
            }
            write!(f, ", and used {:.3} CPU s", server.cpu_seconds)?;
        }
        Ok(())
    }
}
