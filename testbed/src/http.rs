//! Questions to the HTTP side of a server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection, and an answer, may take.
const BOUND: Duration = Duration::from_secs(5);

/// Gets what a server has under a path, such as etcd its `/metrics`.
///
/// # Errors
/// When it does not answer within 5 s, or refuses.
pub fn http_get(addr: SocketAddr, path: &str) -> io::Result<String> {
    ask(addr, &format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n"))
}

/// Sends one request and gives the content of its answer.
pub(crate) fn ask(addr: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, content) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(content.to_owned());
    }
    Err(io::Error::other(format!("the server refused: {answer}")))
}
