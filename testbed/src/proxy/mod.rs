//! A network that fails on demand.

mod connection;
mod faults;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task;

use connection::Link;
pub use faults::Counters;
use faults::{Faults, Network};

/// A TCP proxy in front of a server, for the faults of networks.
///
/// Point the client at [`addr`](Self::addr). Without faults it passes everything on. Every method has taken effect when it
/// returns: what arrives at the proxy afterwards meets the fault. It runs on a thread of its own and does not
/// care about the test's runtime or its paused clock. Dropping it cuts every connection.
///
/// The methods have no result: a proxy whose thread fails panics, because a fault that is silently not there would let a
/// test pass for the wrong reason.
///
/// # Examples
/// ```
/// use testbed::{Proxy, RedisServer};
/// let server = RedisServer::start().unwrap();
/// let proxy = Proxy::start(server.addr()).unwrap();
/// let url = server.url_at(proxy.addr()); // for the client under test
/// proxy.drop_replies(true); // the server acts, the client never hears of it
/// # drop(url);
/// ```
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// Something to do on the proxy's thread, and where to tell that it is done.
type Order = (Action, Sender<io::Result<Counters>>);

enum Action {
    Change(Box<dyn FnOnce(&mut Faults) + Send>),
    Refuse(bool),
    Sever,
    Count,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, on a port of its own; the server need not run yet.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let door = {
            let _inside = runtime.enter();
            Door::open()?
        };
        let addr = door.addr;
        let (orders, received) = unbounded_channel();
        let thread = thread::Builder::new().name("testbed-proxy".into()).spawn(move || {
            // Ends with the sender of orders; what still runs then is dropped with the runtime.
            runtime.block_on(serve(door, upstream, received));
        })?;
        Ok(Self { addr, orders, thread: Some(thread) })
    }

    /// Gives the address for clients.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Gives the port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Cuts all current connections (a reset on both sides); new ones are served.
    ///
    /// Requests kept by [`hold_requests`](Self::hold_requests) are the exception: they are under way already and arrive
    /// when it ends.
    pub fn sever(&self) {
        self.order(Action::Sever);
    }

    /// Refuses new connections, as a server does that is not there; current ones go on.
    pub fn refuse(&self, on: bool) {
        self.order(Action::Refuse(on));
    }

    /// Accepts connections and bytes, and delivers nothing in either direction; when it ends, everything is delivered.
    pub fn stall(&self, on: bool) {
        self.change(move |faults| faults.stall = on);
    }

    /// Swallows what the server sends; requests flow. A connection that lost replies is out of step: [sever](Self::sever) it.
    pub fn drop_replies(&self, on: bool) {
        self.change(move |faults| faults.drop_replies = on);
    }

    /// Swallows what clients send.
    pub fn drop_requests(&self, on: bool) {
        self.change(move |faults| faults.drop_requests = on);
    }

    /// Keeps requests back and delivers them when it ends, even those of clients that have gone by then: a late request.
    pub fn hold_requests(&self, on: bool) {
        self.change(move |faults| faults.hold_requests = on);
    }

    /// Delivers everything later by this much: the round trip grows by twice as much.
    ///
    /// It is a delay, not a limit: many requests may be under way at once, and their order is kept.
    pub fn delay(&self, by: Duration) {
        self.change(move |faults| (faults.delay_requests, faults.delay_replies) = (by, by));
    }

    /// Delivers requests later by this much.
    pub fn delay_requests(&self, by: Duration) {
        self.change(move |faults| faults.delay_requests = by);
    }

    /// Delivers replies later by this much.
    pub fn delay_replies(&self, by: Duration) {
        self.change(move |faults| faults.delay_replies = by);
    }

    /// Counts what the proxy has seen: wait on it rather than sleep until a fault has met its request.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.order(Action::Count)
    }

    fn change(&self, change: impl FnOnce(&mut Faults) + Send + 'static) {
        self.order(Action::Change(Box::new(change)));
    }

    /// Has it done on the proxy's thread, between two steps of the connections there.
    fn order(&self, action: Action) -> Counters {
        let (answer, done) = mpsc::channel();
        let _ = self.orders.send((action, answer));
        let result = done.recv().expect("the proxy's thread goes on until the proxy is dropped");
        result.unwrap_or_else(|error| panic!("the proxy cannot listen on {} again: {error}", self.addr))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Closes the channel, and with it ends the thread.
        self.orders = unbounded_channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The proxy's port: a socket that keeps it, and while connections are accepted one that listens.
///
/// Closing the listener is the only true refusal. The port stays ours meanwhile, because the keeper, which does not listen,
/// is bound to it.
struct Door {
    addr: SocketAddr,
    _keeper: TcpSocket,
    listener: Option<TcpListener>,
}

impl Door {
    fn open() -> io::Result<Self> {
        let keeper = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = keeper.local_addr()?;
        Ok(Self { addr, _keeper: keeper, listener: Some(bind(addr)?.listen(BACKLOG)?) })
    }

    fn refuse(&mut self, on: bool) -> io::Result<()> {
        if on {
            self.listener = None;
        } else if self.listener.is_none() {
            self.listener = Some(bind(self.addr)?.listen(BACKLOG)?);
        }
        Ok(())
    }

    /// Resets the clients that are connected but not accepted yet. The new listener is there before the old one goes, so
    /// that nobody is refused in between.
    fn clear(&mut self) -> io::Result<()> {
        if self.listener.is_some() {
            self.listener = Some(bind(self.addr)?.listen(BACKLOG)?);
        }
        Ok(())
    }

    async fn next(&self) -> io::Result<TcpStream> {
        match &self.listener {
            Some(listener) => Ok(listener.accept().await?.0),
            None => std::future::pending().await,
        }
    }
}

/// How many clients may wait to be accepted.
const BACKLOG: u32 = 1024;

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn serve(mut door: Door, upstream: SocketAddr, mut orders: UnboundedReceiver<Order>) {
    let network = Arc::new(Network::default());
    let cut = watch::Sender::new(());
    loop {
        tokio::select! {
            // Orders first: a client that connects after `refuse` returned must find the door closed.
            biased;
            order = orders.recv() => {
                let Some((action, answer)) = order else { return };
                let mut result = Ok(());
                match action {
                    Action::Change(change) => network.faults.send_modify(change),
                    Action::Refuse(on) => result = door.refuse(on),
                    Action::Sever => {
                        result = door.clear();
                        cut.send_replace(());
                        network.all_closed().await;
                    }
                    Action::Count => {}
                }
                let _ = answer.send(result.map(|()| network.counters()));
            }
            client = door.next() => {
                // An error is a client that has gone before it was accepted.
                if let Ok(client) = client {
                    task::spawn(Link::new(client, &network, cut.subscribe()).run(upstream));
                }
            }
        }
    }
}
