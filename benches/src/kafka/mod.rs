//! The Kafka backend beside a bare record that its writer reads again.

mod past;
mod peers;
mod server;

use std::sync::Arc;

use tokio::runtime::Builder;

use self::peers::{Bare, RoundTrip, count, end};
use self::server::{BARE, Kafka, LOCKS};
use crate::bench::{Bench, CONTENDED, Contended, FENCELOCK, FLOOR, counted};
use crate::clock::float;
use crate::compare::{Peer, time_of};
use crate::drive::Round;
use crate::report::Report;
use crate::{Options, Result};

/// Measures everything that the options ask for.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("kafka");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let theirs = options.servers_or(&[("KAFKA_ADDR", "kafka")]).pop();
    let server = runtime.block_on(async {
        match theirs {
            Some((_, address)) => Kafka::at(&address).await,
            None => Kafka::start().await,
        }
    })?;
    println!("\n# kafka: {}", server.broker);
    let mut bench = Bench { report: &mut report, options, runtime: &runtime, server: &server };
    for workers in [1, 16, 128] {
        if options.wants(&format!("w1-{workers}")) {
            own_keys(&mut bench, &server, workers)?;
        }
    }
    for contended in CONTENDED.iter().filter(|each| options.wants(&each.name())) {
        one_key(&mut bench, &server, contended)?;
    }
    for (workload, shared) in [("w3-read", 100), ("w3-mix", 90)] {
        if options.wants(workload) {
            bench.readers(workload, shared, 0.6, Vec::new())?;
        }
    }
    for locks in [1_000, 10_000] {
        if options.wants(&format!("w4-{locks}")) {
            held(&mut bench, &server, locks)?;
        }
    }
    if options.wants(past::NAME) {
        past::run(&mut bench, &server)?;
    }
    if options.wants("idle-1000") {
        bench.idle(1_000)?;
    }
    Ok(report)
}

/// Workers that write a record and wait until they read it, all through one producer and one consumer.
fn round_trips<'a>(bench: &Bench<'a>, server: &'a Kafka, workers: u64) -> Peer<'a> {
    let runtime = bench.runtime;
    Peer::new("bare records", move |plan| {
        let bare = Bare::connect(&server.broker, BARE)?;
        let contenders = (0..workers).map(|_| (RoundTrip(bare.clone()), Arc::default())).collect();
        counted(runtime, server, contenders, plan)
    })
}

/// The p50 in ms, of the hand-over where there was one, else of the acquire.
fn p50(round: &Round) -> f64 {
    float(time_of(round).value_at_quantile(0.5)) / 1e6
}

fn own_keys(bench: &mut Bench<'_>, server: &Kafka, workers: u64) -> Result<()> {
    let peers = vec![bench.ours(workers, false, false), round_trips(bench, server, workers)];
    let compared = bench.own_keys(workers, peers)?;
    if workers == 1 {
        let ratio = compared.ratio(FENCELOCK, FLOOR, p50);
        bench.report.at_most("W1, 1 worker: p50 of the acquire, × a bare record", ratio, 1.3);
    } else {
        let ratio = compared.ratio(FENCELOCK, FLOOR, Round::per_second);
        bench.report.at_least(format!("W1, {workers} workers: × bare records"), ratio, 0.5);
    }
    let records = compared.each(FENCELOCK, |server| server.requests);
    bench.report.at_most(format!("W1, {workers} workers: records a cycle"), records, 2.05);
    Ok(())
}

fn one_key(bench: &mut Bench<'_>, server: &Kafka, contended: &Contended) -> Result<()> {
    let Contended { workers, own_clients, hold, .. } = *contended;
    // One record at a time: what a hand-over is made of.
    let peers = vec![bench.ours(workers, true, own_clients), round_trips(bench, server, 1)];
    let compared = bench.one_key(contended, peers)?;
    if hold.is_zero() {
        let name = contended.name();
        let ratio = compared.ratio(FENCELOCK, FLOOR, p50);
        bench.report.at_most(format!("{name}: p50 of the hand-over, × a bare record"), ratio, 1.5);
        bench.hands_over_well(&name, &compared, 2.05, 250.0);
    }
    Ok(())
}

fn held(bench: &mut Bench<'_>, server: &Kafka, locks: u64) -> Result<()> {
    let from = end(&server.broker, LOCKS)?;
    let seen = bench.held(locks)?;
    // Not all records: a checkpoint may fall into any time.
    let heartbeats = count(&server.broker, LOCKS, from, r#""type":"heartbeat""#)?;
    let each = float(heartbeats) * 5.0 / (seen.fill_seconds + seen.seconds);
    // A third of the ttl is 5 s, and renewals come up to a tenth sooner; what is acquired later joins the others.
    bench.report.at_most(format!("w4-{locks}: heartbeat records in 5 s"), each, 1.5);
    Ok(())
}
