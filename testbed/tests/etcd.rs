//! The etcd server for tests.

use std::time::Duration;

use testbed::{EtcdServer, is_running, wait_for};

#[test]
fn it_answers_and_ends_when_dropped() {
    let server = EtcdServer::start().unwrap();
    assert!(server.version().unwrap().starts_with("3."));
    assert!(server.metric("etcd_server_has_leader").unwrap() > 0.0);
    let pid = server.pid().unwrap();
    assert!(is_running(pid));
    drop(server);
    assert!(!is_running(pid));
}

#[test]
fn it_restarts_on_its_port_and_can_be_paused() {
    let server = EtcdServer::start().unwrap();
    let (pid, port) = (server.pid(), server.port());
    server.restart().unwrap();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.port(), port);
    server.pause().unwrap();
    assert!(server.version().is_err(), "a paused server answers");
    server.resume().unwrap();
    wait_for("an answer", Duration::from_secs(30), || Ok(server.version().ok())).unwrap();
    server.kill().unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.pause().is_err());
}
