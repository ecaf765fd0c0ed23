//! What is said on stderr: more with `-v`, nothing with `-q`.

use rustix::process::Signal;
use testbed::RedisServer;

use crate::stage::{Run, Stage, eventually, stderr};

const UNTIL_GO: &str = "echo $FENCELOCK_TOKEN > ready; until [ -e go ]; do sleep 0.01; done";

fn go(stage: &Stage) {
    std::fs::write(stage.path("go"), "").unwrap();
}

/// Waits until a run has said something for the given time.
#[track_caller]
fn wait_for_word(run: &Run, word: &str, times: usize) {
    eventually(word, || (run.err().matches(word).count() >= times).then_some(()));
}

#[test]
fn verbose_tells_who_is_in_the_way_and_what_became_of_the_wait() {
    let stage = Stage::new();
    let key = stage.key();
    let mut holder = stage.start_script(&["--owner", "ci 7", "--note", "release 1.9"], UNTIL_GO);
    let mut waiter = stage.start(&["--verbose", "-s"], &["sh", "-c", "echo $FENCELOCK_TOKEN"]);
    wait_for_word(&waiter, "waiting", 1);
    go(&stage);
    assert_eq!((holder.code(), waiter.code()), (0, 0), "{}", waiter.err());
    assert_eq!(holder.err(), "", "who did not ask is told nothing");

    let said = waiter.err();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    let first =
        lines[0].strip_prefix(&format!("fencelock: waiting for {key:?}: held by \"ci 7\" (exclusive, "));
    let first = first.unwrap_or_else(|| panic!("{said}"));
    assert!(first.starts_with("since 00:00:0"), "{said}");
    assert!(first.ends_with(", note \"release 1.9\"); 1 in the queue"), "{said}");
    let granted = format!("fencelock: granted {key:?} shared, token {}, after ", waiter.out().trim());
    assert!(lines[1].starts_with(&granted) && lines[1].ends_with('s'), "{said}");
    assert!(lines[2].starts_with(&format!("fencelock: released {key:?}, held for ")), "{said}");
}

#[test]
fn verbose_tells_when_somebody_else_is_in_the_way() {
    let stage = Stage::new();
    let _readers = ["one", "two"].map(|owner| {
        let script = UNTIL_GO.replace("ready", owner);
        let run = stage.start(&["-s", "--owner", owner], &["sh", "-c", &script]);
        stage.line(owner);
        run
    });
    let _next = stage.start(&["--owner", "next"], &["sleep", "1000"]);
    stage.wait_for_waiters(1);
    let waiter = stage.start(&["-v"], &["true"]);
    wait_for_word(&waiter, "held by one (shared, since 00:00:0", 1);
    wait_for_word(&waiter, ") and another; 2 in the queue", 1);
    go(&stage);
    wait_for_word(&waiter, "held by next (exclusive, since 00:00:0", 1);
    assert_eq!(waiter.err().matches("waiting").count(), 2, "only what is new: {}", waiter.err());
}

#[test]
fn verbose_tells_of_renewals_and_of_those_that_fail() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let mut run = stage.start_script(&["-v", "--ttl", "6", "--kill-after", "0.5"], UNTIL_GO);
    wait_for_word(&run, "renewed \"k\": left ", 1);
    assert!(!run.err().contains("no answer"), "{}", run.err());
    server.pause().unwrap();
    wait_for_word(&run, "no answer to the renewal of \"k\", trying again: left ", 1);
    server.resume().unwrap();
    wait_for_word(&run, "renewed \"k\": left ", 2);
    go(&stage);
    assert_eq!(run.code(), 0, "{}", run.err());
    assert_eq!(run.err().matches("no answer").count(), 1, "once for each time: {}", run.err());
}

#[test]
fn verbose_tells_that_a_signal_ended_the_wait() {
    let stage = Stage::new();
    let _holder = stage.start_script(&[], UNTIL_GO);
    let mut waiter = stage.start(&["-v"], &["true"]);
    stage.wait_for_waiters(1);
    waiter.signal(Signal::INT);
    assert_eq!(waiter.code(), 130);
    let end = "fencelock: a signal: leaving\nfencelock: withdrawn by a signal\n";
    assert!(waiter.err().ends_with(end), "{}", waiter.err());
}

#[test]
fn quiet_says_nothing_and_the_status_tells() {
    let stage = Stage::new();
    let mut holder = stage.start_script(&["-q"], "echo r > ready; exec sleep 1000");
    for (options, command, code) in [
        (&["-q", "-n"][..], "true", 75),
        (&["--quiet", "-w", "0.1", "-E", "1"], "true", 1),
        (&["-q", "-b", "redis://127.0.0.1:1"], "true", 125),
    ] {
        let output = stage.run(options, &[command]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(code), String::new()), "{options:?}");
    }
    assert_eq!(stage.fencelock(["break", stage.key()]).output().unwrap().status.code(), Some(0));
    assert_eq!((holder.code(), holder.err()), (76, String::new()));
    for (command, code) in [("no-such-command", 127), ("/etc/passwd", 126)] {
        let output = stage.run(&["-q"], &[command]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(code), String::new()), "{command}");
    }
    let output = stage.run(&["-q"], &["sh", "-c", "echo the child speaks >&2"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), "the child speaks\n".into()));
}

#[test]
fn quiet_does_not_hide_misuse() {
    let stage = Stage::new();
    for (args, hint) in [
        (&["-q", "k"][..], "CMD"),
        (&["-q", "-v", "k", "true"], "cannot be used with"),
        (&["-q", "--ttl", "0", "k", "true"], "too short"),
        (&["-q", "--ttl", "5000000000", "k", "true"], "100 years"),
        (&["-q", "", "true"], "empty"),
        (&["-q", "-b", "nothing://here", "k", "true"], "unknown scheme"),
        (&["-q", "--backend-file", "/no/such/file", "k", "true"], "/no/such/file"),
    ] {
        let output = stage.fencelock([&["run"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
    }
}
