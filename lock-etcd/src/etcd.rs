//! Our requests in the words of the etcd client, and its answers in ours.

use std::future::pending;

use async_trait::async_trait;
use etcd_client::{
    Client, CompareOp, EventType, GetOptions, GetResponse, LeaseGrantOptions, PutOptions, SortOrder,
    SortTarget, TxnOpResponse, WatchOptions, WatchStream,
};
use lockcore::ErrorKind;
use tokio::sync::watch;

use crate::errors::Trouble;
use crate::lineage::Lineage;
use crate::link::{News, Server, Watch};
use crate::txn::{Answer, Compare, Get, Is, KeyValue, OnLease, Read, Txn, TxnOp};

/// One cluster, by one client of it.
pub(crate) struct Etcd {
    client: Client,
    lineage: Lineage,
    /// Which of its members is asked, if that is ours to choose.
    asked: Option<watch::Receiver<usize>>,
}

impl Etcd {
    pub(crate) fn new(client: Client, asked: Option<watch::Receiver<usize>>) -> Etcd {
        Etcd { client, lineage: Lineage::default(), asked }
    }
}

#[async_trait]
impl Server for Etcd {
    async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        // What is read is a lock's, however many wait for it; by default the client library refuses more than 4 MiB.
        let mut kv = self.client.kv_client().max_decoding_message_size(usize::MAX);
        let newest = self.lineage.newest();
        let response = kv.txn(request(txn)).await.map_err(Trouble::of)?;
        self.lineage.follow(response.header(), newest)?;
        let mut answer = Answer {
            revision: response.header().map_or(0, etcd_client::ResponseHeader::revision),
            succeeded: response.succeeded(),
            ..Answer::default()
        };
        for part in response.op_responses() {
            match part {
                TxnOpResponse::Get(get) => answer.gets.push(read(get)),
                TxnOpResponse::Delete(delete) => answer.deleted += delete.deleted(),
                TxnOpResponse::Put(_) => {}
                TxnOpResponse::Txn(inner) => {
                    let gets = inner.op_responses().into_iter().filter_map(|part| match part {
                        TxnOpResponse::Get(get) => Some(read(get)),
                        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
                    });
                    answer.inner = Some((inner.succeeded(), gets.collect()));
                }
            }
        }
        Ok(answer)
    }

    async fn grant(&self, id: i64, seconds: i64) -> Result<i64, Trouble> {
        let options = LeaseGrantOptions::new().with_id(id);
        let newest = self.lineage.newest();
        let granted = self.client.lease_client().grant(seconds, Some(options)).await.map_err(Trouble::of)?;
        // Everything that is written lies on a lease: what lets none be made lets nobody in.
        if let Err(trouble) = self.lineage.follow(granted.header(), newest) {
            self.revoke(id).await?;
            return Err(trouble);
        }
        Ok(granted.ttl())
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        // The stream's first answer is waited for inside, and the stream ends with this call.
        match self.client.lease_client().keep_alive(lease).await.map_err(Trouble::of) {
            Ok(_stream) => Ok(true),
            Err(trouble) if trouble.lease_gone => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        self.client.lease_client().revoke(lease).await.map(drop).map_err(Trouble::of)
    }

    async fn time_to_live(&self, lease: i64) -> Result<i64, Trouble> {
        let answer = self.client.lease_client().time_to_live(lease, None).await.map_err(Trouble::of)?;
        Ok(answer.ttl())
    }

    async fn watch(&self, beginning: String) -> Result<Box<dyn Watch>, Trouble> {
        let mut asked = self.asked.clone();
        // A change from here on ends the watch.
        asked.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut stream = self
            .client
            .watch_client()
            .watch(beginning, Some(WatchOptions::new().with_prefix()))
            .await
            .map_err(Trouble::of)?;
        loop {
            match stream.message().await.map_err(Trouble::of)? {
                Some(message) if message.canceled() => {
                    return Err(Trouble::new(ErrorKind::Unavailable, message.cancel_reason()));
                }
                Some(message) if message.created() => return Ok(Box::new(Watching { stream, asked })),
                Some(_) => {}
                None => return Err(Trouble::new(ErrorKind::Unavailable, "the watch was closed")),
            }
        }
    }
}

/// A watch on one member.
struct Watching {
    stream: WatchStream,
    asked: Option<watch::Receiver<usize>>,
}

#[async_trait]
impl Watch for Watching {
    async fn next(&mut self) -> Result<Vec<News>, Trouble> {
        let message = tokio::select! {
            message = self.stream.message() => message.map_err(Trouble::of)?,
            // One that hangs would keep its watch open and say nothing.
            () = changed(&mut self.asked) => {
                return Err(Trouble::new(ErrorKind::Unavailable, "another member is asked now"));
            }
        };
        match message {
            Some(message) if message.canceled() => {
                Err(Trouble::new(ErrorKind::Unavailable, message.cancel_reason()))
            }
            Some(message) => Ok(message.events().iter().filter_map(news).collect()),
            None => Err(Trouble::new(ErrorKind::Unavailable, "the watch was closed")),
        }
    }
}

fn news(event: &etcd_client::Event) -> Option<News> {
    let kv = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => News::Written { value: kv.value().to_vec(), revision: kv.mod_revision() },
        EventType::Delete => News::Deleted { name: kv.key().to_vec() },
    })
}

async fn changed(asked: &mut Option<watch::Receiver<usize>>) {
    if let Some(asked) = asked
        && asked.changed().await.is_ok()
    {
        return;
    }
    pending::<()>().await;
}

fn request(txn: Txn) -> etcd_client::Txn {
    let ops = |ops: Vec<TxnOp>| ops.into_iter().map(op).collect::<Vec<_>>();
    let mut request = etcd_client::Txn::new();
    if !txn.when.is_empty() {
        request = request.when(txn.when.into_iter().map(compare).collect::<Vec<_>>());
    }
    if !txn.then.is_empty() {
        request = request.and_then(ops(txn.then));
    }
    if !txn.otherwise.is_empty() {
        request = request.or_else(ops(txn.otherwise));
    }
    request
}

fn compare(compare: Compare) -> etcd_client::Compare {
    use etcd_client::Compare;
    let asked = match compare.is {
        Is::CreatedAt(revision) => Compare::create_revision(compare.start, CompareOp::Equal, revision),
        Is::ModifiedAt(revision) => Compare::mod_revision(compare.start, CompareOp::Equal, revision),
        Is::ModifiedBefore(revision) => Compare::mod_revision(compare.start, CompareOp::Less, revision),
    };
    match compare.end {
        Some(end) => asked.with_range(end),
        None => asked,
    }
}

fn op(op: TxnOp) -> etcd_client::TxnOp {
    use etcd_client::TxnOp as Theirs;
    match op {
        TxnOp::Put { name, value, lease } => {
            let options = match lease {
                OnLease::Of(lease) => PutOptions::new().with_lease(lease),
                OnLease::Kept => PutOptions::new().with_ignore_lease(),
            };
            Theirs::put(name, value, Some(options))
        }
        TxnOp::Delete { name } => Theirs::delete(name, None),
        TxnOp::Get(Get { start, end, limit, by_creation, keys_only, count_only }) => {
            let mut options = GetOptions::new().with_limit(limit);
            if let Some(end) = end {
                options = options.with_range(end);
            }
            if by_creation {
                options = options.with_sort(SortTarget::Create, SortOrder::Ascend);
            }
            if keys_only {
                options = options.with_keys_only();
            }
            if count_only {
                options = options.with_count_only();
            }
            Theirs::get(start, Some(options))
        }
        TxnOp::Txn(inner) => Theirs::txn(request(inner)),
    }
}

fn read(mut get: GetResponse) -> Read {
    let (count, more) = (get.count(), get.more());
    let kvs = get.take_kvs().into_iter().map(|kv| {
        let (created, modified, lease) = (kv.create_revision(), kv.mod_revision(), kv.lease());
        let (key, value) = kv.into_key_value();
        KeyValue { key, value, created, modified, lease }
    });
    Read { kvs: kvs.collect(), count, more }
}
