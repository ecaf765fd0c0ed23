//! Measures the scripts against the bare pair `SET NX PX` + `EVALSHA` (compare and delete), one connection each, in turns:
//! `cargo run --release -p lock-redis --example throughput -- redis://127.0.0.1 [seconds] [rounds]`.
//!
//! Beside the rates it gives the CPU time of one cycle in client and server, which tells more than rates on a machine that
//! has other work. It is a tool for whoever changes a script; `cargo xtask bench redis` judges the whole client.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{Attempt, Claim, Key, LockBackend, Mode, Queue, Release};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const COMPARE_AND_DELETE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// What one run reached: cycles a second, and microseconds of CPU time for each in client and server.
#[derive(Clone, Copy, Debug)]
struct Run {
    rate: f64,
    client: f64,
    server: f64,
}

/// CPU seconds of this process so far.
fn client_cpu() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no /proc/self/stat")?.1.split_whitespace().skip(11).take(2);
    Ok(fields.map(|ticks| ticks.parse::<f64>().unwrap_or_default()).sum::<f64>() / 100.0)
}

/// CPU seconds of the server so far.
async fn server_cpu(connection: &mut MultiplexedConnection) -> Outcome<f64> {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(connection).await?;
    let seconds = |line: &str| {
        let rest = line
            .strip_prefix("used_cpu_user_main_thread:")
            .or(line.strip_prefix("used_cpu_sys_main_thread:"));
        rest.and_then(|seconds| seconds.trim().parse::<f64>().ok())
    };
    Ok(info.lines().filter_map(seconds).sum())
}

/// Runs `cycle` on that many workers for a while.
async fn measure<F, Fut>(
    admin: &MultiplexedConnection,
    workers: usize,
    time: Duration,
    cycle: F,
) -> Outcome<Run>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Outcome<()>> + Send,
{
    let (stop, cycles) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut admin = admin.clone();
    let (client, server) = (client_cpu()?, server_cpu(&mut admin).await?);
    let start = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let (stop, cycles, cycle) = (stop.clone(), cycles.clone(), cycle.clone());
            tokio::spawn(async move {
                let mut mine = 0;
                while !stop.load(Ordering::Relaxed) {
                    cycle(worker).await?;
                    mine += 1;
                }
                cycles.fetch_add(mine, Ordering::Relaxed);
                Outcome::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    let cycles = f64::from(cycles.load(Ordering::Relaxed));
    let each = |seconds: f64| seconds * 1e6 / cycles;
    Ok(Run {
        rate: cycles / start.elapsed().as_secs_f64(),
        client: each(client_cpu()? - client),
        server: each(server_cpu(&mut admin).await? - server),
    })
}

async fn bare(mut connection: MultiplexedConnection, sha: Arc<str>, worker: usize) -> Outcome<()> {
    let key = format!("bare/{worker}");
    let value = fastrand::u128(..).to_string();
    let mut set = redis::cmd("SET");
    set.arg(&key).arg(&value).arg("NX").arg("PX").arg(30_000);
    let set: Option<String> = set.query_async(&mut connection).await?;
    if set.is_none() {
        return Err("somebody else has the bare key".into());
    }
    let mut delete = redis::cmd("EVALSHA");
    delete.arg(&*sha).arg(1).arg(&key).arg(&value);
    let _deleted: i64 = delete.query_async(&mut connection).await?;
    Ok(())
}

async fn ours(backend: Arc<RedisBackend>, key: Key, mode: Mode) -> Outcome<()> {
    let claim = Arc::new(Claim::new(key, mode, Duration::from_secs(30)));
    let attempt = backend.clone().acquire(claim.clone(), Queue::Join).await?;
    if !matches!(attempt, Attempt::Granted(_)) {
        return Err(format!("{attempt:?}").into());
    }
    backend.release(vec![Release { claim, answered: true, only_waiting: false }]).await.remove(0)?;
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn show(name: &str, runs: &[Run], floors: &[Run]) {
    let ratio = median(runs.iter().zip(floors).map(|(run, floor)| run.rate / floor.rate));
    println!(
        "  {name:20} {:8.0}/s  x {ratio:4.2}   CPU of a cycle: client {:5.1} us, server {:5.1} us",
        median(runs.iter().map(|run| run.rate)),
        median(runs.iter().map(|run| run.client)),
        median(runs.iter().map(|run| run.server)),
    );
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut args = env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "redis://127.0.0.1".into());
    let time = Duration::from_secs_f64(args.next().map_or(Ok(0.5), |text| text.parse())?);
    let rounds: usize = args.next().map_or(Ok(7), |text| text.parse())?;
    let backend = RedisBackend::connect(&url).await?;
    let client = redis::Client::open(url)?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut load = redis::cmd("SCRIPT");
    let sha: String = load.arg("LOAD").arg(COMPARE_AND_DELETE).query_async(&mut connection).await?;
    let sha: Arc<str> = sha.into();

    for workers in [1, 16, 128] {
        let keys: Arc<[Key]> = (0..workers).map(|n| Key::new(format!("w{n}"))).collect::<Result<_, _>>()?;
        let one = Key::new("readers")?;
        let (mut floors, mut exclusive, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (bare_on, sha) = (connection.clone(), sha.clone());
            let cycle = move |worker| bare(bare_on.clone(), sha.clone(), worker);
            floors.push(measure(&connection, workers, time, cycle).await?);
            let (locks, keys) = (backend.clone(), keys.clone());
            let cycle = move |worker: usize| ours(locks.clone(), keys[worker].clone(), Mode::Exclusive);
            exclusive.push(measure(&connection, workers, time, cycle).await?);
            let (locks, one) = (backend.clone(), one.clone());
            let cycle = move |_| ours(locks.clone(), one.clone(), Mode::Shared);
            shared.push(measure(&connection, workers, time, cycle).await?);
        }
        println!("{workers} workers");
        show("bare pair", &floors, &floors);
        show("exclusive", &exclusive, &floors);
        show("shared, one key", &shared, &floors);
    }
    Ok(())
}
