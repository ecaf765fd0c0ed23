//! The server that is measured on, and what it says of itself.

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::ValueEnum;
use etcd_client::{Client, ConnectOptions};
use lock_etcd::EtcdBackend;
use lockcore::LockBackend;
use testbed::{EtcdServer, EtcdVersion, http_get};

use crate::Result;
use crate::server::{Counted, Counters, Server};

/// Where a server of ours keeps its data. It waits for the disk as one in earnest does: `fsync` is left on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Medium {
    /// In /dev/shm
    Tmpfs,
    /// In the folder for temporary files (TMPDIR says which), which must not be on a tmpfs
    Disk,
}

impl Medium {
    fn folder(self) -> Result<PathBuf> {
        let (folder, in_memory) = match self {
            Medium::Tmpfs => (PathBuf::from("/dev/shm"), true),
            Medium::Disk => (env::temp_dir(), false),
        };
        if is_in_memory(&folder)? == in_memory {
            return Ok(folder);
        }
        let advice = if in_memory { "is no tmpfs" } else { "is on a tmpfs: say TMPDIR=/on/a/disk" };
        Err(format!("{} {advice}", folder.display()).into())
    }
}

fn is_in_memory(folder: &Path) -> Result<bool> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    Ok(rustix::fs::statfs(folder)?.f_type == TMPFS_MAGIC)
}

/// An etcd, and where to ask it for its metrics.
pub(crate) struct Etcd {
    url: String,
    address: SocketAddr,
    /// Ends with the benchmark if we started it.
    _own: Option<EtcdServer>,
}

impl Etcd {
    /// Starts one of our own.
    pub(crate) fn start(medium: Medium) -> Result<Etcd> {
        let own = EtcdServer::options().version(EtcdVersion::Built).in_earnest(&medium.folder()?).start()?;
        Ok(Etcd { url: own.url(), address: own.addr(), _own: Some(own) })
    }

    /// The one that somebody else has started.
    pub(crate) fn at(address: &str) -> Result<Etcd> {
        let found = address.to_socket_addrs()?.next();
        let resolved = found.ok_or_else(|| format!("{address} is no address"))?;
        Ok(Etcd { url: format!("etcd://{resolved}"), address: resolved, _own: None })
    }

    pub(crate) fn version(&self) -> Result<String> {
        let answer: serde_json::Value = serde_json::from_str(&http_get(self.address, "/version")?)?;
        Ok(answer["etcdserver"].as_str().unwrap_or("of unknown version").to_owned())
    }
}

#[async_trait]
impl Server for Etcd {
    fn url(&self) -> &str {
        &self.url
    }

    async fn connect(&self) -> Result<Arc<dyn LockBackend>> {
        Ok(EtcdBackend::connect(&self.url).await?)
    }

    async fn counters(&self) -> Result<Counters> {
        Ok(read(&http_get(self.address, "/metrics")?))
    }

    fn sum_up(&self, counters: &Counters) -> Counted {
        sum_up(counters)
    }
}

/// One connection for many tasks, configured as the one of the library is.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_keep_alive(Duration::from_secs(6), Duration::from_secs(4))
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    let host = url.strip_prefix("etcd://").unwrap_or(url);
    Ok(Client::connect([format!("http://{host}")], Some(options)).await?)
}

const RECEIVED: &str = "grpc_server_msg_received_total";
const WATCHED: &str = "messages of watches";
const BYTES: &str = "etcd_network_client_grpc_received_bytes_total";
const RAFT_ENTRIES: &str = "etcd_server_proposals_committed_total";
const FSYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";

/// Reads its metrics.
fn read(metrics: &str) -> Counters {
    let mut counters = Counters::default();
    for line in metrics.lines() {
        let Some((metric, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
        let counter = match name {
            RECEIVED | BYTES | RAFT_ENTRIES | FSYNCS => name,
            "grpc_server_msg_sent_total" if labels.contains("etcdserverpb.Watch") => WATCHED,
            "process_cpu_seconds_total" => {
                counters.cpu_seconds = value;
                continue;
            }
            _ => continue,
        };
        counters.add(counter, whole(value));
    }
    counters
}

/// Metrics are written as fractions, but these count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn sum_up(counters: &Counters) -> Counted {
    Counted {
        // Each message of a stream is one: keepalives come by streams.
        requests: counters.of(RECEIVED),
        messages: counters.of(WATCHED),
        bytes: counters.of(BYTES),
        raft_entries: Some(counters.of(RAFT_ENTRIES)),
        fsyncs: Some(counters.of(FSYNCS)),
        ..Counted::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_metrics_are_read() {
        let counters = read(concat!(
            "# TYPE grpc_server_msg_received_total counter\n",
            "grpc_server_msg_received_total{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\"} 3\n",
            "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\",grpc_service=\"x\"} 1.2e+01\n",
            "grpc_server_msg_sent_total{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\"} 3\n",
            "grpc_server_msg_sent_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\"} 2\n",
            "etcd_server_proposals_committed_total 7\nprocess_cpu_seconds_total 0.5\n",
        ));
        let counted = sum_up(&counters);
        assert_eq!((counted.requests, counted.messages, counted.raft_entries), (15, 2, Some(7)));
        assert!((counters.cpu_seconds - 0.5).abs() < 1e-9);
    }
}
