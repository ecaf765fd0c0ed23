//! The etcd servers for tests.

use std::fs;
use std::time::Duration;

use testbed::{EtcdCluster, EtcdServer, EtcdVersion, is_running, wait_for};

const BOUND: Duration = Duration::from_secs(30);

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
fn one_in_earnest_waits_for_the_disk_and_keeps_its_data_where_it_is_told() {
    let place = tempfile::tempdir().unwrap();
    let server = EtcdServer::options().version(EtcdVersion::Built).in_earnest(place.path()).start().unwrap();
    let folder = fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join("data/member/wal").exists());
    let command = fs::read_to_string(format!("/proc/{}/cmdline", server.pid().unwrap())).unwrap();
    assert!(command.contains("--data-dir") && !command.contains("no-fsync"), "{command}");
    drop(server);
    assert!(!folder.exists());
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
    wait_for("an answer", BOUND, || Ok(server.version().ok())).unwrap();
    server.kill().unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.pause().is_err());
}

#[test]
fn a_cluster_has_a_leader_that_moves_and_survives_one_member() {
    for version in [EtcdVersion::Built, EtcdVersion::Installed] {
        let Ok(cluster) = EtcdCluster::start_version(version) else {
            assert_eq!(version, EtcdVersion::Built, "the distribution's is always there");
            continue;
        };
        for member in cluster.members() {
            assert!(cluster.url().contains(&member.addr().to_string()));
        }
        let (before, next) = (cluster.leader().unwrap(), (cluster.leader().unwrap() + 1) % 3);
        assert_ne!(before, next);
        cluster.move_leader(next).unwrap();
        assert_eq!(cluster.leader().unwrap(), next);
        cluster.member(next).kill().unwrap();
        cluster.wait_until_healthy().unwrap();
        assert_ne!(cluster.leader().unwrap(), next);
        cluster.member(next).restart().unwrap();
        cluster.wait_until_healthy().unwrap();
    }
}

#[test]
fn a_server_with_users_and_tls_says_so_in_its_url() {
    let server = EtcdServer::options().auth("a/b").user("ann", "pass", "lock/").tls().start().unwrap();
    let port = server.port();
    assert_eq!(server.url(), format!("etcds://root:a%2Fb@127.0.0.1:{port}"));
    assert_eq!(server.url_of("ann", "pass"), format!("etcds://ann:pass@127.0.0.1:{port}"));
    assert!(std::fs::read_to_string(server.ca_path().unwrap()).unwrap().contains("BEGIN CERTIFICATE"));
    assert!(server.version().unwrap().starts_with("3."));
    server.restart_empty().unwrap();
    assert_eq!(server.port(), port);
}
