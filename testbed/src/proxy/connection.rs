//! One connection through the proxy.

use std::future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::faults::{Direction, Network};

/// How long a late request's connection waits for the server to close it.
const FAREWELL: Duration = Duration::from_secs(10);

/// A client that has been accepted. Counted as open until dropped.
pub(super) struct Link {
    client: Option<TcpStream>,
    network: Arc<Network>,
    cut: watch::Receiver<()>,
}

impl Link {
    pub(super) fn new(client: TcpStream, network: &Arc<Network>, cut: watch::Receiver<()>) -> Self {
        network.count(|counters| {
            counters.accepted += 1;
            counters.open += 1;
        });
        Self { client: Some(client), network: network.clone(), cut }
    }

    /// Connects to the server and passes bytes on until either side has ended, or the connection is cut.
    pub(super) async fn run(mut self, upstream: SocketAddr) {
        let Some(client) = self.client.take() else { return };
        let server = tokio::select! {
            server = TcpStream::connect(upstream) => server,
            _ = self.cut.changed() => return reset(client),
        };
        // No server there: as near to a refusal as can be had after the proxy's own accept.
        let Ok(server) = server else { return reset(client) };
        // Delay is for the faults only. It fails only on a connection that has ended, which the pumps notice.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);

        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (request_in, mut requests) = Lane::new(&self.network, Direction::Requests);
        let (reply_in, mut replies) = Lane::new(&self.network, Direction::Replies);
        let network = self.network.clone();
        let was_cut = {
            let up = async {
                tokio::join!(
                    read(&network, from_client, Direction::Requests, request_in),
                    requests.deliver(&mut to_server)
                );
                // A client that has sent everything may still be waiting for replies.
                future::pending::<()>().await;
            };
            let down = async {
                tokio::join!(
                    read(&network, &mut from_server, Direction::Replies, reply_in),
                    replies.deliver(&mut to_client)
                );
            };
            tokio::select! {
                biased;
                _ = self.cut.changed() => true,
                () = down => false,
                () = up => false,
            }
        };
        if !was_cut {
            return;
        }
        let late = network.faults.borrow().hold_requests;
        // Fails only on a connection that has ended already.
        let _ = to_client.as_ref().set_zero_linger();
        // Merely dropped it would first end the stream in order.
        to_client.forget();
        if !late {
            let _ = to_server.as_ref().set_zero_linger();
            to_server.forget();
            return;
        }
        drop(self);
        // The client is gone, its requests are under way; the server's answers go nowhere.
        requests.deliver(&mut to_server).await;
        let _ = to_server.shutdown().await;
        let _ = time::timeout(FAREWELL, io::copy(&mut from_server, &mut io::sink())).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.network.count(|counters| counters.open -= 1);
    }
}

/// Bytes under way; none mean the end of the stream.
struct Chunk {
    arrived: Instant,
    bytes: Vec<u8>,
}

/// One direction of a connection, between what has arrived and what has been delivered.
///
/// It has no limit: a network that keeps bytes back must not make the sender wait.
struct Lane {
    network: Arc<Network>,
    direction: Direction,
    queue: UnboundedReceiver<Chunk>,
    /// Taken from the queue, but not let through yet: delivery may be cancelled and begun anew.
    next: Option<Chunk>,
}

impl Lane {
    fn new(network: &Arc<Network>, direction: Direction) -> (UnboundedSender<Chunk>, Self) {
        let (sender, queue) = unbounded_channel();
        (sender, Self { network: network.clone(), direction, queue, next: None })
    }

    /// Delivers what comes until its end, as the faults let it.
    async fn deliver(&mut self, to: &mut OwnedWriteHalf) {
        let mut reachable = true;
        loop {
            if self.next.is_none() {
                self.next = self.queue.recv().await;
            }
            let Some(chunk) = &self.next else { return };
            let passes = self.network.gate(self.direction, chunk.arrived).await;
            let Some(Chunk { bytes, .. }) = self.next.take() else { return };
            if bytes.is_empty() {
                let _ = to.shutdown().await;
                return;
            }
            if !passes {
                self.network.count(|counters| counters.swallowed += bytes.len() as u64);
            } else if reachable {
                // To a receiver that has gone, the rest is read and thrown away: the other side must not block.
                reachable = to.write_all(&bytes).await.is_ok();
            }
        }
    }
}

/// Reads everything that arrives, as soon as it arrives.
async fn read(
    network: &Network,
    mut from: impl AsyncRead + Unpin,
    direction: Direction,
    lane: UnboundedSender<Chunk>,
) {
    loop {
        let mut bytes = Vec::with_capacity(16 * 1024);
        // A reset is an end like any other.
        let count = from.read_buf(&mut bytes).await.unwrap_or(0) as u64;
        network.count(|counters| match direction {
            Direction::Requests => counters.requests += count,
            Direction::Replies => counters.replies += count,
        });
        if lane.send(Chunk { arrived: Instant::now(), bytes }).is_err() || count == 0 {
            return;
        }
    }
}

/// Closes the connection such that the other side sees an error and no orderly end.
fn reset(stream: TcpStream) {
    // Fails only on a connection that has ended already.
    let _ = stream.set_zero_linger();
    drop(stream);
}
