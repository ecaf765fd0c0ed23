//! How to reach a server: the URL and the options.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, FORGET_AFTER, MAX_TTL, Result};
use redis::io::tcp::TcpSettings;
use redis::{IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use url::Url;

use crate::backend::RedisBackend;
use crate::errors::{NAME, Trouble};
use crate::keys::Keys;
use crate::link::{Link, Target};
use crate::news::Registry;
use crate::replicas::Replicas;
use crate::request::Requests;
use crate::restart::RestartGrace;
use crate::scripts::Scripts;

/// Options of a connection to Redis; made by [`RedisBackend::builder`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), lockcore::Error> {
/// use std::time::Duration;
/// use lock_redis::RedisBackend;
///
/// let backend = RedisBackend::builder("rediss://app:secret@redis.internal:6380/2")
///     .prefix("billing/lock/")
///     .request_timeout(Duration::from_secs(2))
///     .ca_file("/etc/ssl/internal-ca.pem")
///     .connect()
///     .await?;
/// # drop(backend);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    url: String,
    prefix: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    fence_keep: Duration,
    forget_after: Duration,
    ca_file: Option<PathBuf>,
    replicas: u32,
    restart_grace: Duration,
}

impl RedisBuilder {
    pub(crate) fn new(url: &str) -> RedisBuilder {
        RedisBuilder {
            url: url.to_owned(),
            prefix: "lock/".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            fence_keep: Duration::from_secs(30 * 24 * 3600),
            forget_after: FORGET_AFTER,
            ca_file: None,
            replicas: 0,
            restart_grace: Duration::ZERO,
        }
    }

    /// Sets what all keys on the server begin with, `lock/` unless told. Locks under different prefixes never meet.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long making a connection may take, checks included; 5 s unless told.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a request waits for its answer; 5 s unless told.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how long the last fencing token of an unused key is kept; 30 days unless told.
    ///
    /// After that the server's clock alone keeps tokens growing.
    pub fn fence_keep(mut self, keep: Duration) -> Self {
        self.fence_keep = keep;
        self
    }

    /// Sets how long the id of an ended claim is remembered while a copy of its acquire may still be under way; one hour
    /// unless told.
    pub fn forget_after(mut self, forget_after: Duration) -> Self {
        self.forget_after = forget_after;
        self
    }

    /// Sets the certificates (PEM) that a `rediss://` server must be signed by, instead of the system's. The URL's `?ca=`
    /// says the same.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets how many replicas must have a grant, a renewal or an upgrade before it counts; none unless told. The URL's
    /// `?replicas=` says the same.
    ///
    /// A failover to a replica that has confirmed a lock keeps it. Too few confirmations in time are an `Indeterminate`
    /// error, which is retried.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets how long after a start of the server nothing is granted, since it may have forgotten who holds; zero, the
    /// default, is not at all. The URL's `?restart_grace=` says the same, as in `30s`.
    ///
    /// Leases are at most as long: an acquire with a longer ttl is refused, a longer renewal is cut. All clients of the same
    /// locks must set the same.
    pub fn restart_grace(mut self, grace: Duration) -> Self {
        self.restart_grace = grace;
        self
    }

    /// Connects and checks that locks are safe on this server.
    ///
    /// # Errors
    /// - `InvalidArgument`: the URL or an option makes no sense, or the CA file cannot be read
    /// - `Unavailable`: nobody answers at that address in time, it is a replica, or it has fewer [`replicas`] than must
    ///   confirm
    /// - `Denied`: wrong user or password, or a permission is missing
    /// - `Unsupported`: a `maxmemory-policy` that may evict locks, or a Redis older than 6.2
    ///
    /// [`replicas`]: RedisBuilder::replicas
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(self) -> Result<Arc<RedisBackend>> {
        self.start().await.map_err(|error| error.at("connect", NAME, None))
    }

    async fn start(mut self) -> Result<Arc<RedisBackend>> {
        if self.prefix.contains(['{', '}']) {
            return Err(invalid("the prefix must not contain braces: they mark the hash slot"));
        }
        let client = self.client()?;
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(invalid("timeouts must be longer than zero"));
        }
        if self.restart_grace > MAX_TTL {
            return Err(invalid("restart_grace must not be longer than the longest ttl, 100 years"));
        }
        let restart = Some(self.restart_grace).filter(|grace| !grace.is_zero());
        let keys = Keys::new(self.prefix);
        let channel = keys.channel();
        let scripts = Arc::new(Scripts::new(self.fence_keep, self.forget_after));
        let registry = Arc::new(Registry::default());
        let target = Target {
            client,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            replicas: self.replicas,
            restart: restart.map(|grace| Arc::new(RestartGrace::new(grace))),
        };
        let link = Link::open(target.clone(), scripts.clone(), Some(channel.clone()), registry.clone());
        let link = link.await.map_err(Trouble::error)?;
        let mut backend = RedisBackend::new(link, scripts.clone(), registry, Requests { keys, channel });
        if target.replicas > 0 {
            backend.replicas = Some(Replicas::open(target, scripts).await.map_err(Trouble::error)?);
        }
        Ok(Arc::new(backend))
    }

    fn client(&mut self) -> Result<redis::Client> {
        // A parse error must not repeat the URL: there is a password in it.
        let mut url = Url::parse(&self.url).map_err(|error| invalid(format!("this is no URL: {error}")))?;
        let secure = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            scheme => {
                return Err(invalid(format!(
                    "a Redis URL begins with redis:// or rediss://, not {scheme}://"
                )));
            }
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("the URL names no host, as in redis://127.0.0.1:6379"));
        }
        self.take_query(&mut url)?;
        let ca_file = self.ca_file.as_deref();
        if ca_file.is_some() && !secure {
            return Err(invalid("a CA file needs TLS: write rediss:// instead of redis://"));
        }
        let database = url.path().trim_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return Err(invalid(
                "the path of a Redis URL is the number of a database, as in redis://127.0.0.1/2",
            ));
        }
        url.set_fragment(None);
        let refused = |error: redis::RedisError| invalid("this is no Redis URL").with_source(error);
        let info = url.into_connection_info().map_err(refused)?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("fencelock", env!("CARGO_PKG_VERSION"));
        let info = info
            .set_redis_settings(settings)
            // Otherwise a request could wait for the answer to the one before.
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if !secure {
            return redis::Client::open(info).map_err(refused);
        }
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Somebody else may be faster; any provider will do.
            let _theirs = rustls::crypto::ring::default_provider().install_default();
        }
        match ca_file {
            Some(path) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(read(path)?) };
                redis::Client::build_with_tls(info, certificates).map_err(|error| {
                    invalid(format!("cannot use the CA file {}", path.display())).with_source(error)
                })
            }
            None => redis::Client::open(info).map_err(refused),
        }
    }

    /// Takes our own parameters out of the URL and refuses those that nobody knows.
    fn take_query(&mut self, url: &mut Url) -> Result<()> {
        for (name, value) in url.query_pairs() {
            match &*name {
                "ca" => self.ca_file = Some(PathBuf::from(value.into_owned())),
                "replicas" => {
                    self.replicas = value.parse().map_err(|_| {
                        invalid(format!("replicas={value}: it is a number, as in replicas=1"))
                    })?;
                }
                "restart_grace" => {
                    self.restart_grace = humantime::parse_duration(&value).map_err(|_| {
                        invalid(format!(
                            "restart_grace={value}: it is a duration with its unit, as in restart_grace=30s"
                        ))
                    })?;
                }
                _ => return Err(invalid(format!("the URL has a parameter that is not known: {name}"))),
            }
        }
        url.set_query(None);
        Ok(())
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| invalid(format!("cannot read the CA file {}", path.display())).with_source(error))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
