//! The etcd backend beside the bare operations of the same server, and beside what others do with it.

mod peers;
mod server;
mod workloads;

use tokio::runtime::Builder;

use self::server::Etcd;
pub(crate) use self::server::Medium;
use crate::bench::Bench;
use crate::report::Report;
use crate::{Options, Result};

/// Measures everything that the options ask for, on each server.
pub(crate) fn run(options: &Options) -> Result<Vec<Report>> {
    let theirs = options.servers_or(&[("ETCD_TMPFS", "etcd-tmpfs"), ("ETCD_DISK", "etcd-disk")]);
    let media = [("etcd-tmpfs", Medium::Tmpfs), ("etcd-disk", Medium::Disk)];
    let ours = media.into_iter().filter(|&(_, medium)| options.medium.is_none_or(|only| only == medium));
    if theirs.is_empty() {
        return ours.map(|(name, medium)| on_server(options, name, || Etcd::start(medium))).collect();
    }
    theirs.into_iter().map(|(name, address)| on_server(options, &name, || Etcd::at(&address))).collect()
}

fn on_server(options: &Options, name: &str, open: impl FnOnce() -> Result<Etcd>) -> Result<Report> {
    let mut report = Report::new(name);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = open()?;
    println!("\n# {name}: etcd {}", server.version()?);
    let mut bench = Bench { report: &mut report, options, runtime: &runtime, server: &server };
    for workers in [1, 16, 128] {
        if options.wants(&format!("w1-{workers}")) {
            workloads::own_keys(&mut bench, workers)?;
        }
    }
    workloads::contended(&mut bench)?;
    for (workload, shared) in [("w3-read", 100), ("w3-mix", 90)] {
        if options.wants(workload) {
            workloads::readers(&mut bench, workload, shared)?;
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
