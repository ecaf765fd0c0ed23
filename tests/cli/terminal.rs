//! A child that uses the terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::stage::{PATIENCE, Stage, afresh, fencelock};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A session on a terminal of its own.
struct Session {
    screen: Arc<Mutex<String>>,
    keyboard: File,
    process: Child,
}

impl Session {
    fn start(stage: &Stage, command: &mut Command) -> Session {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
        let side = || {
            let file = File::options().read(true).write(true).open(&name).unwrap();
            Stdio::from(OwnedFd::from(file))
        };
        let mut session = afresh("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.env("FENCELOCK_BACKEND", stage.url()).current_dir(stage.path("."));
        let process = session.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let keyboard = File::from(main);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (keyboard.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut some = [0; 1024];
            // It fails when the last process of the session has ended.
            while let Ok(length @ 1..) = from.read(&mut some) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..length]));
            }
        });
        Session { screen, keyboard, process }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn wait_for(&self, text: &str) {
        let seen = || self.screen.lock().unwrap().clone();
        testbed::wait_for(text, PATIENCE, || Ok(seen().contains(text).then_some(())))
            .unwrap_or_else(|error| panic!("{error}; the screen shows {:?}", seen()));
    }

    fn code(&mut self) -> Option<i32> {
        testbed::wait_for("the session's end", PATIENCE, || self.process.try_wait()).unwrap().code()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(stage: &Stage, script: &str) -> Session {
    let mut command = fencelock();
    command.args(["run", stage.key(), "sh", "-c", script]);
    Session::start(stage, &mut command)
}

#[test]
fn a_child_may_read_from_the_terminal() {
    let stage = Stage::new();
    let mut session = run(&stage, "echo name?; read name; echo hello $name; exit 4");
    session.wait_for("name?");
    session.press("fence\n");
    session.wait_for("hello fence");
    assert_eq!(session.code(), Some(4));
}

#[test]
fn a_child_may_change_the_terminals_settings() {
    let stage = Stage::new();
    let mut session = run(&stage, "stty -echo; echo word?; read word; stty echo; echo got $word");
    session.wait_for("word?");
    session.press("hush\n");
    session.wait_for("got hush");
    assert_eq!(session.code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_child_that_does_not_use_the_terminal() {
    let stage = Stage::new();
    let mut session = run(&stage, "echo begun; while :; do sleep 0.01; done");
    session.wait_for("begun");
    session.press("\x03");
    assert_eq!(session.code(), Some(130));
}

#[test]
fn ctrl_c_ends_a_child_that_has_the_terminal() {
    let stage = Stage::new();
    let mut session = run(&stage, "read one; echo read $one; read two");
    session.press("first\n");
    session.wait_for("read first");
    session.press("\x03");
    assert_eq!(session.code(), Some(130));
}

#[test]
fn the_terminal_comes_back_after_the_child() {
    let stage = Stage::new();
    let script = format!(
        "'{}' run '{}' sh -c 'read one; echo inner $one'; read two; echo outer $two",
        env!("CARGO_BIN_EXE_fencelock"),
        stage.key()
    );
    let mut session = Session::start(&stage, Command::new("sh").args(["-c", &script]));
    session.press("a\n");
    session.wait_for("inner a");
    session.press("b\n");
    session.wait_for("outer b");
    assert_eq!(session.code(), Some(0));
}

#[test]
fn a_shell_with_job_control_can_stop_and_continue_it() {
    let stage = Stage::new();
    let script = format!(
        "set -m; '{}' run '{}' sh -c 'read one; echo first $one; read two; echo second $two'; \
         echo stopped with $?; fg; echo ended with $?",
        env!("CARGO_BIN_EXE_fencelock"),
        stage.key()
    );
    let mut session = Session::start(&stage, Command::new("bash").args(["-c", &script]));
    session.press("a\n");
    session.wait_for("first a");
    session.press("\x1a");
    session.wait_for("stopped with");
    session.press("b\n");
    session.wait_for("second b");
    session.wait_for("ended with 0");
    assert_eq!(session.code(), Some(0));
}
