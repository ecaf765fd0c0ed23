//! `inspect`, `list` and `break`.

use std::process::Output;

use testbed::RedisServer;

use crate::stage::{Stage, holders, stderr, waiters};

const HOLD: &str = "echo $FENCELOCK_TOKEN > ready; exec sleep 1000";

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn inspect_shows_holder_and_waiters() {
    let stage = Stage::new();
    let _holder = stage.start_script(&["--owner", "ci-7/1", "--note", "release 1.9"], HOLD);
    let _first = stage.start(&["--owner", "ci 9"], &["true"]);
    stage.wait_for_waiters(1);
    let _second = stage.start(&["-s", "--owner", "cron-1"], &["true"]);
    stage.wait_for_waiters(2);
    let token = stage.line("ready");

    let text = stdout(&stage.fencelock(["inspect", stage.key()]).output().unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        format!("key      {:?}   backend {}   mode exclusive   fence {token}", stage.key(), stage.url())
    );
    assert!(lines[1].starts_with("holder   ci-7/1   since 00:00:0"), "{text}");
    assert!(lines[1].ends_with(&format!("token {token}   note \"release 1.9\"")), "{text}");
    assert!(lines[1].contains("   left 2") || lines[1].contains("   left 30s"), "{text}");
    assert_eq!(lines[2], "waiting  2");
    assert!(lines[3].starts_with("  1  exclusive  \"ci 9\"   00:00:0"), "{text}");
    assert!(lines[4].starts_with("  2  shared     cron-1   00:00:0"), "{text}");

    let json = stage.inspect();
    assert_eq!(json["key"], stage.key());
    assert_eq!(json["mode"], "exclusive");
    assert_eq!(json["fence"].to_string(), token);
    assert_eq!(json["holders"][0]["owner"], "ci-7/1");
    assert_eq!(json["holders"][0]["note"], "release 1.9");
    let seconds = |claim: &serde_json::Value, field: &str| claim[field].as_f64().unwrap();
    let left = seconds(&json["holders"][0], "left_seconds");
    assert!(left > 15.0 && left <= 30.0, "{json:#}");
    for claim in [&json["holders"][0], &json["waiting"][0], &json["waiting"][1]] {
        let since = seconds(claim, "since_seconds");
        assert!(since > 0.0 && since < 30.0 && since.fract() > 0.0, "{json:#}");
    }
    assert_eq!(json["waiting"][0]["owner"], "ci 9");
    assert_eq!(json["waiting"][1]["mode"], "shared");
    assert!(json["waiting"][1]["token"].is_null());
}

#[test]
fn inspect_of_a_free_lock_says_so() {
    let stage = Stage::new();
    let output = stage.fencelock(["inspect", stage.key()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.contains("mode free   fence -\nwaiting  0\n"), "{text}");
}

#[test]
fn break_takes_what_it_names_and_says_what() {
    let stage = Stage::new();
    let mut one =
        stage.start(&["-s", "--owner", "one"], &["sh", "-c", "echo $FENCELOCK_TOKEN > one; exec sleep 1000"]);
    let mut two =
        stage.start(&["-s", "--owner", "two"], &["sh", "-c", "echo $FENCELOCK_TOKEN > two; exec sleep 1000"]);
    let mut three = stage
        .start(&["-s", "--owner", "three"], &["sh", "-c", "echo $FENCELOCK_TOKEN > three; exec sleep 1000"]);
    let tokens = ["one", "two", "three"].map(|name| stage.line(name));
    let breaking =
        |args: &[&str]| stage.fencelock([&["break"], args, &[stage.key()]].concat()).output().unwrap();

    let none = breaking(&["--token", "1"]);
    assert_eq!((none.status.code(), stdout(&none)), (Some(1), String::new()), "{none:?}");
    assert!(stderr(&none).contains("nothing to break"));
    assert_eq!(breaking(&["--owner", "four"]).status.code(), Some(1));
    assert_eq!(holders(&stage.inspect()), 3);

    let by_token = breaking(&["--token", &tokens[0]]);
    assert_eq!(by_token.status.code(), Some(0));
    let line = stdout(&by_token);
    assert!(line.starts_with("broke shared holder   one   since "), "{line}");
    assert!(line.ends_with(&format!("   token {}\n", tokens[0])), "{line}");
    assert_eq!(one.code(), 76);

    assert!(stdout(&breaking(&["--owner", "two"])).starts_with("broke shared holder   two "));
    assert_eq!(two.code(), 76);
    assert!(stdout(&breaking(&[])).starts_with("broke shared holder   three "));
    assert_eq!(three.code(), 76);
    assert_eq!(breaking(&[]).status.code(), Some(1));
}

#[test]
fn break_by_owner_takes_waiters_too() {
    let stage = Stage::new();
    let _holder = stage.start_script(&["--owner", "holder"], HOLD);
    let mut waiter = stage.start(&["--owner", "waiter"], &["true"]);
    stage.wait_for_waiters(1);
    let broken = stage.fencelock(["break", "--owner", "waiter", stage.key()]).output().unwrap();
    assert!(stdout(&broken).starts_with("broke exclusive waiter   waiter "), "{broken:?}");
    assert_eq!(waiter.code(), 75, "{}", waiter.err());
    let seen = stage.inspect();
    assert_eq!((holders(&seen), waiters(&seen)), (1, 0));
}

#[test]
fn list_shows_the_keys_in_use() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let list = |args: &[&str]| {
        let output = stage.fencelock([&["list"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        stdout(&output)
    };
    assert_eq!((list(&[]), list(&["--json"])), (String::new(), "[]\n".into()));
    let mut runs = Vec::new();
    for key in ["b/2", "a b", "b/1", "c{x}"] {
        let ready = format!("ready-{}", runs.len());
        let script = format!("echo r > {ready}; exec sleep 1000");
        let run = stage.fencelock(["run", key, "sh", "-c", script.as_str()]);
        runs.push(crate::stage::Run::start(run));
        stage.line(&ready);
    }
    assert_eq!(list(&[]), "\"a b\"\nb/1\nb/2\nc{x}\n");
    assert_eq!(list(&["b/"]), "b/1\nb/2\n");
    let json: serde_json::Value = serde_json::from_str(&list(&["--json", "a"])).unwrap();
    assert_eq!(json, serde_json::json!([{ "key": "a b" }]));
}
