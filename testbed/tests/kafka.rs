//! The Kafka brokers for tests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testbed::{KafkaCluster, KafkaServer, is_running};

/// Asks a broker which requests it knows, as every client does first.
fn is_answered(addr: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Length, the request's number 18, its version 0, a correlation of 7, no client id.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    // Length, the correlation, no error.
    assert_eq!(answer[4..], [0, 0, 0, 7, 0, 0]);
    Ok(())
}

#[test]
fn it_answers_and_ends_when_dropped() {
    let server = KafkaServer::start().unwrap();
    is_answered(server.addr()).unwrap();
    let pid = server.pid().unwrap();
    assert!(is_running(pid));
    drop(server);
    assert!(!is_running(pid));
}

#[test]
fn it_restarts_on_its_port_and_can_be_paused() {
    let server = KafkaServer::options().proxies(1).start().unwrap();
    let (pid, port) = (server.pid(), server.port());
    server.pause().unwrap();
    assert!(is_answered(server.addr()).is_err(), "a paused server answers");
    server.resume().unwrap();
    is_answered(server.proxies()[0].addr()).unwrap();
    server.restart().unwrap();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.port(), port);
    is_answered(server.proxies()[0].addr()).unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.pause().is_err());
    server.restart().unwrap();
    is_answered(server.addr()).unwrap();
}

#[test]
fn a_cluster_is_three_of_them() {
    let cluster = KafkaCluster::start().unwrap();
    for node in cluster.nodes() {
        assert!(cluster.url("locks").contains(&node.addr().to_string()));
        is_answered(node.addr()).unwrap();
    }
    cluster.node(1).kill().unwrap();
    is_answered(cluster.node(2).addr()).unwrap();
    cluster.node(1).restart().unwrap();
    is_answered(cluster.node(1).addr()).unwrap();
}
