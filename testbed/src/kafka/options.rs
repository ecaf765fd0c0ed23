//! What a Kafka broker is to be like.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::security::Security;
use super::{KafkaCluster, KafkaServer};
use crate::clock::Clock;
use crate::folder::Folder;
use crate::ports;
use crate::process::Program;
use crate::proxy::Proxy;
use crate::tools;

/// The folder of the broker's jars among the servers of the set-up.
const JARS: &str = "kafka-4.1.0";

/// The folder of a broker's data, in its own folder.
pub(super) const DATA: &str = "data";

/// How the virtual machine is to start soon and stay small.
const JAVA: [&str; 6] = [
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dlog4j2.configurationFile=log4j2.properties",
];

/// What it prints; that it has started is one of these lines.
const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
";

/// What a broker of a test is like unless told.
const PROPERTIES: &str = "\
process.roles=broker,controller
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.enable=false
num.network.threads=2
num.io.threads=4
broker.heartbeat.interval.ms=200
";

/// What a broker is to be like: see [`KafkaServer::options`].
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    properties: Vec<(String, String)>,
    proxies: usize,
    place: Option<PathBuf>,
    security: Security,
    own_clock: bool,
}

/// The ports of one node: for clients, for the controllers, and behind each proxy.
struct Ports {
    clients: u16,
    operator: Option<u16>,
    controller: u16,
    proxied: Vec<(u16, Proxy)>,
}

impl KafkaOptions {
    /// Sets a property of the broker's configuration, as in `property("min.insync.replicas", "2")`.
    #[must_use]
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Puts so many proxies in front of each broker. A client that begins with one of them meets no other: brokers send their
    /// clients on to where they say that they are.
    #[must_use]
    pub fn proxies(mut self, count: usize) -> Self {
        self.proxies = count;
        self
    }

    /// Keeps its data somewhere in `place`, such as on a disk.
    #[must_use]
    pub fn place(mut self, place: &Path) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    /// Gives it a user, who says so with PLAIN or SCRAM-SHA-256 and may do nothing until [`KafkaServer::allow`] is called.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.security.users.push((name.into(), password.into()));
        self
    }

    /// Lets clients speak TLS; its certificate is for this name, such as `127.0.0.1`.
    #[must_use]
    pub fn tls(mut self, name: &str) -> Self {
        self.security.names.push(name.into());
        self
    }

    /// Gives each broker a wall clock of its own, for [`KafkaServer::set_clock_ahead`].
    #[must_use]
    pub fn own_clock(mut self) -> Self {
        self.own_clock = true;
        self
    }

    /// Starts one broker and waits until it serves clients.
    ///
    /// # Errors
    /// `NotFound`, with the advice to run `cargo xtask setup`, when there is no Kafka; the end of the broker's log when it does
    /// not start.
    pub fn start(self) -> io::Result<KafkaServer> {
        let one = self.start_nodes(1)?.pop();
        one.ok_or_else(|| io::Error::other("there is no broker"))
    }

    /// Starts a cluster of three and waits until each of them serves clients.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_cluster(self) -> io::Result<KafkaCluster> {
        self.start_nodes(3).map(KafkaCluster::new)
    }

    fn start_nodes(&self, count: usize) -> io::Result<Vec<KafkaServer>> {
        // Between the choice of a port and the broker's use of it another process may take it.
        let mut attempt = 1;
        loop {
            match self.try_start(count) {
                Err(error) if attempt < 5 && error.to_string().contains("Address already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(&self, count: usize) -> io::Result<Vec<KafkaServer>> {
        let ports: Vec<Ports> = (0..count).map(|_| self.ports()).collect::<io::Result<_>>()?;
        let voters = ports.iter().enumerate();
        let voters: Vec<String> =
            voters.map(|(at, ports)| format!("{}@127.0.0.1:{}", at + 1, ports.controller)).collect();
        let (voters, cluster) = (voters.join(","), id());
        let mut nodes = Vec::with_capacity(count);
        for (at, ports) in ports.into_iter().enumerate() {
            let node = self.node(at + 1, ports, &voters, &cluster, count)?;
            node.launch()?;
            nodes.push(node);
        }
        nodes.iter().try_for_each(KafkaServer::ready)?;
        nodes[0].make_users(&self.security.users)?;
        Ok(nodes)
    }

    fn ports(&self) -> io::Result<Ports> {
        let mut proxied = Vec::with_capacity(self.proxies);
        for _ in 0..self.proxies {
            let behind = ports::free()?;
            proxied.push((behind, Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, behind)))?));
        }
        let operator = if self.security.is_needed() { Some(ports::free()?) } else { None };
        Ok(Ports { clients: ports::free()?, operator, controller: ports::free()?, proxied })
    }

    fn node(
        &self,
        node: usize,
        ports: Ports,
        voters: &str,
        cluster: &str,
        count: usize,
    ) -> io::Result<KafkaServer> {
        let jars = tools::folder_of(JARS)?;
        let folder = self.place.as_deref().map_or_else(Folder::new, Folder::in_place)?;
        let data = folder.path().join(DATA);
        let mut listeners = vec![("CLIENTS".to_owned(), ports.clients, ports.clients)];
        for (at, (behind, proxy)) in ports.proxied.iter().enumerate() {
            listeners.push((format!("PROXY{at}"), *behind, proxy.port()));
        }
        let secured: Vec<&str> = listeners.iter().map(|(name, ..)| name.as_str()).collect();
        let security = self.security.properties(&secured, &folder)?;
        let mut spoken: Vec<String> =
            secured.iter().map(|name| format!("{name}:{}", self.security.protocol())).collect();
        if let Some(port) = ports.operator {
            spoken.push("OPERATOR:PLAINTEXT".to_owned());
            listeners.push(("OPERATOR".to_owned(), port, port));
        }
        let between =
            listeners.last().filter(|_| ports.operator.is_some()).map_or("CLIENTS", |(name, ..)| name);
        let each = |of: &dyn Fn(&(String, u16, u16)) -> String| {
            listeners.iter().map(of).collect::<Vec<String>>().join(",")
        };
        let listen = each(&|(name, port, _)| format!("{name}://127.0.0.1:{port}"));
        let advertised = each(&|(name, _, port)| format!("{name}://127.0.0.1:{port}"));
        let mut properties = String::from(PROPERTIES);
        let own = [
            ("node.id", node.to_string()),
            ("controller.quorum.voters", voters.to_owned()),
            ("listeners", format!("{listen},CONTROLLER://127.0.0.1:{}", ports.controller)),
            ("advertised.listeners", advertised),
            ("listener.security.protocol.map", format!("{},CONTROLLER:PLAINTEXT", spoken.join(","))),
            ("inter.broker.listener.name", between.to_owned()),
            ("log.dirs", data.to_string_lossy().into_owned()),
            ("offsets.topic.replication.factor", count.to_string()),
            ("transaction.state.log.replication.factor", count.to_string()),
            ("transaction.state.log.min.isr", count.min(2).to_string()),
            // One that was killed may come back when the controllers have given it up. With one node that is a matter of waiting.
            ("broker.session.timeout.ms", if count == 1 { "1000" } else { "9000" }.to_owned()),
        ];
        let given = security.iter().chain(&self.properties);
        let given = given.map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in own.into_iter().chain(given) {
            // Writing to a string does not fail.
            let _ = writeln!(properties, "{name}={value}");
        }
        folder.write("server.properties", &properties)?;
        folder.write("log4j2.properties", LOGGING)?;
        // What the storage tool would do, without a second virtual machine.
        std::fs::create_dir(&data)?;
        let meta = format!("version=1\ncluster.id={cluster}\nnode.id={node}\ndirectory.id={}\n", id());
        std::fs::write(data.join("meta.properties"), meta)?;
        let mut args: Vec<String> = JAVA.iter().map(|&arg| arg.to_owned()).collect();
        args.extend([
            "-cp".to_owned(),
            format!("{}/*", jars.display()),
            "kafka.Kafka".to_owned(),
            "server.properties".to_owned(),
        ]);
        let dir = folder.path().to_owned();
        let clock = self.own_clock.then(|| Clock::new(&folder)).transpose()?;
        let env = clock.as_ref().map(Clock::env).unwrap_or_default();
        let program = Program { name: "java", file: None, args, env, dir };
        let proxies = ports.proxied.into_iter().map(|(_, proxy)| proxy).collect();
        Ok(KafkaServer {
            process: Mutex::new(None),
            port: ports.clients,
            operator: ports.operator.unwrap_or(ports.clients),
            authority: self.security.authority(&folder),
            proxies,
            program,
            clock,
            folder,
        })
    }
}

/// A random id as Kafka writes them: 16 bytes.
fn id() -> String {
    let half = || RandomState::new().hash_one(()).to_be_bytes();
    // It must not begin with a dash, which Kafka's tools take for an option.
    format!("A{}", &URL_SAFE_NO_PAD.encode([half(), half()].concat())[1..])
}
