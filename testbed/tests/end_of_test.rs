//! Servers end with the test process, however it ends.
//!
//! Each test runs itself again as a process that starts a server; that process then ends in the test's way.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::{self, Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use testbed::{RedisServer, is_running, wait_for};

/// Set in the process that a test starts.
const ROLE: &str = "FENCELOCK_TESTBED_ROLE";

fn in_role() -> bool {
    env::var_os(ROLE).is_some()
}

/// Runs the named test of this file in a process of its own, and gives it with the id of the server that it starts.
fn start_role(test: &str) -> (Child, u32) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let pid =
        output.lines().map_while(Result::ok).find_map(|line| line.strip_prefix("server=")?.parse().ok());
    (child, pid.expect("the test's process started no server"))
}

/// Tells the test the server's id, on a line of its own.
fn announce(server: &RedisServer) {
    println!("\nserver={}", server.pid().unwrap());
}

fn wait_for_end(pid: u32) -> io::Result<()> {
    wait_for("the server to end", Duration::from_secs(10), || Ok((!is_running(pid)).then_some(())))
}

#[test]
fn killed() {
    if in_role() {
        let server = RedisServer::start().unwrap();
        announce(&server);
        thread::sleep(Duration::from_secs(600));
        return;
    }
    let (mut child, pid) = start_role("killed");
    assert!(is_running(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_end(pid).unwrap();
}

#[test]
fn killed_while_the_server_is_paused() {
    if in_role() {
        let server = RedisServer::start().unwrap();
        server.pause().unwrap();
        announce(&server);
        thread::sleep(Duration::from_secs(600));
        return;
    }
    let (mut child, pid) = start_role("killed_while_the_server_is_paused");
    assert!(is_running(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_end(pid).unwrap();
}

#[test]
fn exited_with_a_server_in_a_static() {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    if in_role() {
        announce(SERVER.get_or_init(|| RedisServer::start().unwrap()));
        process::exit(0);
    }
    let (mut child, pid) = start_role("exited_with_a_server_in_a_static");
    assert!(child.wait().unwrap().success());
    wait_for_end(pid).unwrap();
}
