//! The conformance suite on a real Redis server.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::{Client, Harness, Hook, HookError, Link, Seclusion, Server, Timing};
use lock_redis::RedisBackend;
use lockcore::{Error, ErrorKind, Result};
use testbed::{Proxy, RedisServer};

/// Starts its servers when they are asked for: the suite also makes it in processes that only connect.
#[derive(Default)]
struct RedisHarness {
    shared: Mutex<Option<Arc<RedisServer>>>,
}

#[async_trait]
impl Harness for RedisHarness {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn timing(&self) -> Timing {
        Timing::real(Duration::from_millis(300))
    }

    async fn open(&self, seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        let start = || RedisServer::start().map(Arc::new).map_err(failed);
        let server = match seclusion {
            Seclusion::Own => Arc::new(RedisServer::options().own_clock().start().map_err(failed)?),
            Seclusion::Shared => {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(server) => server.clone(),
                    None => shared.insert(start()?).clone(),
                }
            }
        };
        Ok(Arc::new(Redis(server)))
    }

    async fn connect_to(&self, address: &str) -> Hook<Client> {
        Ok(RedisBackend::connect(address).await?)
    }
}

struct Redis(Arc<RedisServer>);

impl Redis {
    /// Work on the process of the server, which blocks.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RedisServer) -> std::io::Result<T> + Send + 'static,
    ) -> Hook<T> {
        let server = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&server)).await;
        let done =
            done.map_err(|error| HookError::Failed(Error::new(ErrorKind::Other, error.to_string())))?;
        Ok(done.map_err(failed)?)
    }
}

#[async_trait]
impl Server for Redis {
    fn version(&self) -> String {
        format!("redis {}", self.0.info("redis_version").unwrap_or_else(|error| error.to_string()))
    }

    async fn connect(&self) -> Result<Client> {
        Ok(RedisBackend::connect(&self.0.url()).await?)
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let proxy = Proxy::start(self.0.addr()).map_err(failed)?;
        let client = RedisBackend::connect(&self.0.url_at(proxy.addr())).await?;
        Ok((client, Box::new(proxy)))
    }

    fn address(&self) -> Hook<String> {
        Ok(self.0.url())
    }

    async fn restart(&self) -> Hook {
        self.with(RedisServer::restart).await
    }

    async fn lose_state(&self) -> Hook {
        self.with(|server| server.command(&["FLUSHALL"]).map(drop)).await
    }

    async fn set_clock_ahead(&self, seconds: i64) -> Hook {
        self.with(move |server| server.set_clock_ahead(seconds)).await
    }

    async fn pause(&self, paused: bool) -> Hook {
        self.with(move |server| if paused { server.pause() } else { server.resume() }).await
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}

fn main() -> ExitCode {
    lock_conformance::run(RedisHarness::default())
}
