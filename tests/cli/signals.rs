//! Signals: handed on to the child, and heeded while there is none.

use rustix::process::Signal;
use testbed::RedisServer;

use crate::stage::{
    PATIENCE, Run, Stage, WORK, eventually, state, wait_for_end, wait_for_stop, waiters, work_done,
};

#[test]
fn signals_are_handed_on() {
    let stage = Stage::new();
    let script = "for s in HUP INT QUIT TERM USR1 USR2 WINCH CONT; do trap \"echo $s >> heard\" $s; done; \
        trap 'exit 7' ALRM; echo $$ > ready; while :; do sleep 0.01; done";
    let mut run = stage.start_script(&[], script);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::CONT, "CONT"),
    ] {
        let heard = |count| {
            let text = stage.text("heard");
            (text.lines().filter(|line| *line == name).count() > count).then_some(())
        };
        let before = stage.text("heard").lines().filter(|line| *line == name).count();
        run.signal(signal);
        eventually(name, || heard(before));
    }
    crate::stage::send(stage.pid("ready"), Signal::ALARM);
    assert_eq!(run.code(), 7, "{}", run.err());
}

#[test]
fn a_signal_that_ends_the_child_ends_us_with_its_number() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let stage = Stage::new();
        let mut run = stage.start(&[], &["sh", "-c", "echo r > ready; exec sleep 1000"]);
        stage.line("ready");
        run.signal(signal);
        assert_eq!((run.code(), run.err()), (code, String::new()));
    }
}

#[test]
fn a_signal_while_waiting_leaves_no_waiter() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let stage = Stage::new();
        let holder = stage.start_script(&[], "echo r > ready; exec sleep 1000");
        let mut waiter = stage.start(&[], &["touch", "wrong"]);
        stage.wait_for_waiters(1);
        waiter.signal(signal);
        assert_eq!(waiter.code(), code, "{}", waiter.err());
        let seen = stage.inspect();
        assert_eq!(waiters(&seen), 0, "{seen:#}");
        assert!(!stage.path("wrong").exists());
        drop(holder);
    }
}

#[test]
fn a_second_signal_while_waiting_ends_at_once() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let _holder = stage.start_script(&["--ttl", "1000"], "echo r > ready; exec sleep 1000");
    let mut waiter = stage.start(&["-v"], &["true"]);
    stage.wait_for_waiters(1);
    server.pause().unwrap();
    // The withdrawal cannot be answered; a signal that came before the first was seen would be one with it.
    waiter.signal(Signal::INT);
    eventually("the withdrawal", || waiter.err().contains("leaving").then_some(()));
    waiter.signal(Signal::TERM);
    assert_eq!(waiter.code(), 143, "{}", waiter.err());
    server.resume().unwrap();
}

#[test]
fn one_signal_while_the_server_hangs_ends_in_bounded_time() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let _holder = stage.start_script(&["--ttl", "1000"], "echo r > ready; exec sleep 1000");
    let mut waiter = stage.start(&[], &["true"]);
    stage.wait_for_waiters(1);
    server.pause().unwrap();
    waiter.signal(Signal::INT);
    assert_eq!(waiter.code(), 130, "{}", waiter.err());
    server.resume().unwrap();
}

#[test]
fn a_stopped_job_stops_and_continues_as_a_whole() {
    let stage = Stage::new();
    let mut run = stage.start_script(&[], WORK);
    let child = stage.pid("ready");
    run.signal(Signal::TSTP);
    wait_for_stop(child);
    wait_for_stop(run.pid());
    let done = work_done(&stage);
    run.signal(Signal::CONT);
    eventually("more work", || (work_done(&stage) > done + 10).then_some(()));
    assert_ne!(state(run.pid()), Some('T'));
    run.signal(Signal::TERM);
    assert_eq!(run.code(), 143, "{}", run.err());
}

#[test]
fn a_child_that_heeds_no_ctrl_z_is_stopped_all_the_same() {
    let stage = Stage::new();
    let mut run = stage.start_script(&[], &format!("trap '' TSTP; {WORK}"));
    let child = stage.pid("ready");
    run.signal(Signal::TSTP);
    wait_for_stop(child);
    wait_for_stop(run.pid());
    run.signal(Signal::CONT);
    run.signal(Signal::TERM);
    assert_eq!(run.code(), 143, "{}", run.err());
}

#[test]
fn a_job_that_is_stopped_for_too_long_has_lost_the_lock() {
    let stage = Stage::new();
    let mut run = stage.start_script(&["--ttl", "1"], WORK);
    let child = stage.pid("ready");
    run.signal(Signal::TSTP);
    wait_for_stop(run.pid());
    let done = work_done(&stage);
    // The guardian sees to it.
    wait_for_end("the child", child, PATIENCE);
    run.signal(Signal::CONT);
    assert_eq!(run.code(), 76, "{}", run.err());
    assert_eq!(work_done(&stage), done);
}

#[test]
fn what_nohup_ignores_stays_ignored() {
    let stage = Stage::new();
    let script = format!(
        "trap '' HUP; exec '{}' run '{}' sh -c 'echo $$ > ready; until [ -e go ]; do sleep 0.01; done'",
        env!("CARGO_BIN_EXE_fencelock"),
        stage.key()
    );
    let mut shell = crate::stage::afresh("sh");
    shell.args(["-c", &script]).env("FENCELOCK_BACKEND", stage.url()).current_dir(stage.path("."));
    let mut run = Run::start(shell);
    let child = stage.pid("ready");
    run.signal(Signal::HUP);
    crate::stage::send(child, Signal::HUP);
    std::fs::write(stage.path("go"), "").unwrap();
    assert_eq!(run.code(), 0, "{}", run.err());
}
