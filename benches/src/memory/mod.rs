//! The memory backend beside locks that do less.

mod peers;

use std::sync::Arc;
use std::time::Duration;

use lock_memory::MemoryServer;
use lockable::LockPool;
use lockcore::LockClient;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::RwLock;

pub(crate) use self::peers::Ours;
use self::peers::{Bare, Lockable, Maps, OfMaps};
use crate::clock::float;
use crate::compare::{Compared, HEAD, Peer};
use crate::drive::{self, Plan, Round};
use crate::report::{Report, table};
use crate::worker::{Contender, Detail, Spot};
use crate::{Options, Result, held};

/// Measures everything that the options ask for.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new("memory");
    let two = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let one = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let current = Builder::new_current_thread().enable_all().build()?;
    for workers in [1, 2, 16, 128] {
        if options.wants(&format!("w1-{workers}")) {
            own_keys(&mut report, options, &two, workers)?;
        }
    }
    if options.wants("w1-threads") {
        threads(&mut report, options, &one, &two)?;
    }
    for workers in [2, 8, 64] {
        for (runtime, label) in [(&two, ""), (&current, "-one-thread")] {
            if options.wants(&format!("w2-{workers}{label}")) {
                one_key(&mut report, options, runtime, workers, label)?;
            }
        }
    }
    for (name, shared) in [("w3-read", 100), ("w3-mix", 90)] {
        if options.wants(name) {
            readers(&mut report, options, &two, name, shared)?;
        }
    }
    if options.wants("w4") {
        let server = MemoryServer::new();
        let hold =
            held::Hold { locks: 100_000, ttl: Duration::from_secs(9), seconds: options.held_seconds(10) };
        let seen = two.block_on(held::run(server.client(), &hold, None))?;
        report.line(seen.line("w4-100000"));
        let share = 100.0 * seen.cpu_seconds / seen.seconds;
        println!("\n## W4: {} locks held, ttl 9 s\n\n{seen}", hold.locks);
        report.at_most("W4, 100,000 held: CPU, % of a core", share, 3.0);
        report.at_most("W4, 100,000 held: lost", float(seen.lost), 0.0);
    }
    Ok(report)
}

fn window(options: &Options, detail: Detail, shared: u8) -> Plan {
    Plan { window: options.window(0.3), hold: Duration::ZERO, shared, detail }
}

fn run_all<C: Contender>(
    runtime: &Runtime,
    plan: &Plan,
    workers: u64,
    shared_key: bool,
    make: impl Fn(String) -> Result<C>,
) -> Result<Round> {
    let common = Arc::<Spot>::default();
    let contenders = (0..workers).map(|index| {
        let key = format!("bench/{:08x}/{index}", fastrand::u32(..));
        Ok((make(key)?, if shared_key { common.clone() } else { Arc::default() }))
    });
    drive::run(runtime, contenders.collect::<Result<Vec<_>>>()?, plan)
}

/// Ours; all workers on one key when `key` is given.
fn ours<'a>(runtime: &'a Runtime, workers: u64, key: Option<&'static str>) -> Peer<'a> {
    Peer::new("fencelock", move |plan| {
        let server = MemoryServer::new();
        let locks = LockClient::new(server.client());
        let round = run_all(runtime, plan, workers, key.is_some(), |own| {
            Ok(Ours(locks.lock(key.map_or(own, str::to_owned))?))
        })?;
        if server.keys_kept() != 0 {
            return Err(format!("{} idle keys were kept", server.keys_kept()).into());
        }
        Ok(round)
    })
}

fn bare(runtime: &Runtime, workers: u64, one_key: bool) -> Peer<'_> {
    Peer::new("tokio RwLock, no keys", move |plan| {
        let common = Arc::<RwLock<()>>::default();
        run_all(runtime, plan, workers, one_key, |_| {
            Ok(Bare(if one_key { common.clone() } else { Arc::default() }))
        })
    })
}

fn maps<'a>(runtime: &'a Runtime, workers: u64, key: Option<&'static str>) -> Peer<'a> {
    Peer::new("64 maps of tokio mutexes", move |plan| {
        let maps = Maps::new();
        run_all(runtime, plan, workers, key.is_some(), |own| {
            Ok(OfMaps { maps: maps.clone(), key: key.map_or(own, str::to_owned) })
        })
    })
}

fn lockable<'a>(runtime: &'a Runtime, workers: u64, key: Option<&'static str>) -> Peer<'a> {
    Peer::new("lockable", move |plan| {
        let pool = Arc::new(LockPool::new());
        run_all(runtime, plan, workers, key.is_some(), |own| {
            Ok(Lockable { pool: pool.clone(), key: key.map_or(own, str::to_owned) })
        })
    })
}

const FENCELOCK: usize = 0;
const MAPS: usize = 2;
const LOCKABLE: usize = 3;

fn show(heading: &str, compared: &Compared, peers: &[Peer<'_>], measure: fn(&Round) -> f64) {
    let rows: Vec<Vec<String>> = peers
        .iter()
        .enumerate()
        .map(|(index, peer)| compared.row(peer.name, index, MAPS.min(peers.len() - 1), measure))
        .collect();
    println!("\n## {heading}\n");
    table(&HEAD, &rows);
    println!();
}

fn own_keys(report: &mut Report, options: &Options, runtime: &Runtime, workers: u64) -> Result<()> {
    let name = format!("w1-{workers}");
    let mut peers = [
        ours(runtime, workers, None),
        bare(runtime, workers, false),
        maps(runtime, workers, None),
        lockable(runtime, workers, None),
    ];
    let compared =
        Compared::run(report, &name, &mut peers, &window(options, Detail::Rates, 0), options.rounds(7))?;
    Compared::run(
        report,
        &format!("{name}-history"),
        &mut peers[..1],
        &window(options, Detail::History, 0),
        1,
    )?;
    show(&format!("W1, {workers} workers on keys of their own"), &compared, &peers, Round::per_second);
    match workers {
        1 => {
            // CPU, and the best round: what other load does to the clock on the wall says nothing of the lock.
            let cpu = |round: &Round| 1e9 * round.cpu_seconds / float(round.grants.max(1));
            let best = compared.of(FENCELOCK).iter().map(cpu).fold(f64::INFINITY, f64::min);
            report.at_most("W1, 1 worker: ns of CPU a cycle, best round", best, 600.0);
        }
        16 => {
            let ratio = compared.ratio(FENCELOCK, LOCKABLE, Round::per_second);
            report.at_least("W1, 16 workers: × lockable", ratio, 1.0);
        }
        _ => {}
    }
    Ok(())
}

fn threads(report: &mut Report, options: &Options, one: &Runtime, two: &Runtime) -> Result<()> {
    let mut peers = [ours(two, 16, None), ours(one, 16, None), bare(two, 16, false), bare(one, 16, false)];
    let plan = window(options, Detail::Rates, 0);
    let compared = Compared::run(report, "w1-16-threads", &mut peers, &plan, options.rounds(7))?;
    let (ours, floor) = (compared.ratio(0, 1, Round::per_second), compared.ratio(2, 3, Round::per_second));
    println!("\n## From one thread to two, 16 workers\n\nfencelock ×{ours:.2}, tokio RwLock ×{floor:.2}\n");
    report.at_least("W1, 16 workers: × from one thread to two", ours, 1.7);
    Ok(())
}

fn one_key(
    report: &mut Report,
    options: &Options,
    runtime: &Runtime,
    workers: u64,
    label: &str,
) -> Result<()> {
    let name = format!("w2-{workers}{label}");
    let mut peers = [
        ours(runtime, workers, Some("one")),
        bare(runtime, workers, true),
        maps(runtime, workers, Some("one")),
        lockable(runtime, workers, Some("one")),
    ];
    let compared =
        Compared::run(report, &name, &mut peers, &window(options, Detail::Rates, 0), options.rounds(7))?;
    show(
        &format!("W2, {workers} workers on one key{label}"),
        &compared,
        &peers,
        Round::hand_overs_per_second,
    );
    let witnessed = Compared::run(
        report,
        &format!("{name}-history"),
        &mut peers,
        &window(options, Detail::History, 0),
        1,
    )?;
    show("the same with every turn noted", &witnessed, &peers, Round::hand_overs_per_second);
    let ratio = compared.ratio(FENCELOCK, MAPS, Round::hand_overs_per_second);
    if workers == 8 {
        report.at_least(format!("W2, 8 workers{label}: × 64 maps of mutexes"), ratio, 0.35);
    }
    // Of two workers on two threads, one may be stopped while it is not in the queue; that is nobody's barging.
    if workers > 2 || !label.is_empty() {
        let to_itself = compared.of(FENCELOCK).iter().map(Round::self_share).fold(0.0, f64::max);
        report.at_most(format!("W2, {workers} workers{label}: share back to the releaser"), to_itself, 0.01);
    }
    Ok(())
}

fn readers(report: &mut Report, options: &Options, runtime: &Runtime, name: &str, shared: u8) -> Result<()> {
    let mut peers = [ours(runtime, 16, Some("one")), bare(runtime, 16, true)];
    let compared =
        Compared::run(report, name, &mut peers, &window(options, Detail::Rates, shared), options.rounds(5))?;
    Compared::run(
        report,
        &format!("{name}-history"),
        &mut peers[..1],
        &window(options, Detail::History, shared),
        1,
    )?;
    show(&format!("{name}, 16 workers on one key, {shared} % shared"), &compared, &peers, Round::per_second);
    let starved = compared.of(FENCELOCK).iter().map(|round| round.starved).sum();
    report.at_most(format!("{name}: starved workers"), float(starved), 0.0);
    Ok(())
}
