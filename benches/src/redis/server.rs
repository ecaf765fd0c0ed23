//! The server that is measured on, and what it says of itself.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use crate::Result;

/// A server, and a connection to ask it on.
pub(crate) struct Server {
    pub(crate) url: String,
    connection: MultiplexedConnection,
    /// Ends with the benchmark if we started it.
    _own: Option<testbed::RedisServer>,
}

/// What a server has counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// Calls and µs by command.
    commands: HashMap<String, (u64, u64)>,
    /// How often it read from a client.
    pub(crate) reads: u64,
    /// How many bytes it read.
    pub(crate) bytes: u64,
    pub(crate) cpu_seconds: f64,
}

/// What clients send; other commands come from within scripts.
const SENT: [&str; 6] = ["evalsha", "set", "blpop", "rpush", "eval", "script|load"];

impl Server {
    /// Connects to `url`, or to a server of our own.
    pub(crate) async fn open(url: Option<String>) -> Result<Server> {
        let own = if url.is_none() { Some(testbed::RedisServer::start()?) } else { None };
        let url = url.or_else(|| own.as_ref().map(testbed::RedisServer::url)).unwrap_or_default();
        let connection = connect(&url).await?;
        Ok(Server { url, connection, _own: own })
    }

    /// What it has counted so far.
    pub(crate) async fn count(&self) -> Result<Counted> {
        let mut connection = self.connection.clone();
        let text: String = redis::cmd("INFO").arg("everything").query_async(&mut connection).await?;
        Ok(Counted::read(&text))
    }

    /// The line of its INFO that begins with `field:`, and what follows.
    pub(crate) async fn info(&self, field: &str) -> Result<String> {
        let mut connection = self.connection.clone();
        let text: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.unwrap_or_default().to_owned())
    }
}

/// One connection for many tasks, configured as the one of the library is.
pub(crate) async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(std::time::Duration::from_secs(5)))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(4096);
    let url = if url.contains('?') { url.to_owned() } else { format!("{url}/?protocol=resp3") };
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

impl Counted {
    fn read(info: &str) -> Counted {
        let mut counted = Counted::default();
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if let Some(command) = name.strip_prefix("cmdstat_") {
                let field = |field: &str| {
                    let found = value.split(',').find_map(|each| each.strip_prefix(field)?.strip_prefix('='));
                    found.and_then(|number| number.parse().ok()).unwrap_or(0)
                };
                counted.commands.insert(command.to_owned(), (field("calls"), field("usec")));
                continue;
            }
            match name {
                "total_reads_processed" => counted.reads = value.parse().unwrap_or(0),
                "total_net_input_bytes" => counted.bytes = value.parse().unwrap_or(0),
                "used_cpu_user" | "used_cpu_sys" => counted.cpu_seconds += value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        counted
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Counted) -> Counted {
        let commands = self.commands.iter().map(|(name, &(calls, micros))| {
            let (calls_before, micros_before) = before.commands.get(name).copied().unwrap_or_default();
            (name.clone(), (calls.saturating_sub(calls_before), micros.saturating_sub(micros_before)))
        });
        Counted {
            commands: commands.collect(),
            reads: self.reads.saturating_sub(before.reads),
            bytes: self.bytes.saturating_sub(before.bytes),
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
        }
    }

    /// How often one command was carried out, within scripts or not.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        self.commands.get(command).map_or(0, |&(calls, _)| calls)
    }

    /// µs that one call of a script took.
    pub(crate) fn script_micros(&self) -> f64 {
        let (calls, micros) = self.commands.get("evalsha").copied().unwrap_or_default();
        crate::clock::float(micros) / crate::clock::float(calls.max(1))
    }

    /// What clients sent: scripts, and the commands of the floors when there were no scripts.
    pub(crate) fn requests(&self) -> u64 {
        // A `SET` within a script of ours counts as no request.
        let scripts_only = self.calls("get") + self.calls("time") > self.calls("evalsha") / 2;
        SENT.iter().filter(|&&name| !(scripts_only && name == "set")).map(|name| self.calls(name)).sum()
    }

    /// All commands, those within scripts too.
    pub(crate) fn commands(&self) -> u64 {
        self.commands.iter().filter(|(name, _)| *name != "info").map(|(_, &(calls, _))| calls).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_counters_are_read() {
        let info =
            "# Commandstats\r\ncmdstat_evalsha:calls=10,usec=50,usec_per_call=5.00\r\nused_cpu_sys:0.5\r\n";
        let counted = Counted::read(info);
        assert_eq!((counted.calls("evalsha"), counted.requests()), (10, 10));
        assert!((counted.script_micros() - 5.0).abs() < 1e-9);
        assert!((counted.cpu_seconds - 0.5).abs() < 1e-9);
    }
}
