//! `fencelock run`: a command under a lock.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use fencelock::{Any, ErrorKind, LockClient, LockGuard};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::child::Workload;
use crate::cli::RunArgs;
use crate::clock::Moment;
use crate::duration::short;
use crate::exit::{Failure, LOST, OWN_FAILURE, by_signal, describe};
use crate::signals::{ENDING, OTHERS, Signals};
use crate::supervise::{Loss, Supervisor};
use crate::terminal::Terminal;
use crate::tidings::in_the_way;
use crate::voice::{say, tell};
use crate::watch::Guardian;

/// How long the withdrawal from the queue may take, for whoever pressed Ctrl-C.
const TO_WITHDRAW: Duration = Duration::from_secs(3);

/// How long the release may take. What is not released by then runs out by itself.
const TO_RELEASE: Duration = Duration::from_secs(5);

/// The same for a lock that was lost: its server is away, or has forgotten the claim already.
const TO_RELEASE_LOST: Duration = Duration::from_secs(1);

/// What is to be done, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) key: String,
    pub(crate) shared: bool,
    pub(crate) wait: Option<Duration>,
    pub(crate) ttl: Duration,
    pub(crate) grace: Duration,
    /// KILL comes this much before the end of the lease, to have worked by then on a machine with too much to do.
    pub(crate) margin: Duration,
    pub(crate) owner: String,
    pub(crate) note: Option<String>,
    pub(crate) not_acquired: u8,
    pub(crate) command: Vec<OsString>,
}

/// How the child ended.
struct End {
    status: ExitStatus,
    loss: Loss,
}

/// Acquires, runs, releases; gives the exit code.
pub(crate) async fn run(args: RunArgs) -> Result<u8, Failure> {
    args.volume.set();
    let (backend, plan) = args.plan()?;
    let backend = backend.find()?;
    if backend.is_private() {
        say("memory: keeps its locks in this process: it excludes nobody else");
    }
    let mut signals = Signals::listen(&ENDING).map_err(system("listen to signals"))?;
    let outcome = match signals.or(backend.connect()).await {
        Err(signal) => return Ok(by_signal(signal.as_raw())),
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(locks)) => with_client(&plan, &locks, &mut signals).await,
    };
    outcome.map_err(|failure| backend.shield(failure))
}

async fn with_client(plan: &Plan, locks: &LockClient, signals: &mut Signals) -> Result<u8, Failure> {
    let asked = Moment::now();
    let acquired = async {
        tokio::select! {
            biased;
            acquired = acquire(plan, locks) => acquired,
            never = in_the_way(locks, &plan.key) => match never {},
        }
    };
    let guard = match signals.or(acquired).await {
        Err(signal) => return Ok(withdraw(locks, signals, signal).await),
        Ok(Err(error)) => {
            if error.may_have_happened() {
                let _ = timeout(TO_WITHDRAW, locks.close()).await;
            }
            return Err(Failure::of_acquire(&error, plan.not_acquired));
        }
        Ok(Ok(guard)) => guard,
    };
    let (key, granted) = (plan.key.as_str(), Moment::now());
    let waited = short(granted.since(asked));
    tell(format_args!("granted {key:?} {}, token {}, after {waited}", guard.mode(), guard.token()));
    // Started only now: while waiting, perhaps for hours, there is nothing to guard.
    let guardian = match signals.or(Guardian::start(plan.grace.mul_f64(0.9))).await {
        Err(signal) => {
            drop(guard);
            return Ok(withdraw(locks, signals, signal).await);
        }
        Ok(guardian) => guardian.map_err(system("start the guardian process")),
    };
    let ended = match guardian {
        Ok(guardian) => under_lock(plan, &guard, guardian, signals).await,
        Err(failure) => Err(failure),
    };
    let lost = ended.as_ref().is_ok_and(|end| end.loss.is_some());
    let released = timeout(if lost { TO_RELEASE_LOST } else { TO_RELEASE }, guard.release()).await;
    let End { status, loss } = ended?;
    match released {
        _ if loss.is_some() => return Ok(LOST),
        Ok(Ok(())) => {
            tell(format_args!("released {key:?}, held for {}", short(Moment::now().since(granted))));
        }
        Ok(Err(error)) if error.kind() == ErrorKind::Lost => {
            say(format_args!("lock {:?} lost while the command ran: {}", plan.key, error.message()));
            return Ok(LOST);
        }
        Ok(Err(error)) => say(format_args!("{}; it runs out by itself", describe(&error))),
        Err(_) => say(format_args!("release {:?}: no answer; it runs out by itself", plan.key)),
    }
    Ok(exit_code(status))
}

/// The lock, with enough of its lease left to begin.
async fn acquire(plan: &Plan, locks: &LockClient) -> fencelock::Result<LockGuard<Any>> {
    let lock = locks.lock(plan.key.as_str())?;
    macro_rules! acquire {
        ($mode:ident) => {{
            let mut acquire = lock.$mode().ttl(plan.ttl).owner(plan.owner.as_str());
            if let Some(wait) = plan.wait {
                acquire = acquire.wait(wait);
            }
            if let Some(note) = &plan.note {
                acquire = acquire.note(note.as_str());
            }
            acquire.acquire().await?.into_any()
        }};
    }
    let mut guard = if plan.shared { acquire!(shared) } else { acquire!(exclusive) };
    // A hand-over leaves what is left of the waiter's lease, which may be less than the child's grace.
    match guard.renew_if_below(plan.ttl.mul_f64(0.8)).await {
        Err(error) if guard.remaining() <= plan.grace + plan.margin => Err(error),
        Ok(_) | Err(_) => Ok(guard),
    }
}

/// Runs the child while the lock is held.
async fn under_lock(
    plan: &Plan,
    guard: &LockGuard<Any>,
    mut guardian: Guardian,
    signals: &mut Signals,
) -> Result<End, Failure> {
    signals.also(&OTHERS).map_err(system("listen to signals"))?;
    let token = guard.token().to_string();
    let mode = guard.mode().to_string();
    // The last word in the child's environment: of two runs inside one another, the inner one is meant.
    let env: [(&str, &OsStr); 4] = [
        ("FENCELOCK_KEY", plan.key.as_ref()),
        ("FENCELOCK_MODE", mode.as_ref()),
        ("FENCELOCK_TOKEN", token.as_ref()),
        ("FENCELOCK_OWNER", plan.owner.as_ref()),
    ];
    let child = Workload::start(&plan.command, &env).map_err(system("start the command"))?;
    let watched = guardian.watch(child.group()).await;
    let ended = match watched {
        Ok(()) => {
            let tick = plan.ttl / 12;
            let (grace, margin, terminal) = (plan.grace, plan.margin, Terminal::open());
            Supervisor { guard, child: &child, guardian: &guardian, signals, grace, margin, tick, terminal }
                .run()
                .await
        }
        Err(error) => Err(error),
    };
    if ended.is_err() {
        child.signal(Signal::KILL);
    }
    // In this order: once the child was waited for, its id may be a stranger's, whom nobody must signal.
    let acted = guardian.stand_down().await;
    let status = child.reap().map_err(system("wait for the command"))?;
    let mut loss = ended.map_err(system("watch the command"))?;
    if acted && loss.is_none() {
        let why = "the lease was not renewed in time while fencelock was stopped";
        say(format_args!("lock {:?} lost: {why}; the guardian ended the command", plan.key));
        loss = Some(why.into());
    }
    Ok(End { status, loss })
}

/// Leaves the queue, or the lock; gives the exit code. A second signal ends that at once.
async fn withdraw(locks: &LockClient, signals: &mut Signals, signal: Signal) -> u8 {
    tell("a signal: leaving");
    let left = timeout(TO_WITHDRAW, locks.close());
    match signals.or(left).await {
        Ok(Ok(Ok(()))) => {
            tell("withdrawn by a signal");
            by_signal(signal.as_raw())
        }
        Ok(Ok(Err(_)) | Err(_)) => {
            say("the server did not confirm the withdrawal; it forgets this claim in a few seconds");
            by_signal(signal.as_raw())
        }
        Err(second) => by_signal(second.as_raw()),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => by_signal(signal),
        (None, None) => OWN_FAILURE,
    }
}

/// Makes a failure of a system call that was to do `what`.
fn system<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::own(format!("cannot {what}: {error}"))
}
