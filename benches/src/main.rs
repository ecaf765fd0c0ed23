//! Measures fencelock beside what the same server, or the same process, can do at best.
//!
//! Peers run in alternating rounds in one process; every round of ours is checked for overlapping holders and tokens that
//! do not grow, and a run in which that happened is void.

mod bench;
mod clock;
mod compare;
mod counted;
mod drive;
mod etcd;
mod held;
mod history;
mod kafka;
mod memory;
mod redis;
mod report;
mod server;
mod worker;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// What any part of a measurement can fail with.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The result of a part of a measurement.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Measure fencelock beside what the same server can do at best
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Options {
    /// What to measure
    backend: Backend,
    /// Only workloads whose name has one of these in it: w1-16, w2, w2-hold-1ms, w3-mix, w4, idle, …
    filters: Vec<String>,
    /// Measure on this server instead of one of our own: redis=HOST:PORT, etcd-disk=HOST:PORT, kafka=HOST:PORT; the name before `=` goes into the results
    #[arg(long, value_name = "NAME=HOST:PORT", value_delimiter = ',', value_parser = named)]
    servers: Vec<(String, String)>,
    /// Where a server of our own keeps its data, both unless told (etcd)
    #[arg(long)]
    medium: Option<etcd::Medium>,
    /// How long each round takes, as a multiple of what it takes otherwise
    #[arg(long, default_value_t = 1.0)]
    stretch: f64,
    /// How many rounds each figure is the median of, instead of what suits the workload
    #[arg(long)]
    rounds: Option<usize>,
    /// How many seconds locks are held in W4, 10 unless told
    #[arg(long)]
    held: Option<u64>,
    /// Where the result lines go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    Memory,
    Redis,
    Etcd,
    Kafka,
}

fn named(text: &str) -> std::result::Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("a server is given as NAME=HOST:PORT")?;
    let name = if name.eq_ignore_ascii_case("redis") { "redis-mem".to_owned() } else { name.to_lowercase() };
    Ok((name.replace('_', "-"), address.to_owned()))
}

impl Options {
    /// Whether a workload is asked for.
    pub(crate) fn wants(&self, workload: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| workload.contains(&filter.to_lowercase()))
    }

    /// The servers of somebody else: those of the options, else of the variables, each with the name that it gets.
    pub(crate) fn servers_or(&self, variables: &[(&str, &str)]) -> Vec<(String, String)> {
        if !self.servers.is_empty() {
            return self.servers.clone();
        }
        let of = |&(variable, name): &(&str, &str)| Some((name.to_owned(), std::env::var(variable).ok()?));
        variables.iter().filter_map(of).collect()
    }

    pub(crate) fn window(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.stretch)
    }

    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual).max(1)
    }

    pub(crate) fn held_seconds(&self, usual: u64) -> Duration {
        Duration::from_secs(self.held.unwrap_or(usual))
    }
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("void: a history shows what no lock may do, or somebody was never served");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("lock-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<bool> {
    println!("load before: {}", load());
    let reports = match options.backend {
        Backend::Memory => vec![memory::run(options)?],
        Backend::Redis => redis::run(options)?,
        Backend::Etcd => etcd::run(options)?,
        Backend::Kafka => vec![kafka::run(options)?],
    };
    println!("\nload after: {}", load());
    let mut sound = true;
    for report in reports {
        sound &= report.finish(Path::new(&options.results))?;
    }
    Ok(sound)
}

/// How busy the machine is: three averages, and how many threads run.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
