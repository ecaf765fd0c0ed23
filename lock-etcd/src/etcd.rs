//! Our requests in the words of the etcd client, and its answers in ours.

use async_trait::async_trait;
use etcd_client::{
    Client, CompareOp, EventType, GetOptions, GetResponse, LeaseGrantOptions, PutOptions, SortOrder,
    SortTarget, TxnOpResponse, WatchStream,
};
use lockcore::ErrorKind;

use crate::errors::Trouble;
use crate::link::{News, Server, Watch};
use crate::txn::{Answer, Compare, Get, Is, KeyValue, OnLease, Read, Txn, TxnOp};

#[async_trait]
impl Server for Client {
    async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        let mut response = self.kv_client().txn(request(txn)).await.map_err(Trouble::of)?;
        let mut answer = Answer {
            revision: response.take_header().map_or(0, |header| header.revision()),
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
        let granted = self.lease_client().grant(seconds, Some(options)).await.map_err(Trouble::of)?;
        Ok(granted.ttl())
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        // The stream's first answer is waited for inside, and the stream ends with this call.
        match self.lease_client().keep_alive(lease).await.map_err(Trouble::of) {
            Ok(_stream) => Ok(true),
            Err(trouble) if trouble.lease_gone => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        self.lease_client().revoke(lease).await.map(drop).map_err(Trouble::of)
    }

    async fn time_to_live(&self, lease: i64) -> Result<i64, Trouble> {
        let answer = self.lease_client().time_to_live(lease, None).await.map_err(Trouble::of)?;
        Ok(answer.ttl())
    }

    async fn watch(&self, name: String) -> Result<Box<dyn Watch>, Trouble> {
        let mut stream = self.watch_client().watch(name, None).await.map_err(Trouble::of)?;
        loop {
            match stream.message().await.map_err(Trouble::of)? {
                Some(message) if message.canceled() => {
                    return Err(Trouble::new(ErrorKind::Unavailable, message.cancel_reason()));
                }
                Some(message) if message.created() => return Ok(Box::new(stream)),
                Some(_) => {}
                None => return Err(Trouble::new(ErrorKind::Unavailable, "the watch was closed")),
            }
        }
    }
}

#[async_trait]
impl Watch for WatchStream {
    async fn next(&mut self) -> Result<Vec<News>, Trouble> {
        match self.message().await.map_err(Trouble::of)? {
            Some(message) if message.canceled() => {
                Err(Trouble::new(ErrorKind::Unavailable, message.cancel_reason()))
            }
            Some(message) => {
                let written = message.events().iter().filter(|event| event.event_type() == EventType::Put);
                let news = written.filter_map(etcd_client::Event::kv);
                Ok(news.map(|kv| News { value: kv.value().to_vec(), revision: kv.mod_revision() }).collect())
            }
            None => Err(Trouble::new(ErrorKind::Unavailable, "the watch was closed")),
        }
    }
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
