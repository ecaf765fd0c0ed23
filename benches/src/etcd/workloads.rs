//! What is measured on etcd, and what is wanted of it.

use std::sync::Arc;

use etcd_client::Client;

use super::peers::{Emulated, Line, Pair, Protocol, Queue, Service, lease};
use super::server::connect;
use crate::Result;
use crate::bench::{Bench, CONTENDED, Contended, FENCELOCK, FLOOR, counted, random_key};
use crate::clock::float;
use crate::compare::{Compared, Peer};
use crate::drive::Round;
use crate::server::Counted;
use crate::worker::{Contender, Spot};

/// A peer whose workers share one connection, on one key or each on its own.
fn peer<'a, C, F>(
    bench: &Bench<'a>,
    name: &'static str,
    (workers, one_key): (u64, bool),
    make: impl Fn(Client, String, u64) -> F + 'a,
) -> Peer<'a>
where
    C: Contender,
    F: Future<Output = Result<C>>,
{
    let (runtime, server) = (bench.runtime, bench.server);
    Peer::new(name, move |plan| {
        let (common, spot) = (random_key(), Arc::<Spot>::default());
        let contenders = runtime.block_on(async {
            let client = connect(server.url()).await?;
            let mut contenders = Vec::new();
            for worker in 0..workers {
                let key = if one_key { common.clone() } else { random_key() };
                let spot = if one_key { spot.clone() } else { Arc::default() };
                contenders.push((make(client.clone(), key, worker).await?, spot));
            }
            Ok::<_, crate::Failure>(contenders)
        })?;
        counted(runtime, server, contenders, plan)
    })
}

fn pair<'a>(bench: &Bench<'a>, workers: u64) -> Peer<'a> {
    peer(bench, "put txn + delete", (workers, false), |client, key, _| async move {
        Ok(Pair { kv: client.kv_client(), key, lease: lease(&client).await? })
    })
}

fn queue<'a>(bench: &Bench<'a>, workers: u64) -> Peer<'a> {
    let (runtime, server) = (bench.runtime, bench.server);
    Peer::new("one long watch", move |plan| {
        let spot = Arc::<Spot>::default();
        let contenders = runtime.block_on(async {
            let client = connect(server.url()).await?;
            let (lease, line) = (lease(&client).await?, Line::watch(&client, random_key()).await?);
            let contender = |worker| (Queue::new(&client, lease, &line, worker), spot.clone());
            Ok::<_, crate::Failure>((0..workers).map(contender).collect())
        })?;
        counted(runtime, server, contenders, plan)
    })
}

fn service<'a>(bench: &Bench<'a>, workers: u64, one_key: bool) -> Peer<'a> {
    peer(bench, "Lock service", (workers, one_key), |client, name, _| async move {
        Ok(Service { locks: client.lock_client(), name, lease: lease(&client).await? })
    })
}

fn emulated<'a>(bench: &Bench<'a>, name: &'static str, workers: (u64, bool), protocol: Protocol) -> Peer<'a> {
    peer(bench, name, workers, move |client, prefix, _| async move {
        Ok(Emulated::new(&client, prefix, lease(&client).await?, protocol))
    })
}

fn mutex<'a>(bench: &Bench<'a>, workers: u64, one_key: bool) -> Peer<'a> {
    emulated(bench, "concurrency.Mutex, emulated", (workers, one_key), Protocol::Mutex)
}

fn rw_mutex<'a>(bench: &Bench<'a>, workers: u64) -> Peer<'a> {
    emulated(bench, "recipes RWMutex, emulated", (workers, true), Protocol::RwMutex)
}

/// Says what a cycle of ours, and one of the floor, costs the server: requests, messages, entries of the raft log, fsyncs.
fn say(what: &str, compared: &Compared, peers: &[(&str, usize)]) {
    for &(name, peer) in peers {
        let of = |of: fn(&Counted) -> u64| compared.each(peer, of);
        println!(
            "{what} of {name}: {:.2} requests, {:.2} messages, {:.2} raft entries, {:.2} fsyncs, {:.0} bytes",
            of(|server| server.requests),
            of(|server| server.messages),
            of(|server| server.raft_entries.unwrap_or_default()),
            of(|server| server.fsyncs.unwrap_or_default()),
            of(|server| server.bytes),
        );
    }
    println!();
}

pub(crate) fn own_keys(bench: &mut Bench<'_>, workers: u64) -> Result<()> {
    let peers = vec![
        bench.ours(workers, false, false),
        pair(bench, workers),
        service(bench, workers, false),
        mutex(bench, workers, false),
    ];
    let compared = bench.own_keys(workers, peers)?;
    say("a cycle", &compared, &[("ours", FENCELOCK), ("the floor", FLOOR)]);
    let ratio = compared.ratio(FENCELOCK, FLOOR, Round::per_second);
    bench.report.at_least(format!("W1, {workers} workers: × put txn + delete"), ratio, 0.9);
    let requests = compared.each(FENCELOCK, |server| server.requests);
    bench.report.at_most(format!("W1, {workers} workers: requests a cycle"), requests, 2.01);
    let entries = compared.each(FENCELOCK, |server| server.raft_entries.unwrap_or_default());
    bench.report.at_most(format!("W1, {workers} workers: raft entries a cycle"), entries, 2.01);
    Ok(())
}

/// All the workloads in which workers wait for each other.
pub(crate) fn contended(bench: &mut Bench<'_>) -> Result<()> {
    CONTENDED
        .iter()
        .filter(|each| bench.options.wants(&each.name()))
        .try_for_each(|each| one_key(bench, each))
}

fn one_key(bench: &mut Bench<'_>, contended: &Contended) -> Result<()> {
    let Contended { workers, own_clients, .. } = *contended;
    let peers = vec![
        bench.ours(workers, true, own_clients),
        queue(bench, workers),
        service(bench, workers, true),
        mutex(bench, workers, true),
    ];
    let compared = bench.one_key(contended, peers)?;
    say("a grant", &compared, &[("ours", FENCELOCK), ("the floor", FLOOR)]);
    if contended.hold.is_zero() {
        let name = contended.name();
        let ratio = compared.ratio(FENCELOCK, FLOOR, Round::hand_overs_per_second);
        bench.report.at_least(format!("{name}: × one long watch, hand-overs"), ratio, 0.6);
        bench.hands_over_well(&name, &compared, 4.0, 250.0);
        let slow = compared.median(FENCELOCK, |round| float(round.hand_over.value_at_quantile(0.99)) / 1e6);
        bench.report.at_most(format!("{name}: p99 of hand-overs, ms"), slow, 10.0);
    }
    Ok(())
}

pub(crate) fn readers(bench: &mut Bench<'_>, name: &str, shared: u8) -> Result<()> {
    let others = vec![rw_mutex(bench, 16)];
    let recipes = FLOOR + others.len();
    let compared = bench.readers(name, shared, 0.6, others)?;
    say("a cycle", &compared, &[("ours", FENCELOCK), ("the recipes' RWMutex", recipes)]);
    if shared < 100 {
        let ratio = compared.ratio(FENCELOCK, recipes, Round::per_second);
        bench.report.at_least(format!("{name}: × the recipes' RWMutex"), ratio, 5.0);
    }
    Ok(())
}

pub(crate) fn held(bench: &mut Bench<'_>, locks: u64) -> Result<()> {
    let seen = bench.held(locks)?;
    // By the server's count: a batch of renewals is many requests.
    let requests = seen.server.map_or(f64::NAN, |server| float(server.requests)) / seen.seconds;
    bench.report.at_most(format!("w4-{locks}: requests/s"), requests, 20.0);
    Ok(())
}
