//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::backend::BackendArgs;
use crate::duration::{parse, short};
use crate::exit::{Failure, NOT_ACQUIRED, TABLE};
use crate::run::Plan;
use crate::voice::Volume;

/// The grace of a child, unless the ttl is too short for it.
const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(5);

/// Enough for a KILL to be carried out, short enough not to matter.
const LONGEST_MARGIN: Duration = Duration::from_millis(250);

/// Below this, starting a process takes a good part of the lease.
const SHORTEST_TTL: Duration = Duration::from_millis(100);

/// Distributed locks on the command line
#[derive(Parser, Debug)]
#[command(name = "fencelock", version, after_help = TABLE, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Run a command while holding a lock
    #[command(after_help = TABLE, override_usage = "fencelock run [OPTIONS] KEY [--] CMD...\n       fencelock run [OPTIONS] -c STR KEY")]
    Run(RunArgs),
    /// Show who holds a lock and who waits for it
    Inspect(InspectArgs),
    /// Take a lock off its holders by force
    ///
    /// Prints what was broken; exits with 1 when there was nothing to break. A broken holder learns it at once or at its next
    /// renewal; until then only fencing tokens keep it from writing.
    Break(BreakArgs),
    /// List the keys that somebody holds or waits for
    List(ListArgs),
    /// Check the history of a lock for what no lock may do
    ///
    /// A history has one event in each line, as JSON; docs/cli.md describes them. Prints what is wrong, with the claims that show
    /// it, and exits with 1; one that is in order, with 0.
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    backend: BackendArgs,

    /// Hold the lock together with other shared holders
    #[arg(short = 's', long, conflicts_with = "exclusive")]
    shared: bool,

    /// Hold the lock alone (the default)
    #[arg(short = 'x', long)]
    exclusive: bool,

    /// Do not wait: fail at once if others hold the lock
    #[arg(short = 'n', long, conflicts_with = "wait")]
    nonblock: bool,

    /// How long to wait for the lock at most: seconds, or 90s, 5m; 0 is -n. For ever, if not given
    #[arg(short = 'w', long, visible_alias = "timeout", value_name = "DUR", value_parser = parse)]
    wait: Option<Duration>,

    /// The exit status if the lock is not acquired
    #[arg(short = 'E', long, value_name = "N", default_value_t = NOT_ACQUIRED)]
    conflict_exit_code: u8,

    /// How long the lock outlives this process if the machine dies; it is renewed every third of this
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = parse)]
    ttl: Duration,

    /// Who holds the lock, for others to see [default: HOST/PID]
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,

    /// What for, for others to see
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// If the lock is lost: how long before the end of the lease CMD gets TERM; at its end it gets KILL. At most half of the
    /// ttl [default: 5s, or a third of a shorter ttl]
    #[arg(long, value_name = "DUR", value_parser = parse)]
    kill_after: Option<Duration>,

    /// Run STR by /bin/sh instead of CMD
    #[arg(short = 'c', long = "command", value_name = "STR")]
    shell: Option<OsString>,

    #[command(flatten)]
    pub(crate) volume: Volume,

    /// What is locked, any text of up to 512 bytes; then the command and its arguments. Options of fencelock end at KEY
    // One list, so that nothing behind KEY is taken for an option of ours.
    #[arg(value_names = ["KEY", "CMD"], required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<OsString>,
}

impl RunArgs {
    /// Checks what can be checked without the server.
    pub(crate) fn plan(self) -> Result<(BackendArgs, Plan), Failure> {
        let RunArgs { ttl, kill_after, .. } = self;
        if ttl < SHORTEST_TTL {
            return Err(Failure::misuse(format!("--ttl {ttl:?} is too short: at least {SHORTEST_TTL:?}")));
        }
        // A renewal is due after a third of the lease. What is left of the first half is for its answer to arrive.
        let longest = ttl / 2;
        let grace = kill_after.unwrap_or(DEFAULT_KILL_AFTER.min(ttl / 3));
        if grace > longest {
            return Err(Failure::misuse(format!(
                "--kill-after {} leaves a lease of {} no time to be renewed: at most half of it, {}, or a longer --ttl",
                short(grace),
                short(ttl),
                short(longest)
            )));
        }
        let (key, command) = split(self.words)?;
        let command = match self.shell {
            Some(line) if command.is_empty() => vec!["/bin/sh".into(), "-c".into(), line],
            Some(_) => return Err(Failure::misuse("-c STR and CMD cannot be used together")),
            None if command.is_empty() => {
                return Err(Failure::misuse("no command given: run [OPTIONS] KEY CMD..."));
            }
            None => command,
        };
        let plan = Plan {
            key,
            shared: self.shared,
            wait: if self.nonblock { Some(Duration::ZERO) } else { self.wait },
            ttl,
            grace,
            margin: (ttl / 20).min(LONGEST_MARGIN),
            owner: self.owner.unwrap_or_else(default_owner),
            note: self.note,
            not_acquired: self.conflict_exit_code,
            command,
        };
        Ok((self.backend, plan))
    }
}

/// KEY and CMD, without the `--` that may stand in between.
fn split(words: Vec<OsString>) -> Result<(String, Vec<OsString>), Failure> {
    let mut words = words.into_iter();
    let key = words.next().unwrap_or_default();
    let key = key
        .into_string()
        .map_err(|key| Failure::misuse(format!("the key {} is not valid UTF-8", key.display())))?;
    let mut command: Vec<OsString> = words.collect();
    if command.first().is_some_and(|word| word == "--") {
        command.remove(0);
    }
    Ok((key, command))
}

/// Such as `web-3/4711`: who to ask, and which process.
fn default_owner() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,

    /// The same as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Whose holders and waiters to show
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

#[derive(Args, Debug)]
pub(crate) struct BreakArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,

    /// Only the holder with this fencing token
    #[arg(long, value_name = "N", conflicts_with = "owner")]
    pub(crate) token: Option<u64>,

    /// Only the claims of this owner, waiting ones too
    #[arg(long, value_name = "TEXT")]
    pub(crate) owner: Option<String>,

    /// Which lock; all its holders, unless told otherwise
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,

    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Only keys that begin so
    #[arg(value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: String,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The lock was fair: who was seen in the queue before another asked is granted before it
    #[arg(long)]
    pub(crate) fair: bool,

    /// The history is over: every attempt must have come to an end
    #[arg(long)]
    pub(crate) complete: bool,

    /// How long the lock may be free at most while somebody waits
    #[arg(long, value_name = "DUR", value_parser = parse)]
    pub(crate) drained_within: Option<Duration>,

    /// If something is wrong, draw it into this file, an SVG image
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// The answer as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// The history, such as history.jsonl; - is stdin
    #[arg(value_name = "HISTORY")]
    pub(crate) history: PathBuf,
}
