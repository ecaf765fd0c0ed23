//! What the tests have in common: a server, a key of their own, and runs in the background.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testbed::{RedisServer, wait_for};

/// Far more than anything takes; what fails is seen to fail, not to be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder and a server for one test. The key is `k`, unless the test shares its server.
pub(crate) struct Stage {
    url: String,
    key: String,
    folder: TempDir,
}

impl Stage {
    /// On the server that the tests share, with a key of its own.
    pub(crate) fn new() -> Stage {
        static SERVER: OnceLock<RedisServer> = OnceLock::new();
        static KEYS: AtomicU32 = AtomicU32::new(0);
        let server = SERVER.get_or_init(|| RedisServer::start().unwrap());
        let number = KEYS.fetch_add(1, Ordering::Relaxed);
        Stage { key: format!("test {number}/k"), ..Stage::on(server) }
    }

    /// On a server that the test does things to.
    pub(crate) fn on(server: &RedisServer) -> Stage {
        Stage { url: server.url(), key: "k".into(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the children wrote to a file; nothing if there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits for a file with at least one whole line, and gives its first.
    pub(crate) fn line(&self, name: &str) -> String {
        eventually(&format!("a line in {name}"), || {
            self.text(name).split_once('\n').map(|(line, _)| line.to_owned())
        })
    }

    /// Waits for a process id in a file.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.line(name).trim().parse().unwrap()
    }

    /// The command with the server in its environment, in the test's folder.
    pub(crate) fn fencelock<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = fencelock();
        command.args(args).env("FENCELOCK_BACKEND", &self.url).current_dir(self.folder.path());
        command
    }

    /// Runs to the end: `run OPTIONS KEY COMMAND…`.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Output {
        self.fencelock(self.run_args(options, command)).output().unwrap()
    }

    /// The same in the background.
    pub(crate) fn start(&self, options: &[&str], command: &[&str]) -> Run {
        Run::start(self.fencelock(self.run_args(options, command)))
    }

    /// Starts a shell script under the lock, which is held and runs when `script` has written its first line to `ready`.
    pub(crate) fn start_script(&self, options: &[&str], script: &str) -> Run {
        let run = self.start(options, &["sh", "-c", script]);
        self.line("ready");
        run
    }

    fn run_args<'a>(&'a self, options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run"], options, &[self.key()], command].concat()
    }

    /// `inspect --json`.
    pub(crate) fn inspect(&self) -> Value {
        let output = self.fencelock(["inspect", "--json", self.key()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until so many claims wait.
    pub(crate) fn wait_for_waiters(&self, count: usize) {
        eventually(&format!("{count} waiters"), || (waiters(&self.inspect()) == count).then_some(()));
    }
}

/// Waits until `check` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    wait_for(what, PATIENCE, || Ok(check())).unwrap()
}

pub(crate) fn waiters(snapshot: &Value) -> usize {
    snapshot["waiting"].as_array().unwrap().len()
}

pub(crate) fn holders(snapshot: &Value) -> usize {
    snapshot["holders"].as_array().unwrap().len()
}

/// A command in the state in which a terminal starts one. Tests that run in the background of a script have signals
/// ignored, which fencelock rightly keeps so.
pub(crate) fn afresh(program: &str) -> Command {
    let mut command = Command::new(testbed::require("env").unwrap());
    command.args(["--default-signal", program]);
    command
}

/// The command without any of our settings in its environment.
pub(crate) fn fencelock() -> Command {
    let mut command = afresh(env!("CARGO_BIN_EXE_fencelock"));
    for name in ["BACKEND", "BACKEND_FILE", "KEY", "MODE", "TOKEN", "OWNER"] {
        command.env_remove(format!("FENCELOCK_{name}"));
    }
    command
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A `fencelock` in the background. Dropping it kills it, and by that its child.
pub(crate) struct Run {
    process: Child,
    output: TempDir,
}

impl Run {
    pub(crate) fn start(mut command: Command) -> Run {
        let output = tempfile::tempdir().unwrap();
        let file = |name| File::create(output.path().join(name)).unwrap();
        let process = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Run { process, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.output.path().join("out")).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        fs::read_to_string(self.output.path().join("err")).unwrap()
    }

    pub(crate) fn status(&mut self) -> ExitStatus {
        wait_for("the end of fencelock", PATIENCE, || self.process.try_wait()).unwrap()
    }

    /// Waits for the end, and gives the exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let status = self.status();
        status.code().unwrap_or_else(|| panic!("fencelock was killed: {status}, {}", self.err()))
    }

    /// The guardian's process id.
    pub(crate) fn guardian(&self) -> u32 {
        wait_for("the guardian", PATIENCE, || Ok(guardian_of(self.pid()))).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn guardian_of(parent: u32) -> Option<u32> {
    let is_guardian = |pid| fields(pid).is_some_and(|(name, _)| name == "fencelock-guard");
    pids().find(|&pid| is_guardian(pid) && is_child(pid, parent))
}

/// All processes.
fn pids() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

fn is_child(pid: u32, parent: u32) -> bool {
    fields(pid).is_some_and(|(_, fields)| fields.get(1) == Some(&parent.to_string()))
}

/// The kernel's letter for what a process is doing: R, S, T for stopped, Z for ended. Nothing when it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    fields(pid)?.1.first()?.chars().next()
}

/// Waits until a process stands still: a signal takes effect a little after it was sent.
#[track_caller]
pub(crate) fn wait_for_stop(pid: u32) {
    // A shell that was about to start a program waits for it in the kernel, and cannot be stopped meanwhile; but then
    // the program was.
    let stands = || match state(pid)? {
        'T' => Some(()),
        'D' => pids().any(|child| is_child(child, pid) && state(child) == Some('T')).then_some(()),
        _ => None,
    };
    eventually("a process to stand still", stands);
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn wait_for_end(what: &str, pid: u32, bound: Duration) {
    wait_for(&format!("the end of {what}"), bound, || Ok((!testbed::is_running(pid)).then_some(()))).unwrap();
}

/// The name of a process and the fields behind it in its stat.
fn fields(pid: u32) -> Option<(String, Vec<String>)> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    Some((name.to_owned(), rest.split_whitespace().map(ToOwned::to_owned).collect()))
}

/// A script that does "work" for ever, a line in `ticks` each time, and says in `ready` when it has begun.
pub(crate) const WORK: &str =
    "while :; do echo t >> ticks; [ -s ready ] || echo $$ > ready; sleep 0.01; done";

/// How much of that work was done.
pub(crate) fn work_done(stage: &Stage) -> u64 {
    match fs::metadata(stage.path("ticks")) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => panic!("{error}"),
    }
}
