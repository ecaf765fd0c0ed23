//! Exit codes, arguments, and what the child gets.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use testbed::RedisServer;

use crate::stage::{Stage, fencelock, stderr};

#[test]
fn the_childs_status_is_ours() {
    let stage = Stage::new();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 2", 2),
        ("exit 75", 75),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -INT $$", 130),
    ] {
        let output = stage.run(&[], &["sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        assert_eq!(stderr(&output), "", "{script}");
    }
}

#[test]
fn what_cannot_be_run_is_126_or_127() {
    let stage = Stage::new();
    for (command, code) in
        [("no-such-command", 127), ("/no/such/file", 127), ("/etc/passwd", 126), ("/", 126)]
    {
        let output = stage.run(&[], &[command]);
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
        assert!(stderr(&output).starts_with("fencelock: cannot run"), "{output:?}");
    }
    assert_eq!(stage.run(&["-n"], &["true"]).status.code(), Some(0), "the lock must be free again");
}

#[test]
fn misuse_is_125_and_says_what_to_do() {
    let stage = Stage::new();
    let long = "k".repeat(513);
    for (args, hint) in [
        (&[][..], "Usage"),
        (&["run"], "KEY"),
        (&["run", "k"], "CMD"),
        (&["run", "k", "--"], "CMD"),
        (&["run", "--no-such-option", "k", "true"], "--no-such-option"),
        (&["run", "-n", "-w", "3", "k", "true"], "cannot be used with"),
        (&["run", "-s", "-x", "k", "true"], "cannot be used with"),
        (&["run", "-c", "true", "k", "true"], "cannot be used together"),
        (&["run", "-E", "256", "k", "true"], "256"),
        (&["run", "-w", "soon", "k", "true"], "seconds"),
        (&["run", "--ttl", "0", "k", "true"], "too short"),
        (&["run", "--ttl", "1ns", "k", "true"], "too short"),
        (&["run", "--ttl", "4s", "--kill-after", "3s", "k", "true"], "at most half"),
        (&["run", "--ttl", "5000000000", "k", "true"], "100 years"),
        (&["run", "", "true"], "empty"),
        (&["run", long.as_str(), "true"], "512"),
        (&["run", "-b", "nothing://here", "k", "true"], "unknown scheme"),
        (&["run", "-b", "here", "k", "true"], "URL"),
        (&["run", "--backend-file", "/no/such/file", "k", "true"], "/no/such/file"),
        (&["inspect"], "<KEY>"),
        (&["break", "--token", "0", "k"], "token"),
        (&["no-such-verb"], "no-such-verb"),
    ] {
        let output = stage.fencelock(args.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_missing_url_is_an_error_that_shows_how_to_give_one() {
    for verb in [&["run", "k", "true"][..], &["inspect", "k"], &["break", "k"], &["list"]] {
        let output = fencelock().args(verb).env("FENCELOCK_BACKEND", "").output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let said = stderr(&output);
        assert!(said.contains("-b redis://") && said.contains("FENCELOCK_BACKEND="), "{said}");
    }
}

#[test]
fn a_server_that_cannot_be_used_is_125_in_bounded_time() {
    let stage = Stage::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    for port in [closed_port, silent.local_addr().unwrap().port()] {
        let url = format!("redis://web:s3cret@127.0.0.1:{port}");
        let mut run = crate::stage::Run::start(stage.fencelock(["run", "-b", &url, "k", "true"]));
        assert_eq!(run.code(), 125, "{}", run.err());
        assert!(run.err().starts_with("fencelock: "), "{}", run.err());
        assert!(!run.err().contains("s3cret"), "{}", run.err());
    }
}

#[test]
fn a_wrong_password_is_125_and_not_printed() {
    let server = RedisServer::options().password("right-one").start().unwrap();
    let stage = Stage::on(&server);
    assert_eq!(stage.run(&[], &["true"]).status.code(), Some(0));
    let url = format!("redis://:wrong-one@{}", server.addr());
    let output = stage.fencelock(["run", "-b", &url, "k", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(!stderr(&output).contains("wrong-one"), "{output:?}");
    let shown = stage.fencelock(["inspect", "k"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("backend redis://{}", server.addr())), "{shown}");
}

#[test]
fn the_url_may_come_from_a_file() {
    let stage = Stage::new();
    std::fs::write(stage.path("url"), format!("{}\n", stage.url())).unwrap();
    let file = stage.path("url");
    let run = ["run", "k-file", "true"];
    let by_option = fencelock().args(["run", "--backend-file"]).arg(&file).args(&run[1..]).output().unwrap();
    assert_eq!(by_option.status.code(), Some(0), "{by_option:?}");
    let by_env = fencelock().args(run).env("FENCELOCK_BACKEND_FILE", &file).output().unwrap();
    assert_eq!(by_env.status.code(), Some(0), "{by_env:?}");
}

#[test]
fn options_end_at_the_key() {
    let stage = Stage::new();
    let output = stage.run(&[], &["echo", "-n", "--", "-x", "--help"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-- -x --help", "{output:?}");
    let output = stage.run(&[], &["--", "echo", "--", "-s"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-- -s\n", "{output:?}");
    assert_eq!(stage.run(&[], &["-n", "true"]).status.code(), Some(127), "-n is the command here");
}

#[test]
fn a_line_is_run_by_the_shell() {
    let stage = Stage::new();
    let output = stage.run(&["-c", "echo $((1 + 1)); exit 3"], &[]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"2\n"[..]), "{output:?}");
}

#[test]
fn stdin_and_stdout_are_the_childs() {
    let stage = Stage::new();
    let mut cat = stage
        .fencelock(["run", stage.key(), "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cat.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"through\n"[..]));
}

#[test]
fn the_environment_tells_about_the_lock() {
    let stage = Stage::new();
    let output = stage.run(&["--owner", "o 1"], &["env"]);
    let env = String::from_utf8(output.stdout).unwrap();
    let of = |name: &str| env.lines().find_map(|line| line.strip_prefix(&format!("FENCELOCK_{name}=")));
    assert_eq!(of("KEY"), Some(stage.key()));
    assert_eq!(of("MODE"), Some("exclusive"));
    assert_eq!(of("OWNER"), Some("o 1"));
    assert_eq!(of("BACKEND"), Some(stage.url()), "as it was given, for a run inside");
    assert!(of("TOKEN").unwrap().parse::<u64>().unwrap() > 0);
    let output = stage.run(&[], &["sh", "-c", "echo $FENCELOCK_OWNER"]);
    let owner = String::from_utf8(output.stdout).unwrap();
    let (host, pid) = owner.trim().rsplit_once('/').unwrap();
    assert!(!host.is_empty() && pid.parse::<u32>().is_ok(), "{owner}");
}

#[test]
fn help_has_the_table_of_exit_codes() {
    for args in [&["--help"][..], &["run", "--help"], &["help", "run"]] {
        let output = fencelock().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        for code in ["75 ", "76 ", "125 ", "126 ", "127 ", "128+n "] {
            assert!(help.contains(code), "{code} in {help}");
        }
        assert!(!help.contains("__"), "{help}");
    }
    assert_eq!(fencelock().arg("--version").output().unwrap().status.code(), Some(0));
}

#[test]
fn memory_warns_that_it_excludes_nobody() {
    if !cfg!(feature = "memory") {
        return;
    }
    let output = fencelock().args(["run", "-b", "memory:", "k", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("excludes nobody"), "{output:?}");
}
