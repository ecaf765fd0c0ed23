//! The workloads that are the same on every server.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Lock, LockClient};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::{float, nanos, seconds};
use crate::compare::{Compared, HEAD, Measure, Peer, median};
use crate::drive::{self, Plan, Round};
use crate::held::{self, Hold, Seen};
use crate::memory::Ours;
use crate::report::{Line, Report, table};
use crate::server::{Counting, Server};
use crate::worker::{Contender, Detail, Spot};
use crate::{Options, Result};

/// Where the figures go, and what they are taken from.
pub(crate) struct Bench<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) options: &'a Options,
    pub(crate) runtime: &'a Runtime,
    pub(crate) server: &'a dyn Server,
}

/// Where ours, and what it is measured by, stand among the peers.
pub(crate) const FENCELOCK: usize = 0;
pub(crate) const FLOOR: usize = 1;

/// All waiters stand in the queue within this time.
const JOINED_WITHIN: Duration = Duration::from_secs(60);

/// So many releases are looked at one by one.
const RELEASES: u64 = 9;

/// A workload in which workers wait for each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contended {
    pub(crate) workers: u64,
    pub(crate) hold: Duration,
    /// Whether each of ours has a client, and a connection, of its own.
    pub(crate) own_clients: bool,
}

pub(crate) const CONTENDED: [Contended; 6] = [
    contended(2, 0, false),
    contended(8, 0, false),
    contended(8, 0, true),
    contended(64, 0, false),
    contended(8, 1, false),
    contended(8, 150, false),
];

const fn contended(workers: u64, hold_ms: u64, own_clients: bool) -> Contended {
    Contended { workers, hold: Duration::from_millis(hold_ms), own_clients }
}

impl Contended {
    pub(crate) fn name(&self) -> String {
        let hold = if self.hold.is_zero() { String::new() } else { format!("hold-{:?}-", self.hold) };
        format!("w2-{hold}{}{}", self.workers, if self.own_clients { "-clients" } else { "" })
    }
}

impl<'a> Bench<'a> {
    pub(crate) fn plan(&self, seconds: f64, hold: Duration, shared: u8) -> Plan {
        Plan { window: self.options.window(seconds), hold, shared, detail: Detail::History }
    }

    /// Ours: every worker on the one key if there is one, and with a client of its own if asked for.
    pub(crate) fn ours(&self, workers: u64, one_key: bool, own_clients: bool) -> Peer<'a> {
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

    /// Runs the peers in turn and prints a table, in which each stands beside the floor.
    pub(crate) fn compare(
        &mut self,
        (name, heading): (&str, &str),
        mut peers: Vec<Peer<'_>>,
        plan: &Plan,
        rounds: usize,
        measure: Measure,
    ) -> Result<Compared> {
        let compared = Compared::run(self.report, name, &mut peers, plan, self.options.rounds(rounds))?;
        let row = |(index, peer): (usize, &Peer<'_>)| compared.row(peer.name, index, FLOOR, measure);
        let rows: Vec<Vec<String>> = peers.iter().enumerate().map(row).collect();
        println!("\n## {heading}\n");
        table(&HEAD, &rows);
        println!();
        Ok(compared)
    }

    /// Workers on keys of their own.
    pub(crate) fn own_keys(&mut self, workers: u64, peers: Vec<Peer<'_>>) -> Result<Compared> {
        let plan = self.plan(0.7, Duration::ZERO, 0);
        let heading = format!("W1, {workers} workers on keys of their own");
        self.compare((&format!("w1-{workers}"), &heading), peers, &plan, 7, Round::per_second)
    }

    /// Workers on one key.
    pub(crate) fn one_key(&mut self, contended: &Contended, peers: Vec<Peer<'_>>) -> Result<Compared> {
        let Contended { workers, hold, .. } = *contended;
        let name = contended.name();
        let (window, rounds) = if hold > Duration::from_millis(50) { (3.0, 1) } else { (1.0, 5) };
        let plan = self.plan(window, hold, 0);
        let heading = format!("{name}: {workers} workers on one key, each holds for {hold:?}");
        self.compare((&name, &heading), peers, &plan, rounds, Round::hand_overs_per_second)
    }

    /// What is wanted of hand-overs on every server: fairness, and at most so many requests a grant and ms of a drain.
    pub(crate) fn hands_over_well(&mut self, name: &str, compared: &Compared, requests: f64, drain: f64) {
        // Of those who take turns some have had one turn more when the window ends.
        let fair = |round: &Round| float(round.most.saturating_sub(1)) / float(round.fewest.max(1));
        let fair = compared.median(FENCELOCK, fair).max(1.0);
        self.report.at_most(format!("{name}: most : fewest grants"), fair, 1.049);
        let longest = compared.median(FENCELOCK, Round::longest_of_fair);
        // The floor's stands beside it: where the machine keeps somebody waiting, it does so to both.
        let floor = compared.median(FLOOR, Round::longest_of_fair);
        let what = format!("{name}: longest wait, × the fair share (the floor's: {floor:.1})");
        self.report.at_most(what, longest, 2.0);
        let sent = compared.each(FENCELOCK, |server| server.requests);
        self.report.at_most(format!("{name}: requests a grant"), sent, requests);
        let messages = compared.each(FENCELOCK, |server| server.messages);
        self.report.at_most(format!("{name}: messages a grant"), messages, 1.01);
        let drained = compared.median(FENCELOCK, |round| round.drained_ms);
        self.report.at_most(format!("{name}: drained, ms"), drained, drain);
    }

    /// Workers on one key of whom some or all only share, beside as many on keys of their own.
    pub(crate) fn readers(
        &mut self,
        name: &str,
        shared: u8,
        of_own_keys: f64,
        others: Vec<Peer<'_>>,
    ) -> Result<Compared> {
        let mut peers = vec![self.ours(16, true, false), self.ours(16, false, false)];
        peers[FLOOR].name = "fencelock, W1";
        peers.extend(others);
        let plan = self.plan(1.0, Duration::ZERO, shared);
        let heading = format!("{name}: 16 workers on one key, {shared} % shared");
        let compared = self.compare((name, &heading), peers, &plan, 3, Round::per_second)?;
        if shared == 100 {
            let ratio = compared.ratio(FENCELOCK, FLOOR, Round::per_second);
            self.report.at_least(format!("{name}: × W1 at 16"), ratio, of_own_keys);
        }
        let starved = compared.of(FENCELOCK).iter().map(|round| round.starved).sum();
        self.report.at_most(format!("{name}: starved workers"), float(starved), 0.0);
        Ok(compared)
    }

    /// A lock that was taken so often before, beside one that is new: what is past must not cost.
    pub(crate) fn aged(&mut self, times: u64) -> Result<()> {
        let (runtime, server) = (self.runtime, self.server);
        let locks = runtime.block_on(client(server))?;
        let key = random_key();
        runtime.block_on(age(&locks, &key, times))?;
        let of_key = |name, make_key: fn(&str) -> String| {
            let (locks, key) = (locks.clone(), key.clone());
            Peer::new(name, move |plan| {
                let contender = Ours(locks.lock(make_key(&key))?);
                counted(runtime, server, vec![(contender, Arc::default())], plan)
            })
        };
        let peers = vec![of_key("an old lock", str::to_owned), of_key("a new lock", |_| random_key())];
        let (name, plan) = (format!("aged-{times}"), self.plan(0.7, Duration::ZERO, 0));
        let heading = format!("{name}: 1 worker on a lock that was taken {times} times before");
        let compared = self.compare((&name, &heading), peers, &plan, 5, Round::per_second)?;
        let ratio = compared.ratio(FENCELOCK, FLOOR, Round::per_second);
        self.report.at_least(format!("{name}: × a new lock"), ratio, 0.9);
        Ok(())
    }

    /// Locks that are held and renewed.
    pub(crate) fn held(&mut self, locks: u64) -> Result<Seen> {
        let hold = Hold { locks, ttl: Duration::from_secs(15), seconds: self.options.held_seconds(10) };
        let server = self.server;
        let seen =
            self.runtime.block_on(async { held::run(server.connect().await?, &hold, Some(server)).await })?;
        println!("\n## W4, ttl 15 s\n\n{seen}\n");
        let name = format!("w4-{locks}");
        self.report.line(seen.line(&name));
        self.report.at_most(format!("{name}: CPU s in 10 s"), seen.cpu_seconds * 10.0 / seen.seconds, 0.1);
        self.report.at_most(format!("{name}: lost"), float(seen.lost), 0.0);
        Ok(seen)
    }

    /// Many who do nothing but wait; then a few releases one by one, and then everybody's turn.
    pub(crate) fn idle(&mut self, waiters: u64) -> Result<()> {
        let server = self.server;
        let window = self.options.window(8.0);
        let (idle, took, releases, drained) = self.runtime.block_on(async {
            let clients = [client(server).await?, client(server).await?];
            let locks = &clients[0];
            let key = random_key();
            let holder = locks.lock(key.as_str())?.exclusive().acquire().await?;
            let (granted, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
            let mut tasks = JoinSet::new();
            for index in 1..=waiters {
                // The first ones stand in a known order, each behind one of the other client.
                let one_by_one = index <= RELEASES + 1;
                let client = if one_by_one && index % 2 == 0 { &clients[1] } else { locks };
                let (lock, granted, go_on) = (client.lock(key.as_str())?, granted.clone(), go_on.clone());
                tasks.spawn(async move {
                    let guard = lock.exclusive().acquire().await?;
                    granted.notify_one();
                    // An error says that it was closed: everybody may go on.
                    if let Ok(permit) = go_on.acquire().await {
                        permit.forget();
                    }
                    guard.release().await
                });
                if one_by_one || index == waiters {
                    all_wait(&locks.lock(key.as_str())?, index).await?;
                }
            }
            let (counting, began) = (Counting::begin(server).await?, nanos());
            tokio::time::sleep(window).await;
            let (idle, took) = (counting.end().await?, seconds(began, nanos()));
            holder.release().await?;
            granted.notified().await;
            let mut releases = Vec::new();
            for _ in 0..RELEASES {
                let counting = Counting::begin(server).await?;
                go_on.add_permits(1);
                granted.notified().await;
                releases.push(counting.end().await?);
            }
            let began = nanos();
            go_on.close();
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            Ok::<_, crate::Failure>((idle, took, releases, seconds(began, nanos())))
        })?;
        let per_second = float(idle.requests) / took;
        // Heartbeats of those who wait fall into some of them.
        let requests = median(releases.iter().map(|release| float(release.requests)).collect());
        let messages = releases.iter().map(|release| release.messages).max().unwrap_or(0);
        println!(
            "\n## {waiters} waiters on one key\n\n{per_second:.0} requests/s while they wait; a release: {requests} requests, at most {messages} messages; all served within {:.1} ms\n",
            drained * 1e3
        );
        self.report.line(
            Line {
                peer: "fencelock".into(),
                workload: format!("idle-{waiters}"),
                clients: waiters,
                secs: took,
                ops_per_s: per_second,
                drain_ms: Some(drained * 1e3),
                ..Line::default()
            }
            .with_server(Some(&idle)),
        );
        self.report.at_most(format!("{waiters} idle waiters: requests/s"), per_second, 500.0);
        let what = format!("{waiters} idle waiters: messages at a release");
        self.report.at_most(what, float(messages), 1.0);
        Ok(())
    }
}

async fn client(server: &dyn Server) -> Result<LockClient> {
    Ok(LockClient::new(server.connect().await?))
}

/// Takes a lock and lets it go, so often, by some who share it.
async fn age(locks: &LockClient, key: &str, times: u64) -> Result<()> {
    let mut tasks = JoinSet::new();
    for worker in 0..16 {
        let lock = locks.lock(key)?;
        tasks.spawn(async move {
            for _ in (worker..times).step_by(16) {
                lock.shared().acquire().await?.release().await?;
            }
            Ok::<_, lockcore::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Until so many are seen to wait. A server on which many join at once may be too busy to say, for a while.
async fn all_wait(lock: &Lock, waiters: u64) -> Result<()> {
    let waiters = usize::try_from(waiters)?;
    let seen = async {
        while !lock.inspect().await.is_ok_and(|snapshot| snapshot.waiters.len() >= waiters) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(JOINED_WITHIN, seen).await.map_err(|_| format!("{waiters} did not come to wait").into())
}

pub(crate) fn random_key() -> String {
    format!("bench/{:016x}", fastrand::u64(..))
}

/// Runs a window, and has the server count.
pub(crate) fn counted<C: Contender>(
    runtime: &Runtime,
    server: &dyn Server,
    contenders: Vec<(C, Arc<Spot>)>,
    plan: &Plan,
) -> Result<Round> {
    let counting = runtime.block_on(Counting::begin(server))?;
    let mut round = drive::run(runtime, contenders, plan)?;
    round.server = Some(runtime.block_on(counting.end())?);
    Ok(round)
}
