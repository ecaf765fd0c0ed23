//! The Redis backend beside the bare operations of the same server.

mod peers;
mod server;
mod workloads;

use tokio::runtime::Builder;

use self::server::Redis;
use crate::bench::Bench;
use crate::report::Report;
use crate::{Options, Result};

/// Measures everything that the options ask for, on each server.
pub(crate) fn run(options: &Options) -> Result<Vec<Report>> {
    let servers = options.servers_or(&[("REDIS_MEM", "redis-mem"), ("REDIS_AOF", "redis-aof")]);
    let mut places: Vec<(String, Option<String>)> =
        servers.into_iter().map(|(name, address)| (name, Some(format!("redis://{address}")))).collect();
    if places.is_empty() {
        places.push(("redis-mem".into(), None));
    }
    places.into_iter().map(|(name, url)| on_server(options, &name, url)).collect()
}

fn on_server(options: &Options, name: &str, url: Option<String>) -> Result<Report> {
    let mut report = Report::new(name);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Redis::open(url))?;
    println!("\n# {name}: Redis {}", runtime.block_on(server.info("redis_version"))?);
    let mut bench = Bench { report: &mut report, options, runtime: &runtime, server: &server };
    for workers in [1, 16, 128] {
        if options.wants(&format!("w1-{workers}")) {
            workloads::own_keys(&mut bench, workers)?;
        }
    }
    workloads::contended(&mut bench)?;
    for (workload, shared) in [("w3-read", 100), ("w3-mix", 90)] {
        if options.wants(workload) {
            bench.readers(workload, shared, 0.5, Vec::new())?;
        }
    }
    for locks in [1_000, 10_000] {
        if options.wants(&format!("w4-{locks}")) {
            workloads::held(&mut bench, locks)?;
        }
    }
    if options.wants("aged-10000") {
        bench.aged(10_000)?;
    }
    if options.wants("idle-1000") {
        bench.idle(1_000)?;
    }
    Ok(report)
}
