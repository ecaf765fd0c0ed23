//! `replicas=n`: a grant, a renewal or an upgrade counts only when n replicas have it.
//!
//! `WAIT` tells how many replicas have what was written on its own connection before, and blocks that connection. So what
//! is to be confirmed goes over a connection of its own, with one `WAIT` behind it: a *round* is all that has come in while
//! the round before was under way. However many ask, nobody waits for more than two.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::ErrorKind;
use redis::{Cmd, Pipeline, Value};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::errors::Trouble;
use crate::link::{LOADS, Link, Target, is_missing, lock};
use crate::news::Registry;
use crate::reply::{self, Answer};
use crate::scripts::Scripts;

/// A round waits for the replicas for this part of the request timeout, so that both rounds and the request before them are
/// answered before their caller gives up.
const PART_OF_TIMEOUT: u32 = 10;

/// How many callers share a round at most.
const CALLERS: usize = 4096;

/// The connection of the confirmations, and the task that makes the rounds.
#[derive(Debug)]
pub(crate) struct Replicas {
    rounds: Arc<Rounds>,
    queue: Mutex<Option<UnboundedSender<Request>>>,
    bound: Duration,
}

/// What one caller wants carried out and confirmed.
#[derive(Debug)]
struct Request {
    /// Each with the key that an error is about.
    commands: Vec<(String, Cmd)>,
    answer: oneshot::Sender<Vec<Result<Value, Trouble>>>,
}

#[derive(Debug)]
struct Rounds {
    link: Arc<Link>,
    wanted: u32,
    /// How long one `WAIT` takes at most.
    patience: Duration,
}

impl Replicas {
    /// Connects, and makes sure that there are as many replicas as `target` asks for.
    pub(crate) async fn open(target: Target, scripts: Arc<Scripts>) -> Result<Replicas, Trouble> {
        let (wanted, bound) = (target.replicas, target.request_timeout);
        // No `WAIT 0`, which would wait for ever.
        let patience = (bound / PART_OF_TIMEOUT).max(Duration::from_millis(1));
        let link = Link::open(target, scripts, None, Arc::new(Registry::default())).await?;
        let replicas =
            Replicas { rounds: Arc::new(Rounds { link, wanted, patience }), queue: Mutex::new(None), bound };
        let rounds = &replicas.rounds;
        let (_, confirmed) = rounds.round(&[]).await?;
        if let Err(few) = rounds.judge(confirmed) {
            // Nothing was asked for yet.
            let kind = if few.kind == ErrorKind::Indeterminate { ErrorKind::Unavailable } else { few.kind };
            return Err(few.with_kind(kind));
        }
        Ok(replicas)
    }

    /// Carries out requests, and answers them when enough replicas have what they wrote. One answer for each, in their
    /// order. What grants nothing needs no replica.
    pub(crate) async fn confirm(&self, commands: Vec<(String, Cmd)>) -> Vec<Result<Value, Trouble>> {
        let count = commands.len();
        let (answer, answered) = oneshot::channel();
        self.enqueue(Request { commands, answer });
        let message = match timeout(self.bound, answered).await {
            Ok(Ok(answers)) => return answers,
            Ok(Err(_)) => "the task that asks the replicas has ended with its runtime".to_owned(),
            Err(_) => format!("the server did not say within {:?} what its replicas have", self.bound),
        };
        vec![Err(Trouble::new(ErrorKind::Indeterminate, message)); count]
    }

    pub(crate) fn close(&self) {
        self.rounds.link.close();
    }

    /// Gives the request to the task, and starts that when there is none, or when its runtime is gone.
    fn enqueue(&self, request: Request) {
        let mut queue = lock(&self.queue);
        let unsent = match &*queue {
            Some(sender) => sender.send(request).err().map(|unsent| unsent.0),
            None => Some(request),
        };
        let (Some(request), Ok(runtime)) = (unsent, Handle::try_current()) else { return };
        let (sender, receiver) = mpsc::unbounded_channel();
        // It cannot fail: the receiver is here.
        let _sent = sender.send(request);
        runtime.spawn(make_rounds(self.rounds.clone(), receiver));
        *queue = Some(sender);
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes rounds until nobody can ask for one any more.
async fn make_rounds(rounds: Arc<Rounds>, mut queue: UnboundedReceiver<Request>) {
    let mut requests = Vec::new();
    while queue.recv_many(&mut requests, CALLERS).await > 0 {
        // Whoever has given up meanwhile must not make the others wait longer.
        requests.retain(|request| !request.answer.is_closed());
        let outcome = rounds.round(&requests).await;
        match outcome {
            Ok((values, confirmed)) => {
                let enough = rounds.judge(confirmed);
                let mut values = values.into_iter();
                for request in requests.drain(..) {
                    let answers = request.commands.iter().zip(values.by_ref());
                    let answers = answers.map(|((name, _), value)| settle(name, value, &enough)).collect();
                    // Its caller may have given up.
                    let _received = request.answer.send(answers);
                }
            }
            Err(trouble) => {
                for request in requests.drain(..) {
                    let _received = request.answer.send(vec![Err(trouble.clone()); request.commands.len()]);
                }
            }
        }
    }
}

impl Rounds {
    /// All requests in one write, with one `WAIT` behind them: their answers, and that of the `WAIT`.
    async fn round(&self, requests: &[Request]) -> Result<(Vec<Value>, Value), Trouble> {
        let commands = || requests.iter().flat_map(|request| &request.commands);
        let mut pipeline = Pipeline::new();
        for (_, command) in commands() {
            pipeline.add_command(command.clone());
        }
        pipeline.cmd("WAIT").arg(self.wanted).arg(self.patience.as_millis().to_string());
        for _ in 0..LOADS {
            let mut values = self.link.send_all(&pipeline, commands().count() + 1).await?;
            let missing = |value: &Value| matches!(value, Value::ServerError(error) if is_missing(error));
            if !values.iter().any(missing) {
                let confirmed = values.pop().unwrap_or(Value::Nil);
                return Ok((values, confirmed));
            }
            // All once more behind the scripts: what was carried out already is asked again, which changes nothing.
            self.link.load(&self.link.scripts.renew).await?;
            self.link.load(&self.link.scripts.convert).await?;
        }
        Err(Trouble::new(ErrorKind::Indeterminate, "the server forgets scripts as soon as they are loaded"))
    }

    /// Whether enough replicas have what the round wrote.
    fn judge(&self, confirmed: Value) -> Result<(), Trouble> {
        let (wanted, patience) = (self.wanted, self.patience);
        if let Value::ServerError(error) = confirmed {
            return Err(Trouble::requesting(error.into(), None));
        }
        let confirmed = if let Value::Int(replicas) = confirmed { replicas } else { 0 };
        if confirmed >= i64::from(wanted) {
            return Ok(());
        }
        let address = self.link.target().address();
        Err(Trouble::new(
            ErrorKind::Indeterminate,
            format!(
                "{confirmed} of the {wanted} replicas that are asked for confirmed within {patience:?}: \
                 look at INFO replication of {address} for replicas that are missing or lag behind"
            ),
        ))
    }
}

/// The answer to one request of a round.
fn settle(name: &str, value: Value, enough: &Result<(), Trouble>) -> Result<Value, Trouble> {
    if let Value::ServerError(error) = value {
        return Err(Trouble::requesting(error.into(), Some(name)));
    }
    match (enough, reply::answer(&value)) {
        // The primary has done it, whatever WAIT's error says of itself.
        (Err(few), Ok((Answer::Granted(_), _))) => Err(few.clone().with_kind(ErrorKind::Indeterminate)),
        _ => Ok(value),
    }
}
