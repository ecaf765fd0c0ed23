//! Each fault of the proxy does what it says, in front of a real server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use testbed::{Counters, Proxy, RedisServer, Reply, wait_for};
use tokio::time::Instant;

/// Beyond what any step takes on an overloaded machine.
const LONG: Duration = Duration::from_secs(20);
/// Enough for a reply that is on its way to arrive, where a test shows that none does.
const SHORT: Duration = Duration::from_millis(100);

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(proxy: &Proxy) -> Self {
        Self::try_connect(proxy.addr()).unwrap()
    }

    fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(LONG))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, command: &str) {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.receive().unwrap()
    }

    fn hears_nothing(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(SHORT)).unwrap();
        let heard = self.receive();
        self.0.get_ref().set_read_timeout(Some(LONG)).unwrap();
        heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn pair() -> (RedisServer, Proxy) {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    (server, proxy)
}

fn n(server: &RedisServer) -> Option<i64> {
    server.command(&["GET", "n"]).unwrap().as_integer()
}

fn wait_for_n(server: &RedisServer, value: i64) {
    wait_for("the server to act", LONG, || Ok((n(server) == Some(value)).then_some(()))).unwrap();
}

fn wait_for_count(proxy: &Proxy, enough: impl Fn(Counters) -> bool) {
    wait_for("the proxy to see it", LONG, || Ok(enough(proxy.counters()).then_some(()))).unwrap();
}

#[test]
fn without_faults_everything_passes() {
    let (server, proxy) = pair();
    assert_ne!(proxy.port(), server.port());
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask("PING"), "+PONG");
    let counters = proxy.counters();
    assert_eq!((counters.accepted, counters.open, counters.swallowed), (1, 1, 0));
    assert_eq!((counters.requests, counters.replies), (6, 7));
    drop(client);
    wait_for_count(&proxy, |counters| counters.open == 0);
}

#[test]
fn much_passes_unharmed() {
    let (server, proxy) = pair();
    let value: Vec<u8> = (0..5_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let mut client = Client::connect(&proxy);
    let stream = client.0.get_mut();
    stream.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).as_bytes()).unwrap();
    stream.write_all(&value).unwrap();
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(client.receive().unwrap(), "+OK");
    assert_eq!(server.command(&["STRLEN", "k"]).unwrap(), Reply::Integer(5_000_000));
    assert_eq!(client.ask("GET k"), "$5000000");
    let mut back = vec![0; value.len()];
    client.0.read_exact(&mut back).unwrap();
    assert!(back == value);
}

#[test]
fn sever_cuts_current_connections_and_serves_new_ones() {
    let (server, proxy) = pair();
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&proxy)).collect();
    for client in &mut clients {
        assert_eq!(client.ask("PING"), "+PONG");
    }
    // Connected as far as the kernel is concerned, perhaps not accepted yet.
    clients.push(Client::connect(&proxy));
    proxy.sever();
    assert_eq!(proxy.counters().open, 0);
    for client in &mut clients {
        assert_eq!(client.receive().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(Client::connect(&proxy).ask("PING"), "+PONG");
    wait_for("the server to notice", LONG, || {
        // Our own look is one, and the new client may be another.
        Ok((server.info("connected_clients")?.parse::<u32>().unwrap() <= 2).then_some(()))
    })
    .unwrap();
}

#[test]
fn refuse_keeps_new_clients_out_and_current_ones_in() {
    let (_server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask("PING"), "+PONG");
    for _ in 0..20 {
        proxy.refuse(true);
        let refused = Client::try_connect(proxy.addr()).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(client.ask("PING"), "+PONG");
        proxy.refuse(false);
        assert_eq!(Client::connect(&proxy).ask("PING"), "+PONG");
    }
}

#[test]
fn stall_delivers_when_it_ends() {
    let (server, proxy) = pair();
    let mut old = Client::connect(&proxy);
    assert_eq!(old.ask("PING"), "+PONG");
    proxy.stall(true);
    let mut new = Client::connect(&proxy);
    old.send("INCR n");
    new.send("INCR n");
    assert!(old.hears_nothing() && new.hears_nothing());
    assert_eq!(n(&server), None);
    proxy.stall(false);
    let mut replies = [old.receive().unwrap(), new.receive().unwrap()];
    replies.sort();
    assert_eq!(replies, [":1", ":2"]);
}

#[test]
fn stall_keeps_replies_too() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    client.send("BLPOP list 0");
    // A command that waits: its reply comes up after the stall has begun.
    wait_for("the server to have it", LONG, || Ok((server.info("blocked_clients")? == "1").then_some(())))
        .unwrap();
    proxy.stall(true);
    server.command(&["RPUSH", "list", "x"]).unwrap();
    assert!(client.hears_nothing());
    proxy.stall(false);
    assert_eq!(client.receive().unwrap(), "*2");
}

#[test]
fn dropped_replies_are_for_requests_that_were_done() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    proxy.drop_replies(true);
    client.send("INCR n");
    wait_for_count(&proxy, |counters| counters.swallowed == 4);
    assert_eq!(n(&server), Some(1));
    assert!(client.hears_nothing());
    proxy.drop_replies(false);
    assert_eq!(client.ask("INCR n"), ":2");
}

#[test]
fn dropped_requests_are_never_done() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    proxy.drop_requests(true);
    client.send("INCR n");
    wait_for_count(&proxy, |counters| counters.swallowed == 8);
    proxy.drop_requests(false);
    assert_eq!(client.ask("INCR n"), ":1");
    assert_eq!(n(&server), Some(1));
}

#[test]
fn held_requests_come_late_from_a_client_that_has_gone() {
    for cut in [false, true] {
        let (server, proxy) = pair();
        let mut client = Client::connect(&proxy);
        assert_eq!(client.ask("PING"), "+PONG");
        proxy.hold_requests(true);
        client.send("INCR n");
        wait_for_count(&proxy, |counters| counters.requests == 14);
        if cut {
            proxy.sever();
            assert_eq!(client.receive().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        drop(client);
        assert_eq!(n(&server), None);
        proxy.hold_requests(false);
        wait_for_n(&server, 1);
        wait_for_count(&proxy, |counters| counters.open == 0);
    }
}

#[test]
fn held_requests_hold_no_replies() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask("SUBSCRIBE news"), "*3");
    proxy.hold_requests(true);
    assert_eq!(server.command(&["PUBLISH", "news", "hello"]).unwrap(), Reply::Integer(1));
    wait_for("the news", LONG, || Ok((client.receive()? == "hello").then_some(()))).unwrap();
}

#[test]
fn requests_stalled_when_severed_are_lost() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    proxy.stall(true);
    client.send("INCR n");
    wait_for_count(&proxy, |counters| counters.requests == 8);
    proxy.sever();
    proxy.stall(false);
    // What comes after shows that it is not merely late.
    assert_eq!(Client::connect(&proxy).ask("INCR n"), ":1");
    assert_eq!(n(&server), Some(1));
}

#[test]
fn delay_makes_the_way_longer_and_not_narrower() {
    let (_server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    proxy.delay(Duration::from_millis(60));
    let start = Instant::now();
    assert_eq!(client.ask("PING"), "+PONG");
    assert!(start.elapsed() >= Duration::from_millis(120));

    proxy.delay_requests(Duration::ZERO);
    proxy.delay_replies(Duration::from_millis(500));
    let start = Instant::now();
    for _ in 0..100 {
        client.send("INCR n");
    }
    for at in 1..=100 {
        assert_eq!(client.receive().unwrap(), format!(":{at}"));
    }
    // One after the other they would take 50 s.
    assert!(start.elapsed() >= Duration::from_millis(500) && start.elapsed() < LONG);

    // A shorter delay counts for what is under way too.
    proxy.delay(Duration::from_secs(600));
    client.send("PING");
    proxy.delay(Duration::ZERO);
    assert_eq!(client.receive().unwrap(), "+PONG");
}

#[test]
fn the_servers_end_and_return_pass_through() {
    let (server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask("PING"), "+PONG");
    server.kill().unwrap();
    assert!(client.receive().is_err());
    // The proxy accepts, and then cannot reach the server.
    assert!(Client::try_connect(proxy.addr()).and_then(|mut client| client.receive()).is_err());
    server.restart().unwrap();
    assert_eq!(Client::connect(&proxy).ask("PING"), "+PONG");
}

#[test]
fn dropping_the_proxy_ends_its_connections() {
    let (_server, proxy) = pair();
    let mut client = Client::connect(&proxy);
    assert_eq!(client.ask("PING"), "+PONG");
    let addr = proxy.addr();
    drop(proxy);
    assert!(client.receive().is_err());
    assert_eq!(Client::try_connect(addr).err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_matter() {
    let (_server, proxy) = pair();
    assert_eq!(proxy.addr().ip(), Ipv4Addr::LOCALHOST);
    proxy.delay(Duration::from_millis(20));
    assert_eq!(Client::connect(&proxy).ask("PING"), "+PONG");
    proxy.sever();
}
