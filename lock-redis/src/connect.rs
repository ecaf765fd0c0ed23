//! How to reach a server: the URL and the options.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, FORGET_AFTER, Result};
use redis::io::tcp::TcpSettings;
use redis::{IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use url::Url;

use crate::backend::RedisBackend;
use crate::errors::NAME;
use crate::keys::Keys;
use crate::link::{Link, Target};
use crate::news::Registry;
use crate::request::Requests;
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

    /// Connects and checks that locks are safe on this server.
    ///
    /// # Errors
    /// - `InvalidArgument`: the URL or an option makes no sense, or the CA file cannot be read
    /// - `Unavailable`: nobody answers at that address in time, or it is a replica
    /// - `Denied`: wrong user or password, or a permission is missing
    /// - `Unsupported`: a `maxmemory-policy` that may evict locks, or a Redis older than 6.2
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(self) -> Result<Arc<RedisBackend>> {
        self.start().await.map_err(|error| error.at("connect", NAME, None))
    }

    async fn start(self) -> Result<Arc<RedisBackend>> {
        if self.prefix.contains(['{', '}']) {
            return Err(invalid("the prefix must not contain braces: they mark the hash slot"));
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(invalid("timeouts must be longer than zero"));
        }
        let client = self.client()?;
        let keys = Keys::new(self.prefix);
        let channel = keys.channel();
        let scripts = Arc::new(Scripts::new(self.fence_keep, self.forget_after));
        let registry = Arc::new(Registry::default());
        let target =
            Target { client, connect_timeout: self.connect_timeout, request_timeout: self.request_timeout };
        let link = Link::open(target, scripts.clone(), channel.clone(), registry.clone())
            .await
            .map_err(crate::errors::Trouble::error)?;
        Ok(Arc::new(RedisBackend::new(link, scripts, registry, Requests { keys, channel })))
    }

    fn client(&self) -> Result<redis::Client> {
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
        let ca_file = self.take_query(&mut url)?;
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
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(read(&path)?) };
                redis::Client::build_with_tls(info, certificates).map_err(|error| {
                    invalid(format!("cannot use the CA file {}", path.display())).with_source(error)
                })
            }
            None => redis::Client::open(info).map_err(refused),
        }
    }

    /// Takes our own parameters out of the URL and refuses those that nobody knows.
    fn take_query(&self, url: &mut Url) -> Result<Option<PathBuf>> {
        let mut ca_file = self.ca_file.clone();
        for (name, value) in url.query_pairs() {
            match &*name {
                "ca" => ca_file = Some(PathBuf::from(value.into_owned())),
                _ => return Err(invalid(format!("the URL has a parameter that is not known: {name}"))),
            }
        }
        url.set_query(None);
        Ok(ca_file)
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
