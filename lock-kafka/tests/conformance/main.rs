//! The conformance suite on a log inside this process, under the paused clock: the whole protocol without a broker.

mod log;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::{Client, Harness, Hook, Link, Seclusion, Server, Timing};
use lock_kafka::{KafkaBackend, Log, Settings};
use lockcore::Result;

use self::log::{Connection, MemoryLog};

struct LogHarness;

#[async_trait]
impl Harness for LogHarness {
    fn name(&self) -> &'static str {
        "kafka-in-memory"
    }

    fn timing(&self) -> Timing {
        // A multiple of the shortest lease.
        Timing { unit: Duration::from_secs(2), paused: true, exact: false, hands_over_at_once: true }
    }

    async fn open(&self, _seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        Ok(Arc::new(Topic((0..2).map(|_| MemoryLog::new()).collect())))
    }
}

/// A topic of two partitions.
struct Topic(Vec<Arc<MemoryLog>>);

impl Topic {
    async fn client(&self) -> Result<(Client, Vec<Connection>)> {
        let connections: Vec<Connection> = self.0.iter().map(Connection::new).collect();
        let logs = connections.iter().map(|connection| Arc::new(connection.clone()) as Arc<dyn Log>);
        // So small that checkpoints are taken and looked at all the time.
        let settings =
            Settings { checkpoint_every: 16.try_into().expect("it is not zero"), ..Settings::default() };
        Ok((KafkaBackend::over(logs.collect(), &settings).await?, connections))
    }
}

#[async_trait]
impl Server for Topic {
    fn version(&self) -> String {
        "a log in memory".into()
    }

    async fn connect(&self) -> Result<Client> {
        Ok(self.client().await?.0)
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let (client, connections) = self.client().await?;
        Ok((client, Box::new(Connections(connections))))
    }

    async fn restart(&self) -> Hook {
        // The log is what a broker keeps; that it was away shows as a pause.
        for log in &self.0 {
            log.pause(true);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for log in &self.0 {
            log.pause(false);
        }
        Ok(())
    }

    async fn pause(&self, paused: bool) -> Hook {
        for log in &self.0 {
            log.pause(paused);
        }
        Ok(())
    }
}

struct Connections(Vec<Connection>);

impl Link for Connections {
    fn partition(&self, on: bool) -> Hook {
        self.0.iter().for_each(|connection| connection.hold(on, on));
        Ok(())
    }

    fn lose_replies(&self, on: bool) -> Hook {
        self.0.iter().for_each(|connection| connection.hold(false, on));
        Ok(())
    }

    fn hold_requests(&self, on: bool) -> Hook {
        self.0.iter().for_each(|connection| connection.hold(on, false));
        Ok(())
    }

    fn refuse(&self, on: bool) -> Hook {
        self.0.iter().for_each(|connection| connection.refuse(on));
        Ok(())
    }

    fn delay(&self, by: Duration) -> Hook {
        self.0.iter().for_each(|connection| connection.delay(by));
        Ok(())
    }
}

fn main() -> ExitCode {
    lock_conformance::run(LogHarness)
}
