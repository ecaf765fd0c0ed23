//! The one connection of a client, kept alive: requests go out on it, and the server's messages come in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use lockcore::ErrorKind;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::errors::Trouble;
use crate::keeper::PAUSE_MAX;
use crate::news::Registry;
use crate::restart::RestartGrace;
use crate::scripts::{Operation, Scripts};

/// How often a script is loaded again for one request.
pub(crate) const LOADS: usize = 3;

/// How many requests go out in one write.
const BATCH: usize = 500;

/// What it takes to connect, and what a grant of this server is worth.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) client: redis::Client,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    /// How many replicas must have a grant.
    pub(crate) replicas: u32,
    pub(crate) restart: Option<Arc<RestartGrace>>,
}

impl Target {
    /// Host and port, without user and password.
    pub(crate) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    /// Whether a message is enough to believe in a grant. Otherwise it only says that asking is worth it.
    fn believes_news(&self) -> bool {
        self.replicas == 0 && self.restart.as_ref().is_none_or(|restart| restart.left().is_none())
    }
}

/// One connection to the server at a time, and the task that replaces it when it fails.
///
/// Messages (RESP3 pushes) come on the same connection as the answers, so that there is one thing to lose: whoever loses
/// messages loses answers too, and after every reconnect all waiting claims are told to look for themselves.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) this: Weak<Link>,
    pub(crate) target: Target,
    pub(crate) scripts: Arc<Scripts>,
    /// Where messages come from, if they are wanted.
    pub(crate) channel: Option<String>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) live: RwLock<Option<Live>>,
    pub(crate) connections: AtomicU64,
    /// How the last attempt to connect went, for those who wait for one.
    pub(crate) attempts: watch::Sender<Option<Trouble>>,
    /// A request went unanswered: the connection must prove itself.
    pub(crate) suspect: AtomicBool,
    pub(crate) wake: Notify,
    pub(crate) closed: AtomicBool,
    pub(crate) keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) number: u64,
}

impl Link {
    /// Connects, checks the server and keeps the connection from then on.
    pub(crate) async fn open(
        target: Target,
        scripts: Arc<Scripts>,
        channel: Option<String>,
        registry: Arc<Registry>,
    ) -> Result<Arc<Link>, Trouble> {
        let link = Arc::new_cyclic(|this| Link {
            this: this.clone(),
            target,
            scripts,
            channel,
            registry,
            live: RwLock::new(None),
            connections: AtomicU64::new(0),
            attempts: watch::Sender::new(None),
            suspect: AtomicBool::new(false),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            keeper: Mutex::new(None),
        });
        link.connect().await?;
        link.ensure_keeper();
        Ok(link)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Carries out one operation; `name` is the key that an error is about.
    pub(crate) async fn run(
        &self,
        operation: &Operation,
        command: &Cmd,
        name: &str,
    ) -> Result<Value, Trouble> {
        for _ in 0..LOADS {
            let value = self.send(command, name).await?;
            let Value::ServerError(error) = value else { return Ok(value) };
            if !is_missing(&error) {
                return Err(Trouble::requesting(error.into(), Some(name)));
            }
            self.load(operation).await?;
        }
        Err(Trouble::new(ErrorKind::Unavailable, "the server forgets scripts as soon as they are loaded"))
    }

    /// Carries out one operation on many keys, a few hundred in one write. One answer for each, in their order.
    pub(crate) async fn run_all(
        &self,
        operation: &Operation,
        requests: &[(String, Cmd)],
    ) -> Vec<Result<Value, Trouble>> {
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(BATCH) {
            answers.extend(self.run_batch(operation, some).await);
        }
        answers
    }

    async fn run_batch(
        &self,
        operation: &Operation,
        requests: &[(String, Cmd)],
    ) -> Vec<Result<Value, Trouble>> {
        if let [(name, command)] = requests {
            return vec![self.run(operation, command, name).await];
        }
        let mut pipeline = Pipeline::with_capacity(requests.len());
        for (_, command) in requests {
            pipeline.add_command(command.clone());
        }
        let values = match self.send_all(&pipeline, requests.len()).await {
            Ok(values) => values,
            Err(trouble) => return requests.iter().map(|_| Err(trouble.clone())).collect(),
        };
        let mut answers = Vec::with_capacity(values.len());
        for (value, (name, command)) in values.into_iter().zip(requests) {
            let Value::ServerError(error) = value else {
                answers.push(Ok(value));
                continue;
            };
            answers.push(if is_missing(&error) {
                self.run(operation, command, name).await
            } else {
                Err(Trouble::requesting(error.into(), Some(name)))
            });
        }
        answers
    }

    /// Sends one command. A server's error is a value here.
    pub(crate) async fn send(&self, command: &Cmd, name: &str) -> Result<Value, Trouble> {
        let mut live = self.live().await?;
        let mut watcher = Unanswered { link: self, number: live.number, answered: false };
        let result = live.connection.send_packed_command(command).await;
        watcher.settle(result.as_ref().err());
        result.map_err(|error| Trouble::requesting(error, Some(name)))
    }

    /// Sends `count` commands in one write, all on the same connection. A server's error is a value here.
    pub(crate) async fn send_all(&self, pipeline: &Pipeline, count: usize) -> Result<Vec<Value>, Trouble> {
        let mut live = self.live().await?;
        let mut watcher = Unanswered { link: self, number: live.number, answered: false };
        let result = live.connection.send_packed_commands(pipeline, 0, count).await;
        watcher.settle(result.as_ref().err());
        let values = result.map_err(|error| Trouble::requesting(error, None))?;
        if values.len() != count {
            return Err(Trouble::new(ErrorKind::Indeterminate, "answers are missing"));
        }
        Ok(values)
    }

    pub(crate) async fn load(&self, operation: &Operation) -> Result<(), Trouble> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&operation.code);
        if let Value::ServerError(error) = self.send(&command, "the script").await? {
            return Err(Trouble::requesting(error.into(), None));
        }
        Ok(())
    }

    /// Ends the connection for good.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.attempts.send_replace(Some(closed()));
    }

    pub(crate) fn current(&self) -> Option<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection; while there is none, the outcome of the next attempt to make one.
    async fn live(&self) -> Result<Live, Trouble> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let mut attempts = self.attempts.subscribe();
        self.ensure_keeper();
        let patience = self.target.connect_timeout + PAUSE_MAX;
        loop {
            if let Some(live) = self.current() {
                return Ok(live);
            }
            let Ok(changed) = timeout(patience, attempts.changed()).await else {
                return Err(Trouble::new(
                    ErrorKind::Unavailable,
                    format!("no connection to {}", self.target.address()),
                ));
            };
            changed.map_err(|_| closed())?;
            if let Some(trouble) = attempts.borrow_and_update().clone() {
                return Err(trouble);
            }
        }
    }

    /// Something came in that nobody had asked for, or the connection has ended.
    pub(crate) fn pushed(&self, number: u64, push: &PushInfo) {
        if push.kind == PushKind::Disconnection {
            self.lost(number);
        } else if push.kind == PushKind::Message
            && let [_, Value::BulkString(message)] = push.data.as_slice()
        {
            self.registry.dispatch(message, self.target.believes_news());
        }
    }

    /// The connection of this number is of no use any more.
    pub(crate) fn lost(&self, number: u64) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
            drop(live);
            self.wake.notify_one();
        }
    }
}

/// Watches one request: when nobody waits for its answer any more the connection has to prove itself, and when it was not
/// answered in time the connection is given up. Answers come in order, so that nothing behind it would be answered either.
struct Unanswered<'a> {
    link: &'a Link,
    number: u64,
    answered: bool,
}

impl Unanswered<'_> {
    fn settle(&mut self, error: Option<&redis::RedisError>) {
        self.answered = true;
        if error.is_some_and(|error| error.code().is_none()) {
            self.link.lost(self.number);
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.suspect.store(true, Ordering::Release);
            self.link.wake.notify_one();
        }
    }
}

pub(crate) fn is_missing(error: &redis::ServerError) -> bool {
    error.kind() == Some(redis::ServerErrorKind::NoScript)
}

pub(crate) fn closed() -> Trouble {
    Trouble::new(ErrorKind::Closed, "this backend was closed")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
