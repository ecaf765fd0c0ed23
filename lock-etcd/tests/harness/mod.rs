//! How the conformance suite has an etcd server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::DeleteOptions;
use lock_conformance::{Client, Harness, Hook, HookError, Level, Link, Seclusion, Server, Timing};
use lock_etcd::EtcdBackend;
use lockcore::{Error, ErrorKind, Result};
use testbed::{EtcdServer, EtcdVersion, Proxy};

/// Starts its servers when they are asked for: the suite also makes it in processes that only connect.
pub(crate) struct EtcdHarness {
    shared: Mutex<Option<Arc<EtcdServer>>>,
    /// The core of the suite on this version, or the whole suite on the newest.
    older: Option<EtcdVersion>,
}

impl EtcdHarness {
    pub(crate) fn new(older: Option<EtcdVersion>) -> EtcdHarness {
        EtcdHarness { shared: Mutex::default(), older }
    }
}

#[async_trait]
impl Harness for EtcdHarness {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn level(&self) -> Level {
        if self.older.is_some() { Level::Core } else { Level::Extended }
    }

    // Leases are whole seconds, two at least.
    fn timing(&self) -> Timing {
        Timing::real(Duration::from_secs(2))
    }

    async fn open(&self, seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        let start = || {
            let server = self.older.map_or_else(EtcdServer::start, EtcdServer::start_version);
            server.map(Arc::new).map_err(failed)
        };
        let server = match seclusion {
            Seclusion::Own => start()?,
            Seclusion::Shared => {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(server) => server.clone(),
                    None => shared.insert(start()?).clone(),
                }
            }
        };
        Ok(Arc::new(Etcd(server)))
    }

    async fn connect_to(&self, address: &str) -> Hook<Client> {
        Ok(EtcdBackend::connect(address).await?)
    }
}

struct Etcd(Arc<EtcdServer>);

impl Etcd {
    /// Work on the process of the server, which blocks.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&EtcdServer) -> std::io::Result<T> + Send + 'static,
    ) -> Hook<T> {
        let server = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&server)).await;
        let done =
            done.map_err(|error| HookError::Failed(Error::new(ErrorKind::Other, error.to_string())))?;
        Ok(done.map_err(failed)?)
    }
}

#[async_trait]
impl Server for Etcd {
    fn version(&self) -> String {
        format!("etcd {}", self.0.version().unwrap_or_else(|error| error.to_string()))
    }

    async fn connect(&self) -> Result<Client> {
        Ok(EtcdBackend::connect(&self.0.url()).await?)
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let proxy = Proxy::start(self.0.addr()).map_err(failed)?;
        let client = EtcdBackend::connect(&self.0.url_at(proxy.addr())).await?;
        Ok((client, Box::new(proxy)))
    }

    fn address(&self) -> Hook<String> {
        Ok(self.0.url())
    }

    async fn restart(&self) -> Hook {
        self.with(EtcdServer::restart).await
    }

    // Its revision goes on: what loses that is another cluster.
    async fn lose_state(&self) -> Hook {
        let failed = |error: etcd_client::Error| Error::new(ErrorKind::Other, error.to_string());
        let mut client =
            etcd_client::Client::connect([self.0.addr().to_string()], None).await.map_err(failed)?;
        client.delete("", Some(DeleteOptions::new().with_all_keys())).await.map_err(failed)?;
        Ok(())
    }

    async fn pause(&self, paused: bool) -> Hook {
        self.with(move |server| if paused { server.pause() } else { server.resume() }).await
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
}
