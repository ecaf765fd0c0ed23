//! Free TCP ports for servers.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// The first port that is asked for: below are the well-known services.
const FIRST: u16 = 10_000;

/// What was given out already: a server that has several ports does not listen on the first one when the next is looked for.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on, and that this process was not given before.
///
/// It lies below the range that the kernel takes the ports of outgoing connections from: otherwise any connection of
/// this machine could take the port of a server between its end and its restart.
///
/// Another process may still take it before the server does: whoever starts a server tries again with another port.
pub(crate) fn free() -> io::Result<u16> {
    let end = ephemeral_start();
    for _ in 0..1000 {
        // RandomState is the standard library's only source of randomness; processes must not try the same sequence.
        let random = RandomState::new().hash_one(());
        let offset = u16::try_from(random % u64::from(end - FIRST)).unwrap_or_default();
        let port = FIRST + offset;
        if !GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            continue;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port found between {FIRST} and {end}")))
}

fn ephemeral_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|start| *start > FIRST + 1000)
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on() {
        let port = free().unwrap();
        assert!((FIRST..ephemeral_start()).contains(&port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
    #[test]
    fn no_port_is_given_twice() {
        let given: Vec<u16> = (0..500).map(|_| free().unwrap()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
    }
}
