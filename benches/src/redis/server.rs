//! The server that is measured on, and what it says of itself.

use std::sync::Arc;

use async_trait::async_trait;
use lock_redis::RedisBackend;
use lockcore::LockBackend;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use crate::Result;
use crate::clock::float;
use crate::server::{Counted, Counters, Server};

/// A Redis, and a connection to ask it on.
pub(crate) struct Redis {
    url: String,
    connection: MultiplexedConnection,
    /// Ends with the benchmark if we started it.
    _own: Option<testbed::RedisServer>,
}

/// What clients send; other commands come from within scripts.
const SENT: [&str; 6] = ["evalsha", "set", "blpop", "rpush", "eval", "script|load"];

/// What the counter of a command's calls, and of its µs, is named here.
const CALLS: &str = "calls ";
const MICROS: &str = "micros ";

impl Redis {
    /// Connects to `url`, or to a server of our own.
    pub(crate) async fn open(url: Option<String>) -> Result<Redis> {
        let own = if url.is_none() { Some(testbed::RedisServer::start()?) } else { None };
        let url = url.or_else(|| own.as_ref().map(testbed::RedisServer::url)).unwrap_or_default();
        let connection = connect(&url).await?;
        Ok(Redis { url, connection, _own: own })
    }

    /// The line of its INFO that begins with `field:`, and what follows.
    pub(crate) async fn info(&self, field: &str) -> Result<String> {
        let mut connection = self.connection.clone();
        let text: String = redis::cmd("INFO").query_async(&mut connection).await?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.unwrap_or_default().to_owned())
    }
}

#[async_trait]
impl Server for Redis {
    fn url(&self) -> &str {
        &self.url
    }

    async fn connect(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(RedisBackend::connect(&self.url).await?)
    }

    async fn counters(&self) -> Result<Counters> {
        let mut connection = self.connection.clone();
        let text: String = redis::cmd("INFO").arg("everything").query_async(&mut connection).await?;
        Ok(read(&text))
    }

    fn sum_up(&self, counters: &Counters) -> Counted {
        sum_up(counters)
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

/// Reads its INFO.
fn read(info: &str) -> Counters {
    let mut counters = Counters::default();
    for line in info.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if let Some(command) = name.strip_prefix("cmdstat_") {
            let field = |field: &str| {
                let found = value.split(',').find_map(|each| each.strip_prefix(field)?.strip_prefix('='));
                found.and_then(|number| number.parse().ok()).unwrap_or(0)
            };
            counters.add(format!("{CALLS}{command}"), field("calls"));
            counters.add(format!("{MICROS}{command}"), field("usec"));
            continue;
        }
        match name {
            "total_reads_processed" | "total_net_input_bytes" => {
                counters.add(name, value.parse().unwrap_or(0));
            }
            "used_cpu_user" | "used_cpu_sys" => counters.cpu_seconds += value.parse().unwrap_or(0.0),
            _ => {}
        }
    }
    counters
}

fn sum_up(counters: &Counters) -> Counted {
    let calls = |command: &str| counters.of(&format!("{CALLS}{command}"));
    // A `SET` within a script of ours counts as no request.
    let scripts_only = calls("get") + calls("time") > calls("evalsha") / 2;
    let sent = SENT.iter().filter(|&&name| !(scripts_only && name == "set"));
    let commands = counters.iter().filter(|(name, _)| name.starts_with(CALLS) && !name.ends_with(" info"));
    let script_micros = float(counters.of(&format!("{MICROS}evalsha"))) / float(calls("evalsha").max(1));
    Counted {
        requests: sent.map(|name| calls(name)).sum(),
        messages: calls("publish"),
        bytes: counters.of("total_net_input_bytes"),
        commands: Some(commands.map(|(_, count)| count).sum()),
        script_micros: Some(script_micros),
        reads: Some(counters.of("total_reads_processed")),
        ..Counted::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_counters_are_read() {
        let info =
            "# Commandstats\r\ncmdstat_evalsha:calls=10,usec=50,usec_per_call=5.00\r\nused_cpu_sys:0.5\r\n";
        let counters = read(info);
        let counted = sum_up(&counters);
        assert_eq!((counted.requests, counted.commands), (10, Some(10)));
        assert!((counted.script_micros.unwrap() - 5.0).abs() < 1e-9);
        assert!((counters.cpu_seconds - 0.5).abs() < 1e-9);
    }
}
