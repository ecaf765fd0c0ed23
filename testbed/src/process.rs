//! Child processes that end with the process that started them, however that one ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::tools::require;
use crate::wait::{PATIENCE, wait_for};

/// What to run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Where it is; otherwise it is looked for by its name.
    pub(crate) file: Option<PathBuf>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
}

/// A running child. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Process {
    /// Starts the program; what it prints goes to `log`, after what is there already.
    pub(crate) fn start(program: &Program, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let file = match &program.file {
            Some(file) => file.clone(),
            None => require(program.name)?,
        };
        let mut command = guarded(&file)?;
        command
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&program.dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(command)?;
        Ok(Self { child, name: program.name, log: log.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of the log, when the process has ended.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let how =
                    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
                Err(io::Error::other(format!(
                    "{} ended ({how}); its log says:\n{}",
                    self.name,
                    self.log_end()
                )))
            }
        }
    }

    /// The last lines of what the process has printed.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Kills the process and waits for its end: its sockets are closed when this returns.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks the process to end and waits until it has.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        let name = self.name;
        wait_for(&format!("the end of {name}"), PATIENCE, || Ok(self.child.try_wait()?.map(drop)))
    }

    /// Stops the process (SIGSTOP) and waits until it stands still: a signal takes effect a little after it is sent.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        let id = self.id();
        wait_for(&format!("{} to stand still", self.name), PATIENCE, || {
            self.check_alive()?;
            Ok((state(id) == Some('T')).then_some(()))
        })
    }

    /// Lets a paused process go on (SIGCONT).
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // The check reaps a child that has ended; one that has not keeps its id, so no stranger gets the signal.
        self.check_alive()?;
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process id out of range"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}

/// Tells whether a process exists and has not ended.
///
/// A zombie (ended, but not yet waited for by its parent) counts as ended.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The kernel's letter for what the process is doing.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state …", where the name may have blanks and parentheses in it.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A command that the kernel kills when its parent dies.
///
/// `setpriv` asks the kernel for that and turns into the shell, which turns into the program: one process, one id. The
/// shell's part is the parent that has died *before* the kernel was asked: then the child has another parent.
fn guarded(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(require("setpriv")?);
    command
        .args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c", r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#])
        .arg(process::id().to_string())
        .arg(program);
    Ok(command)
}

/// Starts the command from a thread that lives as long as this process.
///
/// The parent whose death the kernel watches is the *thread* that started the child, and a test's thread ends with the
/// test: a server that several tests share must not end with the first of them.
fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts servers has ended");
    let (answer, result) = mpsc::channel();
    spawner()?.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

type Order = (Command, Sender<io::Result<Child>>);

fn spawner() -> io::Result<Sender<Order>> {
    static SPAWNER: OnceLock<Mutex<Option<Sender<Order>>>> = OnceLock::new();
    let mut spawner = SPAWNER.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*spawner {
        return Ok(sender.clone());
    }
    let (sender, orders) = mpsc::channel::<Order>();
    // It never ends: the static keeps a sender.
    thread::Builder::new().name("testbed-spawner".into()).spawn(move || {
        for (mut command, answer) in orders {
            let _ = answer.send(command.spawn());
        }
    })?;
    *spawner = Some(sender.clone());
    Ok(sender)
}
