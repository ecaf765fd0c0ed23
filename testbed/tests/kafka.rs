//! The Kafka brokers for tests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testbed::{KafkaCluster, KafkaServer, is_running};

/// Asks a broker which requests it knows, as every client does first.
fn is_answered(addr: SocketAddr) -> io::Result<()> {
    // The request's number 18, its version 0, a correlation of 7, no client id.
    let answer = ask(addr, &[0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    // The correlation, no error.
    assert_eq!(answer, [0, 0, 0, 7, 0, 0]);
    Ok(())
}

/// Asks for the coordinator of a group named k: then there is a topic.
fn find_coordinator(addr: SocketAddr) -> io::Result<()> {
    ask(addr, &[0, 10, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0, 1, b'k']).map(drop)
}

/// Sends a request, and gives how the answer begins.
fn ask(addr: SocketAddr, request: &[u8]) -> io::Result<[u8; 6]> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let length = u32::try_from(request.len()).map_err(io::Error::other)?.to_be_bytes();
    stream.write_all(&[&length, request].concat())?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok([answer[4], answer[5], answer[6], answer[7], answer[8], answer[9]])
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
    // Kafka's own topic.
    find_coordinator(cluster.node(0).addr()).unwrap();
    let topic = "__consumer_offsets";
    cluster.wait_until_in_sync(topic, &[0, 1, 2]).unwrap();
    let next = (cluster.leader(topic).unwrap() + 1) % 3;
    cluster.move_leader(topic, next).unwrap();
    assert_eq!(cluster.leader(topic).unwrap(), next);
    assert_eq!(cluster.replicas(topic).unwrap()[0], next);
    cluster.node(next).kill().unwrap();
    let other = cluster.leader_but(topic, next).unwrap();
    is_answered(cluster.node(other).addr()).unwrap();
    cluster.node(next).restart().unwrap();
    is_answered(cluster.node(next).addr()).unwrap();
    cluster.wait_until_in_sync(topic, &[0, 1, 2]).unwrap();
}
