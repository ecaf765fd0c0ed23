//! A real Redis server does what its options and faults say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use testbed::{Fsync, RedisServer, Reply, is_running, require, wait_for};

fn text(text: &str) -> Reply {
    Reply::Text(text.into())
}

/// Asks over TCP, as a user does, with the server's own client.
fn cli(server: &RedisServer, args: &[&str]) -> Output {
    let mut command = Command::new(require("redis-cli").unwrap());
    command.args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "--no-auth-warning"]);
    command.args(args).output().unwrap()
}

fn answer(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where the server keeps its data.
fn folder(server: &RedisServer) -> PathBuf {
    let Reply::List(pair) = server.command(&["CONFIG", "GET", "dir"]).unwrap() else { panic!("no list") };
    PathBuf::from(pair[1].as_text().unwrap())
}

#[test]
fn it_answers_on_its_port_and_ends_when_dropped() {
    let server = RedisServer::start().unwrap();
    let (pid, folder) = (server.pid().unwrap(), folder(&server));
    assert_eq!(answer(&cli(&server, &["PING"])), "PONG");
    assert_eq!(server.command(&["SET", "k", "v"]).unwrap(), text("OK"));
    assert_eq!(server.command(&["GET", "k"]).unwrap(), text("v"));
    assert_eq!(server.info("process_id").unwrap(), pid.to_string());
    drop(server);
    assert!(!is_running(pid));
    assert!(!folder.exists());
}

#[test]
fn a_refused_command_is_an_error() {
    let server = RedisServer::start().unwrap();
    let error = server.command(&["NONSENSE"]).unwrap_err();
    assert!(error.to_string().contains("redis refused NONSENSE: ERR unknown command"), "{error}");
    assert_eq!(server.info("no_such_field").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let error = RedisServer::options().arg("maxmemory-policy", "whatever").start().unwrap_err();
    let message = error.to_string();
    assert!(message.contains("redis-server ended") && message.contains("maxmemory-policy"), "{message}");
}

#[test]
fn options_arrive() {
    let server = RedisServer::options()
        .arg("maxmemory-policy", "allkeys-lru")
        .arg("notify-keyspace-events", "")
        .start()
        .unwrap();
    assert_eq!(server.info("maxmemory_policy").unwrap(), "allkeys-lru");
}

#[test]
fn a_password_is_asked_for() {
    let server = RedisServer::options().password("p \"ss\\w@rd").start().unwrap();
    assert_eq!(server.url(), format!("redis://:p%20%22ss%5Cw%40rd@127.0.0.1:{}", server.port()));
    assert!(answer(&cli(&server, &["PING"])).starts_with("NOAUTH"));
    assert_eq!(answer(&cli(&server, &["-a", "p \"ss\\w@rd", "PING"])), "PONG");
    assert_eq!(server.command(&["PING"]).unwrap(), text("PONG"));
}

#[test]
fn a_user_is_asked_for_and_others_have_fewer_rights() {
    let server =
        RedisServer::options().user("ann", "secret").arg("user", "guest on >pw ~app:* +get").start().unwrap();
    assert_eq!(server.url(), format!("redis://ann:secret@127.0.0.1:{}", server.port()));
    assert!(answer(&cli(&server, &["PING"])).starts_with("NOAUTH"));
    let ann = ["--user", "ann", "--pass", "secret", "SET", "app:1", "x"];
    assert_eq!(answer(&cli(&server, &ann)), "OK");
    let guest = ["--user", "guest", "--pass", "pw"];
    assert_eq!(answer(&cli(&server, &[&guest[..], &["GET", "app:1"]].concat())), "x");
    assert!(answer(&cli(&server, &[&guest[..], &["DEL", "app:1"]].concat())).starts_with("NOPERM"));
}

#[test]
fn tls_with_a_certificate_that_holds_for_the_address() {
    let server = RedisServer::options().tls().password("pw").start().unwrap();
    assert_eq!(server.url(), format!("rediss://:pw@127.0.0.1:{}", server.port()));
    let ca = server.ca_path().unwrap().to_str().unwrap();
    assert_eq!(answer(&cli(&server, &["--tls", "--cacert", ca, "-a", "pw", "PING"])), "PONG");
    // Neither in the clear, nor under an authority that did not sign.
    assert_ne!(answer(&cli(&server, &["-a", "pw", "PING"])), "PONG");
    let other = RedisServer::options().tls().start().unwrap();
    let stranger = other.ca_path().unwrap().to_str().unwrap();
    assert_ne!(answer(&cli(&server, &["--tls", "--cacert", stranger, "-a", "pw", "PING"])), "PONG");
    assert_eq!(server.command(&["PING"]).unwrap(), text("PONG"));
}

#[test]
fn a_restart_keeps_the_port_and_only_persisted_data() {
    for (server, left) in [
        (RedisServer::start().unwrap(), Reply::Nil),
        (RedisServer::options().appendfsync(Fsync::Always).start().unwrap(), text("v")),
    ] {
        let (port, pid) = (server.port(), server.pid().unwrap());
        server.command(&["SET", "k", "v"]).unwrap();
        server.restart().unwrap();
        assert!(!is_running(pid));
        assert_eq!(server.port(), port);
        assert_eq!(server.command(&["GET", "k"]).unwrap(), left);
    }
}

#[test]
fn a_killed_server_is_gone_until_restarted() {
    let server = RedisServer::start().unwrap();
    let pid = server.pid().unwrap();
    server.kill().unwrap();
    assert!(!is_running(pid));
    assert_eq!(server.pid(), None);
    assert!(server.command(&["PING"]).is_err());
    assert_eq!(server.pause().unwrap_err().kind(), io::ErrorKind::NotConnected);
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(answer(&cli(&server, &["PING"])), "PONG");
}

#[test]
fn a_stopped_server_ends_in_order() {
    let server = RedisServer::options().arg("save", "3600 1").start().unwrap();
    server.command(&["SET", "k", "v"]).unwrap();
    server.stop().unwrap();
    server.stop().unwrap();
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", "k"]).unwrap(), text("v"));
}

#[test]
fn a_paused_server_answers_when_resumed() {
    let server = RedisServer::start().unwrap();
    server.pause().unwrap();
    thread::scope(|scope| {
        let ping = scope.spawn(|| server.command(&["PING"]));
        thread::sleep(Duration::from_millis(50));
        assert!(!ping.is_finished());
        server.resume().unwrap();
        assert_eq!(ping.join().unwrap().unwrap(), text("PONG"));
    });
}

#[test]
fn a_paused_server_can_be_killed_and_restarted() {
    let server = RedisServer::start().unwrap();
    server.pause().unwrap();
    server.restart().unwrap();
    assert_eq!(server.command(&["PING"]).unwrap(), text("PONG"));
}

#[test]
fn a_replica_follows_and_refuses_writes() {
    for primary in
        [RedisServer::start().unwrap(), RedisServer::options().user("ann", "secret").tls().start().unwrap()]
    {
        primary.command(&["SET", "before", "1"]).unwrap();
        let replica = RedisServer::options().replica_of(&primary).start().unwrap();
        assert_eq!(replica.command(&["GET", "before"]).unwrap(), text("1"));
        assert!(replica.command(&["SET", "x", "1"]).unwrap_err().to_string().contains("READONLY"));
        primary.command(&["SET", "after", "2"]).unwrap();
        wait_for("the replica to follow", Duration::from_secs(10), || {
            Ok((replica.command(&["GET", "after"])? == text("2")).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_panic_ends_the_server() {
    let mut pid = 0;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let server = RedisServer::start().unwrap();
        pid = server.pid().unwrap();
        panic!("on purpose");
    }));
    assert!(result.is_err() && pid != 0);
    assert!(!is_running(pid));
}

#[test]
fn the_thread_that_started_it_may_end() {
    let server = thread::spawn(RedisServer::start).join().unwrap().unwrap();
    // Had the kernel ended it with the thread, that would have been at once.
    thread::sleep(Duration::from_millis(50));
    assert!(is_running(server.pid().unwrap()));
    assert_eq!(server.command(&["PING"]).unwrap(), text("PONG"));
}

#[test]
fn many_start_at_once() {
    thread::scope(|scope| {
        let servers: Vec<_> = (0..10).map(|_| scope.spawn(|| RedisServer::start().unwrap())).collect();
        let servers: Vec<_> = servers.into_iter().map(|server| server.join().unwrap()).collect();
        for server in &servers {
            assert_eq!(server.info("tcp_port").unwrap(), server.port().to_string());
        }
    });
}

#[test]
fn the_environment_arrives() {
    // Redis writes its title over what /proc shows of its environment; the loader's complaint is in the log.
    let options =
        RedisServer::options().env("LD_PRELOAD", "/no/such/library.so").arg("maxmemory-policy", "whatever");
    let error = options.start().unwrap_err();
    assert!(error.to_string().contains("/no/such/library.so"), "{error}");
}
