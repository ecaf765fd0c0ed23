//! The lock itself.

use crate::stage::{Stage, holders, stderr};

#[test]
fn two_runs_exclude_each_other() {
    let stage = Stage::new();
    let script = r#"echo "in $FENCELOCK_TOKEN" >> log; sleep 0.03; echo "out $FENCELOCK_TOKEN" >> log"#;
    let mut runs: Vec<_> = (0..5).map(|_| stage.start(&[], &["sh", "-c", script])).collect();
    for run in &mut runs {
        assert_eq!(run.code(), 0, "{}", run.err());
    }
    let log = stage.text("log");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 10, "{log}");
    let mut last = 0;
    for pair in lines.chunks(2) {
        let token: u64 = pair[0].strip_prefix("in ").unwrap().parse().unwrap();
        assert_eq!(pair[1], format!("out {token}"), "two at once: {log}");
        assert!(token > last, "tokens must grow: {log}");
        last = token;
    }
}

#[test]
fn shared_runs_go_together() {
    let stage = Stage::new();
    // Each waits for the other inside: alone, neither would ever end.
    let meet = |mine: &str, other: &str| {
        let script = format!("echo x > {mine}; until [ -e {other} ]; do sleep 0.01; done");
        stage.start(&["-s"], &["sh", "-c", &script])
    };
    let (mut one, mut two) = (meet("one", "two"), meet("two", "one"));
    assert_eq!((one.code(), two.code()), (0, 0), "{} {}", one.err(), two.err());
}

#[test]
fn an_exclusive_run_waits_for_a_shared_one() {
    let stage = Stage::new();
    let script = "echo r > ready; until [ -e go ]; do sleep 0.01; done; echo reader >> log";
    let mut reader = stage.start_script(&["-s"], script);
    let mut writer = stage.start(&["-x"], &["sh", "-c", "echo writer >> log"]);
    stage.wait_for_waiters(1);
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!((reader.code(), writer.code()), (0, 0), "{} {}", reader.err(), writer.err());
    assert_eq!(stage.text("log"), "reader\nwriter\n");
}

#[test]
fn a_lock_that_others_have_is_not_acquired() {
    let stage = Stage::new();
    let holder = stage.start_script(&["--owner", "web-3"], "echo r > ready; exec sleep 1000");
    for (options, code) in [
        (&["-n"][..], 75),
        (&["-w", "0"], 75),
        (&["-w", "0.2"], 75),
        (&["--timeout", "100ms", "-s"], 75),
        (&["-n", "-E", "1"], 1),
        (&["-w", "0.1", "--conflict-exit-code", "124"], 124),
    ] {
        let output = stage.run(options, &["touch", "wrong"]);
        assert_eq!(output.status.code(), Some(code), "{options:?}: {output:?}");
        let said = stderr(&output);
        assert!(said.starts_with("fencelock: ") && said.contains("web-3"), "{said}");
    }
    assert!(!stage.path("wrong").exists());
    assert_eq!(holders(&stage.inspect()), 1);
    drop(holder);
}

#[test]
fn a_run_that_was_handed_the_lock_has_its_whole_ttl() {
    let stage = Stage::new();
    let script = "echo r > ready; until [ -e go ]; do sleep 0.01; done";
    let mut first = stage.start_script(&[], script);
    let show = format!("'{}' inspect --json '{}'", env!("CARGO_BIN_EXE_fencelock"), stage.key());
    let mut second = stage.start(&["--ttl", "60"], &["sh", "-c", &show]);
    stage.wait_for_waiters(1);
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!((first.code(), second.code()), (0, 0), "{}", second.err());
    let shown: serde_json::Value = serde_json::from_str(&second.out()).unwrap();
    let left = shown["holders"][0]["left_seconds"].as_f64().unwrap();
    assert!(left > 25.0, "a waiter's lease is 10 s: {left}");
}

#[test]
fn an_inner_run_has_its_own_environment() {
    let stage = Stage::new();
    let inner = format!(
        "echo outer $FENCELOCK_KEY $FENCELOCK_MODE; \
         '{}' run -s --owner me inner sh -c 'echo inner $FENCELOCK_KEY $FENCELOCK_MODE $FENCELOCK_OWNER'",
        env!("CARGO_BIN_EXE_fencelock")
    );
    let output = stage.run(&[], &["sh", "-c", &inner]);
    let expected = format!("outer {} exclusive\ninner inner shared me\n", stage.key());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    assert_eq!(stderr(&output), "");
}
