//! The lock is lost, or fencelock is: the child must not go on.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use testbed::RedisServer;

use crate::stage::{
    PATIENCE, Run, Stage, WORK, eventually, holders, send, stderr, wait_for_end, wait_for_stop, work_done,
};

/// A child that ignores every request to end, with a grandchild that does the same.
const STUBBORN: &str = "trap '' TERM HUP INT; \
    sh -c 'echo $$ > grandchild; while :; do sleep 0.02; done' & \
    until [ -s grandchild ]; do sleep 0.01; done; \
    while :; do echo t >> ticks; [ -s ready ] || echo $$ > ready; sleep 0.01; done";

/// The clock that `date` in the children shows.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// That the last work whose time was noted was done before `end`.
#[track_caller]
fn assert_worked_until(stage: &Stage, end: Duration) {
    let ticks = stage.text("ticks");
    // Killed in the middle of a line, the child may leave half of it.
    let last = ticks.rsplit_once('\n').unwrap().0.lines().last().unwrap();
    let last = Duration::from_nanos(last.parse().unwrap());
    assert!(last < end, "worked {:?} too long", last.saturating_sub(end));
}

#[test]
fn a_broken_lock_ends_the_child() {
    let stage = Stage::new();
    let script = "trap 'echo bye > tidied; exit 0' TERM; echo r > ready; while :; do sleep 0.01; done";
    let mut run = stage.start_script(&[], script);
    let broken = stage.fencelock(["break", stage.key()]).output().unwrap();
    assert_eq!(broken.status.code(), Some(0), "{broken:?}");
    assert_eq!(run.code(), 76, "{}", run.err());
    assert_eq!(stage.text("tidied"), "bye\n", "asked before it is made to");
    assert!(run.err().contains("lost") && run.err().contains("broke"), "{}", run.err());
}

#[test]
fn a_child_that_does_not_heed_is_killed_with_its_descendants() {
    let stage = Stage::new();
    let mut run = stage.start_script(&["--ttl", "1000", "--kill-after", "0.3"], STUBBORN);
    let (child, grandchild) = (stage.pid("ready"), stage.pid("grandchild"));
    assert_eq!(stage.fencelock(["break", stage.key()]).output().unwrap().status.code(), Some(0));
    assert_eq!(run.code(), 76, "{}", run.err());
    assert!(!testbed::is_running(child) && !testbed::is_running(grandchild));
}

#[test]
fn descendants_that_outlive_the_child_are_ended_too() {
    let stage = Stage::new();
    let script = "sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 0.02; done' & \
        until [ -s grandchild ]; do sleep 0.01; done; echo $$ > ready; wait";
    let mut run = stage.start_script(&["--ttl", "1000", "--kill-after", "0.5"], script);
    assert_eq!(stage.fencelock(["break", stage.key()]).output().unwrap().status.code(), Some(0));
    assert_eq!(run.code(), 76, "{}", run.err());
    assert!(!testbed::is_running(stage.pid("ready")) && !testbed::is_running(stage.pid("grandchild")));
}

#[test]
fn a_server_that_is_gone_costs_the_lock_and_the_child_ends_before_the_lease() {
    for how in ["pause", "kill"] {
        let server = RedisServer::start().unwrap();
        let stage = Stage::on(&server);
        let ttl = Duration::from_secs(3);
        let script = STUBBORN.replace("echo t", "date +%s%N");
        let mut run = stage.start_script(&["--ttl", "3", "--kill-after", "0.5"], &script);
        if how == "pause" { server.pause() } else { server.kill() }.unwrap();
        // No renewal can be answered from here on, so no lease lasts longer than this.
        let lease_ends = wall_clock() + ttl;
        assert_eq!(run.code(), 76, "{how}: {}", run.err());
        let (child, grandchild) = (stage.pid("ready"), stage.pid("grandchild"));
        assert!(!testbed::is_running(child) && !testbed::is_running(grandchild), "{how}");
        assert_worked_until(&stage, lease_ends);
    }
}

#[test]
fn a_short_absence_of_the_server_is_no_loss() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let script = "echo r > ready; until [ -e go ]; do sleep 0.01; done";
    let mut run = stage.start_script(&["--ttl", "9", "--kill-after", "0.5"], script);
    server.pause().unwrap();
    // Past the first renewal, which is due after 3 s.
    thread::sleep(Duration::from_secs(4));
    server.resume().unwrap();
    eventually("a renewal", || {
        (stage.inspect()["holders"][0]["left_seconds"].as_f64().unwrap() > 6.0).then_some(())
    });
    fs::write(stage.path("go"), "").unwrap();
    assert_eq!(run.code(), 0, "{}", run.err());
    assert_eq!(run.err(), "");
}

#[test]
fn a_killed_wrapper_takes_child_and_grandchild_along() {
    let stage = Stage::new();
    // Long before the lease is over.
    let mut run = stage.start_script(&["--ttl", "1000", "--kill-after", "0.3"], STUBBORN);
    let (child, grandchild, guardian) = (stage.pid("ready"), stage.pid("grandchild"), run.guardian());
    run.signal(Signal::KILL);
    run.status();
    wait_for_end("the child", child, PATIENCE);
    wait_for_end("the grandchild", grandchild, PATIENCE);
    wait_for_end("the guardian", guardian, PATIENCE);
}

#[test]
fn the_lock_of_a_killed_wrapper_is_free_after_its_ttl() {
    let stage = Stage::new();
    let run = stage.start_script(&["--ttl", "2"], WORK);
    run.signal(Signal::KILL);
    let next = stage.run(&["-w", "20"], &["true"]);
    assert_eq!(next.status.code(), Some(0), "free after the ttl: {next:?}");
}

#[test]
fn a_killed_wrapper_lets_a_child_tidy_up() {
    let stage = Stage::new();
    let script = "trap 'echo bye > tidied; exit 0' TERM; echo r > ready; while :; do sleep 0.01; done";
    let run = stage.start_script(&[], script);
    run.signal(Signal::KILL);
    assert_eq!(stage.line("tidied"), "bye");
}

#[test]
fn a_wrapper_that_is_stopped_alone_leaves_no_child_beyond_the_lease() {
    let stage = Stage::new();
    let script = STUBBORN.replace("echo t", "date +%s%N");
    let mut run = stage.start_script(&["--ttl", "2", "--kill-after", "0.3"], &script);
    let (child, grandchild) = (stage.pid("ready"), stage.pid("grandchild"));
    run.signal(Signal::STOP);
    wait_for_stop(run.pid());
    let lease_ends = wall_clock() + Duration::from_secs(2);
    wait_for_end("the grandchild", grandchild, PATIENCE);
    // Its wrapper cannot wait for it: it is a zombie, which works no more.
    wait_for_end("the child", child, PATIENCE);
    assert_worked_until(&stage, lease_ends);
    run.signal(Signal::CONT);
    assert_eq!(run.code(), 76, "{}", run.err());
}

#[test]
fn after_a_pause_beyond_the_lease_no_more_work_is_done() {
    // With and without the guardian: what the wrapper does for itself must suffice.
    for all in [false, true] {
        let stage = Stage::new();
        let mut run = stage.start_script(&["--ttl", "1", "--kill-after", "0.2"], WORK);
        let (child, guardian) = (stage.pid("ready"), run.guardian());
        let others: &[u32] = if all { &[guardian, child] } else { &[child] };
        run.signal(Signal::STOP);
        for &other in others {
            send(other, Signal::STOP);
        }
        wait_for_stop(run.pid());
        wait_for_stop(child);
        let done = work_done(&stage);
        // What is proven is that time passed, so there is nothing else to wait for.
        thread::sleep(Duration::from_millis(1500));
        run.signal(Signal::CONT);
        let code = run.code();
        for &other in others.iter().filter(|&&other| testbed::is_running(other)) {
            send(other, Signal::CONT);
        }
        assert_eq!(code, 76, "{}", run.err());
        assert!(!testbed::is_running(child));
        assert_eq!(work_done(&stage), done, "the child went on without the lock");
    }
}

#[test]
fn after_a_short_pause_the_child_goes_on() {
    let stage = Stage::new();
    let mut run = stage.start_script(&[], WORK);
    let child = stage.pid("ready");
    run.signal(Signal::STOP);
    send(child, Signal::STOP);
    wait_for_stop(run.pid());
    wait_for_stop(child);
    let done = work_done(&stage);
    run.signal(Signal::CONT);
    eventually("more work", || (work_done(&stage) > done + 10).then_some(()));
    run.signal(Signal::TERM);
    assert_eq!(run.code(), 143, "{}", run.err());
}

#[test]
fn a_killed_guardian_is_told_of_and_the_wrapper_goes_on_guarding() {
    let stage = Stage::new();
    let mut run = stage.start_script(&["--ttl", "2", "--kill-after", "0.3"], STUBBORN);
    let (child, grandchild) = (stage.pid("ready"), stage.pid("grandchild"));
    send(run.guardian(), Signal::KILL);
    eventually("a warning", || run.err().contains("guardian").then_some(()));
    assert_eq!(stage.fencelock(["break", stage.key()]).output().unwrap().status.code(), Some(0));
    assert_eq!(run.code(), 76, "{}", run.err());
    assert!(!testbed::is_running(child) && !testbed::is_running(grandchild));
}

#[test]
fn nothing_is_left_of_an_ordinary_run() {
    let stage = Stage::new();
    let script = "echo $$ > ready; until [ -e go ]; do sleep 0.01; done";
    let mut run = stage.start_script(&[], script);
    let guardian = run.guardian();
    fs::write(stage.path("go"), "").unwrap();
    assert_eq!(run.code(), 0, "{}", run.err());
    assert!(!testbed::is_running(guardian) && !testbed::is_running(stage.pid("ready")));
    assert_eq!(holders(&stage.inspect()), 0);
}

#[test]
fn what_the_child_leaves_behind_in_the_background_is_its_own_affair() {
    let stage = Stage::new();
    let output = stage.run(&[], &["sh", "-c", "sleep 1000 >&- 2>&- & echo $! > left; exit 4"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(4), String::new()));
    let left = stage.pid("left");
    assert!(testbed::is_running(left));
    send(left, Signal::KILL);
}

#[test]
fn a_release_that_nobody_answers_is_a_warning() {
    let server = RedisServer::start().unwrap();
    let stage = Stage::on(&server);
    let script = "echo r > ready; until [ -e go ]; do sleep 0.01; done; exit 5";
    let mut run: Run = stage.start_script(&["--ttl", "60"], script);
    server.kill().unwrap();
    fs::write(stage.path("go"), "").unwrap();
    assert_eq!(run.code(), 5, "{}", run.err());
    assert!(run.err().starts_with("fencelock: release"), "{}", run.err());
}
