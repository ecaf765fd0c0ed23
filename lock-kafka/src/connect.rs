//! How a client comes to its partitions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, Result};
use rdkafka::config::ClientConfig;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backend::{KafkaBackend, capabilities};
use crate::checks::Asker;
use crate::core::Core;
use crate::errors::{BACKEND, Halt};
use crate::log::{Append, Log};
use crate::newcomer::{self, Begun};
use crate::partition::{Link, Partition};
use crate::producing::Producing;
use crate::rd;
use crate::reading::Reading;
use crate::record::{Id, Record, reads_alike};
use crate::rights::{Right, Rights};
use crate::settings::Settings;
use crate::target::{Target, invalid};
use crate::what::What;

/// Options of a connection to Kafka; made by [`KafkaBackend::builder`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), lockcore::Error> {
/// use std::time::Duration;
/// use lock_kafka::KafkaBackend;
///
/// let backend = KafkaBackend::builder("kafka://one:9092,two:9092/billing.locks?partitions=3&security.protocol=SSL")
///     .connect_timeout(Duration::from_secs(5))
///     .connect()
///     .await?;
/// # drop(backend);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct KafkaBuilder {
    url: String,
    config: ClientConfig,
    settings: Settings,
    connect_timeout: Duration,
}

impl KafkaBuilder {
    /// Begins with these settings of librdkafka, for which see its `CONFIGURATION.md`; what the URL says counts more. Those that the
    /// protocol rests on, such as `acks`, cannot be set otherwise.
    pub fn client_config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets how the topic is used if this client is the first; whether it is replicated is found out.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets how long connecting may take, checks and the reading of the log included; 10 s unless told.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Connects, makes the topic if there is none, and checks that locks are safe in it.
    ///
    /// # Errors
    /// - `InvalidArgument`: the URL or a setting makes no sense, or the topic has another number of partitions
    /// - `Unavailable`: no broker answers there in time
    /// - `Denied`: wrong user or password, or a permission is missing
    /// - `Unsupported`: the topic would lose locks; the message has the command that mends it
    /// - a [`Halt`] as its source when the log cannot be read
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened. A new topic stays.
    pub async fn connect(self) -> Result<Arc<KafkaBackend>> {
        let patience = self.connect_timeout;
        let late = |_| Err(Error::new(ErrorKind::Unavailable, "the brokers take too long to answer"));
        // What takes longest, a broker that does not answer, says more of itself than that.
        let bound = patience + Duration::from_millis(500);
        let connected = timeout(bound, Box::pin(self.start())).await.unwrap_or_else(late);
        connected.map_err(|error| error.at("connect", BACKEND, None))
    }

    async fn start(self) -> Result<Arc<KafkaBackend>> {
        if self.connect_timeout.is_zero() {
            return Err(invalid("the timeout must be longer than zero"));
        }
        let target = Target::parse(&self.url)?;
        let mut config = rd::config(&self.config, &target.properties)?;
        config.set("bootstrap.servers", &target.brokers);
        let rights = Rights::new(&config, &target.brokers, &target.topic);
        let producing = Producing::new(&config, rights)?;
        let asker = Asker { producing: &producing, target: &target, patience: self.connect_timeout };
        let found = asker.find().await?;
        let link =
            Arc::new(Link { producing, reading: Reading::new(&config, &target.topic)?, topic: target.topic });
        let settings = Settings { replicated: found.replicated, ..self.settings };
        let logs = (0..found.partitions).map(|number| {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            Arc::new(Partition { link: link.clone(), number }) as Arc<dyn Log>
        });
        let begun = KafkaBackend::over(logs.collect(), &settings);
        link.as_far_as_allowed(begun).await
    }
}

/// How long is waited at most to hear that this client may not write.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);

impl Link {
    /// Does what needs to read and to write, unless that is not allowed.
    async fn as_far_as_allowed<T>(&self, begun: impl Future<Output = Result<T>>) -> Result<T> {
        // Of no session: it does not count.
        let nothing = Record::new(Id::random(), 0, What::Barrier).encode();
        let writing = timeout(REFUSED_WITHIN, self.producing.append(&self.topic, 0, None, &nothing));
        let writing = async {
            match writing.await {
                Ok(Err(Append::Denied(_))) => Err(self.producing.rights().lacks(Right::Write)),
                // Whatever else it is may be over soon.
                _ => Ok(()),
            }
        };
        tokio::select! {
            both = async { tokio::try_join!(begun, writing) } => both.map(|(begun, ())| begun),
            () = self.reading.denied() => Err(self.producing.rights().lacks(Right::Read)),
        }
    }
}

impl fmt::Debug for KafkaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be a password in its URL.
        f.debug_struct("KafkaBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The tasks that read; they end with their backend.
#[derive(Debug)]
pub(crate) struct Workers(Vec<JoinHandle<()>>);

impl KafkaBackend {
    /// Connects to the brokers that `kafka://host[:port][,host…][/topic][?…]` names, with default options, and checks
    /// that locks are safe in the topic: `resource_lock` unless told. A topic that is missing is made.
    ///
    /// `?partitions=…&replication=…` say how a topic is made, one partition on up to three brokers unless told. Every other parameter
    /// is a setting of librdkafka, such as `security.protocol`.
    ///
    /// # Errors
    /// As [`KafkaBuilder::connect`].
    ///
    /// # Cancel safety
    /// As [`KafkaBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Arc<KafkaBackend>> {
        Self::builder(url).connect().await
    }

    /// Begins a connection with options.
    pub fn builder(url: &str) -> KafkaBuilder {
        KafkaBuilder {
            url: url.to_owned(),
            config: ClientConfig::new(),
            settings: Settings::default(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    /// A client of the locks in these logs: the partitions of one topic, in their order.
    ///
    /// It returns when each was read up to its end. Whoever comes first begins the topic, with these settings.
    ///
    /// # Errors
    /// A [`Halt`] as its source when the logs cannot be read, or do not belong together. `InvalidArgument` without a log.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind but, perhaps, the first record of an empty topic.
    pub async fn over(logs: Vec<Arc<dyn Log>>, settings: &Settings) -> Result<Arc<KafkaBackend>> {
        let count = u32::try_from(logs.len()).unwrap_or(u32::MAX);
        if logs.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a topic has at least one partition"));
        }
        // The first partition says which topic it is; the others repeat it.
        let mut genesis = settings.genesis(Id::random(), count);
        if !reads_alike() {
            let advice = "a crate of this program changes how serde_json reads numbers (arbitrary_precision): \
                          it would read the log otherwise than others do";
            return Err(Error::new(ErrorKind::Unsupported, advice));
        }
        if let Some(wrong) = genesis.out_of_bounds() {
            return Err(Error::new(ErrorKind::InvalidArgument, wrong));
        }
        let mut begun = Vec::with_capacity(logs.len());
        for (partition, log) in (0..).zip(logs) {
            genesis.partition = partition;
            let Begun { replica, reader, read } = newcomer::begin_or_found(&log, &genesis).await?;
            let found = replica.genesis().cloned().unwrap_or_else(|| genesis.clone());
            if found.partitions != count {
                return Err(Halt::Partitions { begun: found.partitions, found: count }.into());
            }
            let is_same = found == genesis || partition == 0;
            if !is_same || found.partition != partition {
                return Err(Halt::Replaced.into());
            }
            genesis = found;
            begun.push((Arc::new(Core::new(log, replica, read)), reader));
        }
        let partitions = begun.iter().map(|(core, _)| core.clone()).collect();
        let work = begun.into_iter().map(|(core, reader)| tokio::spawn(core.work(reader)));
        let workers = Workers(work.collect());
        Ok(Arc::new(KafkaBackend { partitions, capabilities: capabilities(settings.replicated), workers }))
    }
}

impl Workers {
    pub(crate) fn end(&self) {
        for worker in &self.0 {
            worker.abort();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}
