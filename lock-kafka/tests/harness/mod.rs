//! How the conformance suite has a Kafka broker: a topic of its own for each lock server.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::{Client, Harness, Hook, HookError, Link, Seclusion, Server, Timing};
use lock_kafka::KafkaBackend;
use lockcore::{Error, ErrorKind, Result};
use testbed::{KafkaOptions, KafkaServer, Proxy};

/// How many clients of one trial have a way to the broker that can be broken.
const WAYS: usize = 3;

/// Starts its brokers when they are asked for: the suite also makes it in processes that only connect.
#[derive(Default)]
pub(crate) struct KafkaHarness {
    shared: Mutex<Option<Arc<Broker>>>,
    topics: AtomicUsize,
}

#[async_trait]
impl Harness for KafkaHarness {
    fn name(&self) -> &'static str {
        "kafka"
    }

    // A multiple of the shortest lease. Whoever waits ends a lease that is over; nobody has to ask.
    fn timing(&self) -> Timing {
        Timing { hands_over_at_once: true, ..Timing::real(Duration::from_secs(2)) }
    }

    // Each trial has a topic of its own.
    fn side_by_side(&self) -> usize {
        20
    }

    async fn open(&self, seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        let broker = match seclusion {
            Seclusion::Own => Broker::of(KafkaServer::options().own_clock(), WAYS)?,
            Seclusion::Shared => {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(broker) => broker.clone(),
                    // Its trials are played side by side.
                    None => shared.insert(Broker::of(KafkaServer::options(), 16 * WAYS)?).clone(),
                }
            }
        };
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Topic { broker, name: format!("locks-{number}") }))
    }

    async fn connect_to(&self, address: &str) -> Hook<Client> {
        Ok(KafkaBackend::connect(address).await?)
    }
}

/// A broker, and which of its proxies nobody uses.
struct Broker {
    server: KafkaServer,
    free: Mutex<Vec<usize>>,
}

impl Broker {
    fn of(options: KafkaOptions, ways: usize) -> Result<Arc<Broker>> {
        let server = options.proxies(ways).start().map_err(failed)?;
        Ok(Arc::new(Broker { server, free: Mutex::new((0..ways).collect()) }))
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Topic {
    broker: Arc<Broker>,
    name: String,
}

impl Topic {
    /// Work on the process of the broker, which blocks.
    async fn with(&self, work: impl FnOnce(&KafkaServer) -> io::Result<()> + Send + 'static) -> Hook {
        let broker = self.broker.clone();
        let done = tokio::task::spawn_blocking(move || work(&broker.server)).await;
        let done =
            done.map_err(|error| HookError::Failed(Error::new(ErrorKind::Other, error.to_string())))?;
        Ok(done.map_err(failed)?)
    }
}

#[async_trait]
impl Server for Topic {
    fn version(&self) -> String {
        "Kafka 4.1.0".into()
    }

    async fn connect(&self) -> Result<Client> {
        Ok(KafkaBackend::connect(&self.broker.server.url(&self.name)).await?)
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let number = self.broker.free().pop();
        let number =
            number.ok_or_else(|| HookError::not_supported("so many clients with a breakable link"))?;
        let way = Way { broker: self.broker.clone(), number };
        let url = self.broker.server.url_at(way.proxy().addr(), &self.name);
        Ok((KafkaBackend::connect(&url).await?, Box::new(way)))
    }

    fn address(&self) -> Hook<String> {
        Ok(self.broker.server.url(&self.name))
    }

    async fn restart(&self) -> Hook {
        self.with(KafkaServer::restart).await
    }

    // What is left then is another log.
    async fn lose_state(&self) -> Hook {
        Err(HookError::not_supported("losing the state: clients whose log is gone read no further"))
    }

    async fn set_clock_ahead(&self, seconds: i64) -> Hook {
        self.with(move |server| server.set_clock_ahead(seconds)).await
    }

    async fn pause(&self, paused: bool) -> Hook {
        self.with(move |server| if paused { server.pause() } else { server.resume() }).await
    }
}

/// One of the broker's proxies, for one client at a time.
struct Way {
    broker: Arc<Broker>,
    number: usize,
}

impl Way {
    fn proxy(&self) -> &Proxy {
        &self.broker.server.proxies()[self.number]
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        // As new, for the next one; its last client is out.
        let proxy = self.proxy();
        proxy.stall(false);
        proxy.drop_replies(false);
        proxy.hold_requests(false);
        proxy.delay_requests(Duration::ZERO);
        proxy.refuse(false);
        proxy.sever();
        self.broker.free().push(self.number);
    }
}

impl Link for Way {
    fn partition(&self, on: bool) -> Hook {
        Link::partition(self.proxy(), on)
    }

    fn lose_replies(&self, on: bool) -> Hook {
        Link::lose_replies(self.proxy(), on)
    }

    fn refuse(&self, on: bool) -> Hook {
        Link::refuse(self.proxy(), on)
    }

    fn delay(&self, by: Duration) -> Hook {
        Link::delay(self.proxy(), by)
    }

    fn hold_requests(&self, on: bool) -> Hook {
        Link::hold_requests(self.proxy(), on)
    }

    fn sever(&self) -> Hook {
        Link::sever(self.proxy())
    }
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}
