//! How to reach a cluster: the URL and the options.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, TlsOptions};
use lockcore::{Capabilities, Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::backend::EtcdBackend;
use crate::checks;
use crate::core::{Core, session};
use crate::errors::{NAME, Trouble};
use crate::etcd::Etcd;
use crate::front::Fronts;
use crate::keeper;
use crate::keys::Keys;
use crate::leases::Leases;
use crate::link::Link;
use crate::members::Members;
use crate::registry::Registry;

/// How often a connection with requests on it is probed (the watch is one), and how long it may take to answer. Servers forbid less
/// than 5 s, and any probe of an idle connection.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

/// Options of a connection to etcd; made by [`EtcdBackend::builder`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), lockcore::Error> {
/// use std::time::Duration;
/// use lock_etcd::EtcdBackend;
///
/// let backend = EtcdBackend::builder("etcds://app:secret@one:2379,two:2379,three:2379")
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
pub struct EtcdBuilder {
    url: String,
    prefix: Option<String>,
    connect_timeout: Duration,
    request_timeout: Duration,
    ca_file: Option<PathBuf>,
    client: Option<Client>,
}

/// What a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target {
    secure: bool,
    user: Option<(String, String)>,
    hosts: Vec<String>,
    prefix: Option<String>,
    ca_file: Option<PathBuf>,
}

impl EtcdBuilder {
    pub(crate) fn new(url: &str) -> EtcdBuilder {
        EtcdBuilder {
            url: url.to_owned(),
            prefix: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            ca_file: None,
            client: None,
        }
    }

    /// Sets what all keys on the server begin with, `lock/` unless told. It ends with a slash and has no tilde in it. Locks
    /// under different prefixes never meet. The URL's `?prefix=` says the same.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
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

    /// Sets the certificates (PEM) that an `etcds://` server must be signed by, instead of the system's. The URL's `?ca=`
    /// says the same.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Uses this client, connected as you like, instead of making one; of the URL only the prefix counts then. Which member is asked is
    /// that client's choice: etcd-client's own is by chance for each request, also one that hangs.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Connects and checks that locks are safe on this cluster.
    ///
    /// # Errors
    /// - `InvalidArgument`: the URL or an option makes no sense, or the CA file cannot be read
    /// - `Unavailable`: nobody answers at these addresses in time
    /// - `Denied`: wrong user or password, or a permission is missing
    /// - `Unsupported`: an etcd older than 3.4
    /// - `Conflict`: the URL names members of different clusters
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(self) -> Result<Arc<EtcdBackend>> {
        let patience = self.connect_timeout;
        let late = |_| Err(Error::new(ErrorKind::Unavailable, "the server takes too long to answer"));
        let connected = timeout(patience, Box::pin(self.start())).await.unwrap_or_else(late);
        connected.map_err(|error| error.at("connect", NAME, None))
    }

    async fn start(self) -> Result<Arc<EtcdBackend>> {
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(invalid("timeouts must be longer than zero"));
        }
        let target = Target::parse(&self.url)?;
        let prefix = self.prefix.clone().or_else(|| target.prefix.clone());
        let keys = Keys::new(prefix.unwrap_or_else(|| "lock/".to_owned()))?;
        let address = target.hosts.join(",");
        let (client, asked) = if let Some(client) = self.client {
            (client, None)
        } else {
            let members = Members::new(endpoints(&target, self.ca_file.as_ref(), self.connect_timeout)?);
            let client = open(&target, &members, keys.prefix(), self.connect_timeout).await?;
            (client, Some(members.asked()))
        };
        let link = Link::new(Etcd::new(client.clone(), asked), self.request_timeout);
        let capabilities =
            checks::check(&client, &link, self.connect_timeout).await.map_err(Trouble::error)?;
        begin(link, keys, session(), capabilities, self.connect_timeout, address).await
    }
}

/// Begins to keep locks over a link, in the name of a session that nobody else has. The watch on the client's news is there when
/// this returns.
pub(crate) async fn begin(
    link: Link,
    keys: Keys,
    session: String,
    capabilities: Capabilities,
    patience: Duration,
    address: String,
) -> Result<Arc<EtcdBackend>> {
    let link = Arc::new(link);
    let core = Arc::new(Core {
        leases: Leases::new(link.clone(), capabilities.min_ttl, keys.news(&session)),
        link,
        keys,
        registry: Registry::new(session.clone()),
        fronts: Fronts::default(),
        session,
        moves: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
    });
    // Asked for beforehand, because a watch does not say why it is refused.
    core.may_act().await.map_err(|trouble| trouble.beforehand().error())?;
    let watching = keeper::watch(&core, patience).await.map_err(Trouble::error)?;
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Closed, "locks need a tokio runtime to run on").with_source(error)
    })?;
    let keeping = runtime.spawn(keeper::keep(core.clone(), watching, patience));
    Ok(Arc::new(EtcdBackend::new(core, capabilities, keeping, address)))
}

/// How each of the members is to be connected to.
fn endpoints(
    target: &Target,
    ca_file: Option<&PathBuf>,
    patience: Duration,
) -> Result<Vec<(String, Endpoint)>> {
    let ca_file = ca_file.or(target.ca_file.as_ref());
    if ca_file.is_some() && !target.secure {
        return Err(invalid("a CA file needs TLS: write etcds:// instead of etcd://"));
    }
    let mut tls = target.secure.then(TlsOptions::new);
    tls = match (tls, ca_file) {
        (Some(tls), Some(path)) => Some(tls.ca_certificate(Certificate::from_pem(read(path)?))),
        (tls, _) => tls.map(TlsOptions::with_native_roots),
    };
    let scheme = if target.secure { "https" } else { "http" };
    let mut endpoints = Vec::with_capacity(target.hosts.len());
    for host in &target.hosts {
        let no_host = |error| invalid(format!("{host:?} is no host")).with_source(error);
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(no_host)?;
        if let Some(tls) = &tls {
            let unusable = |error| invalid("TLS cannot be had with these certificates").with_source(error);
            endpoint = endpoint.tls_config(tls.clone()).map_err(unusable)?;
        }
        let (interval, answer) = PING;
        let endpoint =
            endpoint.connect_timeout(patience).http2_keep_alive_interval(interval).keep_alive_timeout(answer);
        endpoints.push((host.clone(), endpoint));
    }
    Ok(endpoints)
}

/// Makes the connection; the password is checked, if there is one.
async fn open(target: &Target, members: &Members, prefix: &str, patience: Duration) -> Result<Client> {
    let mut options = ConnectOptions::new()
        .with_auto_token_refresh(true)
        // A member that is cut off from the others refuses, instead of answering from what it remembers.
        .with_require_leader(true);
    if let Some((user, password)) = &target.user {
        options = options.with_user(user, password);
    }
    let connecting = async {
        if target.hosts.len() > 1 {
            members.choose(&options, &format!("{prefix}~")).await?;
        }
        Client::from_channel(members.channel(), Some(options)).await.map_err(Trouble::of)
    };
    match timeout(patience, connecting).await {
        Ok(connected) => connected.map_err(|trouble| trouble.at_first().error()),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "the server does not answer")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| invalid(format!("cannot read the CA file {}", path.display())).with_source(error))
}

impl Target {
    /// Reads `etcd://user:password@host:port,host:port/?prefix=…&ca=…`. An error does not repeat the URL: there is a password in
    /// it.
    fn parse(text: &str) -> Result<Target> {
        let (secure, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => (false, rest),
            Some(("etcds", rest)) => (true, rest),
            _ => return Err(invalid("an etcd URL begins with etcd:// or etcds://")),
        };
        let (authority, query) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (login, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let mut target = Target { secure, ..Target::default() };
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            target.hosts.push(with_port(host)?);
        }
        if target.hosts.is_empty() {
            return Err(invalid("the URL names no host, as in etcd://127.0.0.1:2379"));
        }
        // The rest is an ordinary URL's: its rules of encoding are not ours to repeat.
        let login = login.map_or_else(String::new, |login| format!("{login}@"));
        let url = url::Url::parse(&format!("http://{login}host{query}"))
            .map_err(|error| invalid(format!("this is no URL: {error}")))?;
        if !url.username().is_empty() {
            let password = url.password().unwrap_or_default();
            target.user = Some((decode(url.username())?, decode(password)?));
        }
        if url.path() != "/" {
            return Err(invalid("an etcd URL has no path: say ?prefix=… for the beginning of all keys"));
        }
        for (name, value) in url.query_pairs() {
            match &*name {
                "prefix" => target.prefix = Some(value.into_owned()),
                "ca" => target.ca_file = Some(PathBuf::from(value.into_owned())),
                _ => return Err(invalid(format!("the URL has a parameter that is not known: {name}"))),
            }
        }
        Ok(target)
    }
}

fn with_port(host: &str) -> Result<String> {
    let end = host.rsplit_once(']').map_or(host, |(_, end)| end);
    let Some((name, port)) = end.rsplit_once(':') else { return Ok(format!("{host}:2379")) };
    if port.parse::<u16>().is_err() || (name.is_empty() && !host.contains(']')) {
        return Err(invalid(format!("{host:?} is no host with a port, as in 127.0.0.1:2379")));
    }
    Ok(host.to_owned())
}

/// Undoes the percent-encoding of a user or a password.
fn decode(text: &str) -> Result<String> {
    // A form's rules differ in the plus sign only.
    let plain = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    let decoded = url::form_urlencoded::parse(plain.as_bytes()).next();
    decoded
        .map(|(_, value)| value.into_owned())
        .ok_or_else(|| invalid("the user or the password cannot be read"))
}

impl fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_hosts_login_and_prefix() {
        let target =
            Target::parse("etcds://ann:p%40s%2Bs+@one,two:1,[::1],[::2]:7/?prefix=a/b/&ca=/x.pem").unwrap();
        assert!(target.secure);
        assert_eq!(target.hosts, ["one:2379", "two:1", "[::1]:2379", "[::2]:7"]);
        assert_eq!(target.user, Some(("ann".into(), "p@s+s+".into())));
        assert_eq!((target.prefix.as_deref(), target.ca_file), (Some("a/b/"), Some("/x.pem".into())));
        assert_eq!(Target::parse("etcd://h?prefix=p/").unwrap().prefix.as_deref(), Some("p/"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_the_password() {
        for url in
            ["", "etcd://", "http://h", "etcd://h:port", "etcd://h/path", "etcd://h?color=red", "etcd://:1"]
        {
            let error = Target::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        }
        let error = Target::parse("etcd://u:geheim@h:x").unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}
