//! What is measured on Redis, and what is wanted of it.

use std::sync::Arc;

use super::peers::{DELETE_OWN, Pair, Token};
use super::server::connect;
use crate::Result;
use crate::bench::{Bench, CONTENDED, Contended, FENCELOCK, FLOOR, counted, random_key};
use crate::clock::float;
use crate::compare::Peer;
use crate::drive::Round;
use crate::server::Counted;
use crate::worker::Spot;

fn pair<'a>(bench: &Bench<'a>, workers: u64) -> Peer<'a> {
    let (runtime, server) = (bench.runtime, bench.server);
    Peer::new("SET NX PX + EVALSHA", move |plan| {
        let (connection, sha) = runtime.block_on(async {
            let mut connection = connect(server.url()).await?;
            let sha: String =
                redis::cmd("SCRIPT").arg("LOAD").arg(DELETE_OWN).query_async(&mut connection).await?;
            Ok::<_, crate::Failure>((connection, sha))
        })?;
        let contenders = (0..workers).map(|_| {
            let (connection, sha) = (connection.clone(), sha.clone());
            let value = format!("{:032x}", fastrand::u128(..));
            (Pair { connection, key: random_key(), value, sha }, Arc::default())
        });
        counted(runtime, server, contenders.collect(), plan)
    })
}

fn token<'a>(bench: &Bench<'a>, workers: u64) -> Peer<'a> {
    let (runtime, server) = (bench.runtime, bench.server);
    Peer::new("BLPOP token", move |plan| {
        let list = random_key();
        let spot = Arc::<Spot>::default();
        let contenders = runtime.block_on(async {
            let mut contenders = Vec::new();
            for _ in 0..workers {
                let connection = connect(server.url()).await?;
                contenders.push((Token { connection, list: list.clone() }, spot.clone()));
            }
            let mut giver = connect(server.url()).await?;
            redis::cmd("RPUSH").arg(&list).arg("token").query_async::<()>(&mut giver).await?;
            Ok::<_, crate::Failure>(contenders)
        })?;
        counted(runtime, server, contenders, plan)
    })
}

pub(crate) fn own_keys(bench: &mut Bench<'_>, workers: u64) -> Result<()> {
    let peers = vec![bench.ours(workers, false, false), pair(bench, workers)];
    let compared = bench.own_keys(workers, peers)?;
    let wanted = match workers {
        1 => 0.9,
        16 => 0.75,
        _ => 0.6,
    };
    let what = format!("W1, {workers} workers: × SET NX PX + EVALSHA");
    bench.report.at_least(what, compared.ratio(FENCELOCK, FLOOR, Round::per_second), wanted);
    let requests = compared.each(FENCELOCK, |server| server.requests);
    bench.report.at_most(format!("W1, {workers} workers: requests a cycle"), requests, 2.01);
    Ok(())
}

/// All the workloads in which workers wait for each other.
pub(crate) fn contended(bench: &mut Bench<'_>) -> Result<()> {
    let mut work = Vec::new();
    for each in CONTENDED {
        if bench.options.wants(&each.name()) {
            let commands = one_key(bench, &each)?;
            if each.hold.is_zero() {
                work.push((each.workers, commands));
            }
        }
    }
    let least = work.iter().map(|&(_, commands)| commands).fold(f64::INFINITY, f64::min);
    if let Some(&(workers, most)) = work.iter().max_by(|one, other| one.1.total_cmp(&other.1)) {
        let what = format!("W2: commands inside scripts a grant, most ({workers} workers) : fewest");
        bench.report.at_most(what, most / least, 2.0);
    }
    Ok(())
}

/// The commands of the server for each grant.
fn one_key(bench: &mut Bench<'_>, contended: &Contended) -> Result<f64> {
    let Contended { workers, own_clients, .. } = *contended;
    let peers = vec![bench.ours(workers, true, own_clients), token(bench, workers)];
    let compared = bench.one_key(contended, peers)?;
    let grant = |of: fn(&Counted) -> u64| compared.each(FENCELOCK, of);
    let commands = grant(|server| server.commands.unwrap_or_default());
    let requests = grant(|server| server.requests);
    let messages = grant(|server| server.messages);
    let scripts = compared.median(FENCELOCK, script_micros);
    println!(
        "a grant: {requests:.2} requests, {messages:.2} messages, {commands:.1} commands in all, {scripts:.1} µs a script\n"
    );
    if contended.hold.is_zero() {
        let name = contended.name();
        let ratio = compared.ratio(FENCELOCK, FLOOR, Round::hand_overs_per_second);
        bench.report.at_least(format!("{name}: × BLPOP token, hand-overs"), ratio, 0.5);
        bench.hands_over_well(&name, &compared, 3.0, 50.0);
    }
    Ok(commands)
}

fn script_micros(round: &Round) -> f64 {
    round.server.as_ref().and_then(|server| server.script_micros).unwrap_or(f64::NAN)
}

pub(crate) fn held(bench: &mut Bench<'_>, locks: u64) -> Result<()> {
    let seen = bench.held(locks)?;
    bench.report.at_most(format!("w4-{locks}: requests/s"), float(seen.requests) / seen.seconds, 100.0);
    Ok(())
}
