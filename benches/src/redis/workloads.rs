//! The workloads on one server.

use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::LockClient;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::peers::{DELETE_OWN, Pair, Token};
use super::server::{Counted, Server, connect};
use crate::clock::{float, nanos, seconds};
use crate::compare::{Compared, HEAD, Peer};
use crate::drive::{self, Plan, Round};
use crate::memory::Ours;
use crate::report::{Line, Report, table};
use crate::worker::{Contender, Detail, Spot};
use crate::{Options, Result, held};

/// Where the figures go, and what they are taken from.
pub(crate) struct Bench<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) options: &'a Options,
    pub(crate) runtime: &'a Runtime,
    pub(crate) server: &'a Server,
}

const FENCELOCK: usize = 0;
const FLOOR: usize = 1;

impl<'a> Bench<'a> {
    fn plan(&self, seconds: f64, hold: Duration, shared: u8) -> Plan {
        Plan { window: self.options.window(seconds), hold, shared, detail: Detail::History }
    }

    /// Ours: every worker on the one key if there is one, and with a client of its own if asked for.
    fn ours(&self, workers: u64, one_key: bool, own_clients: bool) -> Peer<'a> {
        let (runtime, server) = (self.runtime, self.server);
        Peer::new("fencelock", move |plan| {
            let common = random_key();
            let mut contenders = Vec::new();
            let mut client = runtime.block_on(client(server))?;
            let spot = Arc::<Spot>::default();
            for _ in 0..workers {
                if own_clients {
                    client = runtime.block_on(self::client(server))?;
                }
                let key = if one_key { common.clone() } else { random_key() };
                let spot = if one_key { spot.clone() } else { Arc::default() };
                contenders.push((Ours(client.lock(key)?), spot));
            }
            counted(runtime, server, contenders, plan)
        })
    }

    fn pair(&self, workers: u64) -> Peer<'a> {
        let (runtime, server) = (self.runtime, self.server);
        Peer::new("SET NX PX + EVALSHA", move |plan| {
            let (connection, sha) = runtime.block_on(async {
                let mut connection = connect(&server.url).await?;
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

    fn token(&self, workers: u64) -> Peer<'a> {
        let (runtime, server) = (self.runtime, self.server);
        Peer::new("BLPOP token", move |plan| {
            let list = random_key();
            let spot = Arc::<Spot>::default();
            let contenders = runtime.block_on(async {
                let mut contenders = Vec::new();
                for _ in 0..workers {
                    let connection = connect(&server.url).await?;
                    contenders.push((Token { connection, list: list.clone() }, spot.clone()));
                }
                let mut giver = connect(&server.url).await?;
                redis::cmd("RPUSH").arg(&list).arg("token").query_async::<()>(&mut giver).await?;
                Ok::<_, crate::Failure>(contenders)
            })?;
            counted(runtime, server, contenders, plan)
        })
    }

    pub(crate) fn own_keys(&mut self, workers: u64) -> Result<()> {
        let mut peers = [self.ours(workers, false, false), self.pair(workers)];
        let plan = self.plan(0.7, Duration::ZERO, 0);
        let name = format!("w1-{workers}");
        let compared = Compared::run(self.report, &name, &mut peers, &plan, self.options.rounds(7))?;
        show(
            &format!("W1, {workers} workers on keys of their own"),
            &compared,
            &peers,
            FLOOR,
            Round::per_second,
        );
        let wanted = match workers {
            1 => 0.9,
            16 => 0.75,
            _ => 0.6,
        };
        let what = format!("W1, {workers} workers: × SET NX PX + EVALSHA");
        self.report.at_least(what, compared.ratio(FENCELOCK, FLOOR, Round::per_second), wanted);
        let requests = compared.median(FENCELOCK, |round| each(round, Counted::requests));
        self.report.at_most(format!("W1, {workers} workers: requests a cycle"), requests, 2.01);
        Ok(())
    }

    /// All the workloads in which workers wait for each other.
    pub(crate) fn contended(&mut self) -> Result<()> {
        let mut work = Vec::new();
        for (workers, hold, own_clients) in
            [(2, 0, false), (8, 0, false), (8, 0, true), (64, 0, false), (8, 1, false), (8, 150, false)]
        {
            let mut name =
                if hold == 0 { format!("w2-{workers}") } else { format!("w2-hold-{hold}ms-{workers}") };
            if own_clients {
                name.push_str("-clients");
            }
            if self.options.wants(&name) {
                let commands = self.one_key(&name, workers, Duration::from_millis(hold), own_clients)?;
                if hold == 0 {
                    work.push((workers, commands));
                }
            }
        }
        let least = work.iter().map(|&(_, commands)| commands).fold(f64::INFINITY, f64::min);
        if let Some(&(workers, most)) = work.iter().max_by(|one, other| one.1.total_cmp(&other.1)) {
            let what = format!("W2: commands inside scripts a grant, most ({workers} workers) : fewest");
            self.report.at_most(what, most / least, 2.0);
        }
        Ok(())
    }

    /// The commands of the server for each grant.
    fn one_key(&mut self, name: &str, workers: u64, hold: Duration, own_clients: bool) -> Result<f64> {
        let mut peers = [self.ours(workers, true, own_clients), self.token(workers)];
        let (window, rounds) = if hold > Duration::from_millis(50) { (3.0, 1) } else { (1.0, 5) };
        let plan = self.plan(window, hold, 0);
        let compared = Compared::run(self.report, name, &mut peers, &plan, self.options.rounds(rounds))?;
        show(
            &format!("{name}: {workers} workers on one key, each holds for {hold:?}"),
            &compared,
            &peers,
            FLOOR,
            Round::hand_overs_per_second,
        );
        let commands = compared.median(FENCELOCK, |round| each(round, Counted::commands));
        let scripts = compared.median(FENCELOCK, |round| server_of(round, Counted::script_micros));
        let requests = compared.median(FENCELOCK, |round| each(round, Counted::requests));
        let messages = compared.median(FENCELOCK, |round| each(round, |server| server.calls("publish")));
        println!(
            "a grant: {requests:.2} requests, {messages:.2} messages, {commands:.1} commands in all, {scripts:.1} µs a script\n"
        );
        if !hold.is_zero() {
            return Ok(commands);
        }
        let ratio = compared.ratio(FENCELOCK, FLOOR, Round::hand_overs_per_second);
        self.report.at_least(format!("{name}: × BLPOP token, hand-overs"), ratio, 0.5);
        let fair = compared.median(FENCELOCK, |round| float(round.most) / float(round.fewest.max(1)));
        self.report.at_most(format!("{name}: most : fewest grants"), fair, 1.049);
        let longest = compared.median(FENCELOCK, Round::longest_of_fair);
        // The floor's stands beside it: where the machine keeps somebody waiting, it does so to both.
        let floor = compared.median(FLOOR, Round::longest_of_fair);
        let what = format!("{name}: longest wait, × the fair share (the floor's: {floor:.1})");
        self.report.at_most(what, longest, 2.0);
        self.report.at_most(format!("{name}: requests a grant"), requests, 3.0);
        self.report.at_most(format!("{name}: messages a grant"), messages, 1.01);
        let drained = compared.median(FENCELOCK, |round| round.drained_ms);
        self.report.at_most(format!("{name}: drained, ms"), drained, 50.0);
        Ok(commands)
    }

    pub(crate) fn readers(&mut self, name: &str, shared: u8) -> Result<()> {
        let mut peers = [self.ours(16, true, false), self.ours(16, false, false)];
        peers[1].name = "fencelock, W1";
        let plan = self.plan(1.0, Duration::ZERO, shared);
        let rounds = self.options.rounds(3);
        let compared = Compared::run(self.report, name, &mut peers, &plan, rounds)?;
        let heading = format!("{name}: 16 workers on one key, {shared} % shared");
        show(&heading, &compared, &peers, FLOOR, Round::per_second);
        if shared == 100 {
            let ratio = compared.ratio(FENCELOCK, FLOOR, Round::per_second);
            self.report.at_least(format!("{name}: × W1 at 16"), ratio, 0.5);
        }
        let starved = compared.of(FENCELOCK).iter().map(|round| round.starved).sum();
        self.report.at_most(format!("{name}: starved workers"), float(starved), 0.0);
        Ok(())
    }

    pub(crate) fn held(&mut self, locks: u64) -> Result<()> {
        let seconds = self.options.held_seconds(10);
        let hold = held::Hold { locks, ttl: Duration::from_secs(15), seconds };
        let server = self.server;
        let seen = self.runtime.block_on(async {
            let backend = RedisBackend::connect(&server.url).await?;
            held::run(backend, &hold, Some(server)).await
        })?;
        println!("\n## W4, ttl 15 s\n\n{seen}\n");
        let name = format!("w4-{locks}");
        self.report.line(seen.line(&name));
        let per_second = float(seen.requests) / seen.seconds;
        self.report.at_most(format!("{name}: requests/s"), per_second, 100.0);
        self.report.at_most(format!("{name}: CPU s in 10 s"), seen.cpu_seconds * 10.0 / seen.seconds, 0.1);
        self.report.at_most(format!("{name}: lost"), float(seen.lost), 0.0);
        Ok(())
    }

    /// One holder, and many who do nothing but wait.
    pub(crate) fn idle(&mut self, waiters: u64) -> Result<()> {
        let server = self.server;
        let window = self.options.window(8.0);
        let (counted, took, drained) = self.runtime.block_on(async {
            let locks = client(server).await?;
            let key = random_key();
            let holder = locks.lock(key.as_str())?.exclusive().acquire().await?;
            let mut tasks = JoinSet::new();
            for _ in 0..waiters {
                let lock = locks.lock(key.as_str())?;
                tasks.spawn(async move { lock.exclusive().acquire().await?.release().await });
            }
            while locks.lock(key.as_str())?.inspect().await?.waiters.len() < usize::try_from(waiters)? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let (before, began) = (server.count().await?, nanos());
            tokio::time::sleep(window).await;
            let (counted, took) = (server.count().await?.since(&before), seconds(began, nanos()));
            let began = nanos();
            holder.release().await?;
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok::<_, crate::Failure>((counted, took, seconds(began, nanos())))
        })?;
        let per_second = float(counted.requests()) / took;
        println!(
            "\n## {waiters} waiters on one key\n\n{per_second:.0} requests/s while they wait, {:.1} µs a script; all served within {:.1} ms of the release\n",
            counted.script_micros(),
            drained * 1e3
        );
        self.report.line(Line {
            peer: "fencelock".into(),
            workload: format!("idle-{waiters}"),
            clients: waiters,
            secs: took,
            ops_per_s: per_second,
            server_cmds: Some(counted.requests()),
            cmds: Some(counted.commands()),
            server_cpu_s: Some(counted.cpu_seconds),
            drain_ms: Some(drained * 1e3),
            ..Line::default()
        });
        self.report.at_most(format!("{waiters} idle waiters: requests/s"), per_second, 500.0);
        Ok(())
    }
}

async fn client(server: &Server) -> Result<LockClient> {
    Ok(LockClient::new(RedisBackend::connect(&server.url).await?))
}

fn random_key() -> String {
    format!("bench/{:016x}", fastrand::u64(..))
}

fn counted<C: Contender>(
    runtime: &Runtime,
    server: &Server,
    contenders: Vec<(C, Arc<Spot>)>,
    plan: &Plan,
) -> Result<Round> {
    let before = runtime.block_on(server.count())?;
    let mut round = drive::run(runtime, contenders, plan)?;
    round.server = Some(runtime.block_on(server.count())?.since(&before));
    Ok(round)
}

fn server_of(round: &Round, of: impl Fn(&Counted) -> f64) -> f64 {
    round.server.as_ref().map_or(f64::NAN, of)
}

/// A count of the server for each grant; the few after the window are counted on both sides.
fn each(round: &Round, of: impl Fn(&Counted) -> u64) -> f64 {
    server_of(round, |server| float(of(server)) / float(round.acquire.len().max(1)))
}

fn show(heading: &str, compared: &Compared, peers: &[Peer<'_>], to: usize, measure: fn(&Round) -> f64) {
    let rows: Vec<Vec<String>> =
        peers.iter().enumerate().map(|(index, peer)| compared.row(peer.name, index, to, measure)).collect();
    println!("\n## {heading}\n");
    table(&HEAD, &rows);
    println!();
}
