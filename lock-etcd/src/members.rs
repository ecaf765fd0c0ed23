//! The members of a cluster: one of them is asked, until it does not answer.
//!
//! The client library would pick a member at random for each request, also one that hangs: a third of all requests would hang
//! with it, for as long as it does.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use futures_util::future::join_all;
use lockcore::ErrorKind;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;

use crate::errors::Trouble;

/// A request that was given up after this long, and not sooner, has met a member that hangs.
const SILENCE: Duration = Duration::from_millis(400);

/// How long each member may take to be looked at when a client connects. One that takes longer is not asked first.
const LOOK: Duration = Duration::from_secs(1);

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All members that the URL names.
#[derive(Clone)]
pub(crate) struct Members(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    /// The one that is asked.
    asked: watch::Sender<usize>,
}

struct Member {
    address: String,
    channel: tonic::transport::Channel,
}

impl Members {
    /// Connects to nobody yet. One client begins with one member, another with another.
    pub(crate) fn new(endpoints: Vec<(String, Endpoint)>) -> Members {
        let connect =
            |(address, endpoint): (String, Endpoint)| Member { address, channel: endpoint.connect_lazy() };
        let members: Vec<Member> = endpoints.into_iter().map(connect).collect();
        let first = fastrand::usize(..members.len().max(1));
        Members(Arc::new(Inner { members, asked: watch::Sender::new(first) }))
    }

    /// The members as the client library takes them.
    pub(crate) fn channel(&self) -> Channel {
        Channel::Custom(BoxCloneSyncService::new(self.clone()))
    }

    /// Tells which member is asked, and when that changes.
    pub(crate) fn asked(&self) -> watch::Receiver<usize> {
        self.0.asked.subscribe()
    }

    /// Looks at this key on all members, so that the first one to be asked is one that answers.
    ///
    /// # Errors
    /// When they are not members of one cluster: two clients might each ask another one, and both hold.
    pub(crate) async fn choose(&self, options: &ConnectOptions, key: &str) -> Result<(), Trouble> {
        let clusters = join_all(self.0.members.iter().map(|member| member.cluster(options, key))).await;
        let mut seen =
            clusters.iter().zip(&self.0.members).filter_map(|(cluster, member)| Some(((*cluster)?, member)));
        if let Some((cluster, member)) = seen.next()
            && let Some((_, other)) = seen.find(|(other, _)| *other != cluster)
        {
            let message =
                format!("{} and {} are members of different clusters", member.address, other.address);
            return Err(Trouble::new(ErrorKind::Conflict, message));
        }
        let begin = *self.0.asked.borrow();
        let mut order = (0..clusters.len()).map(|step| (begin + step) % clusters.len());
        if let Some(first) = order.find(|&at| clusters[at].is_some()) {
            self.0.asked.send_replace(first);
        }
        Ok(())
    }

    async fn ask(self, request: Request) -> Result<Response, BoxError> {
        let at = *self.0.asked.borrow();
        let Some(member) = self.0.members.get(at) else { return Err("the URL names no host".into()) };
        let mut asking = Asking { members: &self, at, since: Instant::now(), answered: false };
        let mut channel = member.channel.clone();
        let answer = async {
            poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await
        };
        let answer = answer.await;
        asking.answered = true;
        match answer {
            Ok(response) => {
                if is_away(&response) {
                    self.leave(at);
                }
                Ok(response)
            }
            Err(error) => {
                self.leave(at);
                Err(Box::new(Unreachable { address: member.address.clone(), source: error }))
            }
        }
    }

    /// Asks the next one from now on, unless that was done already.
    fn leave(&self, at: usize) {
        let count = self.0.members.len();
        self.0.asked.send_if_modified(|asked| {
            let is_news = *asked == at && count > 1;
            if is_news {
                *asked = (at + 1) % count;
                tracing::debug!(from = %self.0.members[at].address, to = %self.0.members[*asked].address, "another member is asked from now on");
            }
            is_news
        });
    }
}

impl Member {
    /// The id of its cluster; `None` when it does not answer as one that can act.
    async fn cluster(&self, options: &ConnectOptions, key: &str) -> Option<u64> {
        let look = async {
            let client =
                Client::from_channel(Channel::Tonic(self.channel.clone()), Some(options.clone())).await?;
            client.kv_client().get(key, None).await
        };
        Some(timeout(LOOK, look).await.ok()?.ok()?.header()?.cluster_id())
    }
}

/// Whether it is the member that cannot act, as one without a leader.
fn is_away(response: &Response) -> bool {
    const UNAVAILABLE: &str = "14";
    response.headers().get("grpc-status").is_some_and(|status| status == UNAVAILABLE)
}

/// A request that is under way. Dropped without an answer, after a while, it has met a member that hangs.
struct Asking<'m> {
    members: &'m Members,
    at: usize,
    since: Instant,
    answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= SILENCE {
            self.members.leave(self.at);
        }
    }
}

impl Service<Request> for Members {
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().ask(request))
    }
}

/// Which member it was that could not be asked.
#[derive(Debug)]
pub(crate) struct Unreachable {
    address: String,
    source: tonic::transport::Error,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
