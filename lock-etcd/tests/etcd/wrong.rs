//! Wrong addresses, wrong protocols, foreign data: typed errors in bounded time, which say what to do.

use std::time::Duration;

use etcd_client::GetOptions;
use lock_etcd::EtcdBackend;
use lockcore::{Attempt, Error, ErrorKind, LockBackend, LockClient, Mode, Queue};
use testbed::{EtcdServer, Proxy, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::{SOON, connect, join, kept, key_of, raw, refused, release, renew};

fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[tokio::test]
async fn nobody_listens_or_nobody_answers() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let address = proxy.addr().to_string();
    proxy.refuse(true);
    says(&refused(&server.url_at(proxy.addr())).await, ErrorKind::Unavailable, &[&address, "refused"]);
    proxy.refuse(false);
    proxy.stall(true);
    says(&refused(&server.url_at(proxy.addr())).await, ErrorKind::Unavailable, &["answer"]);
    says(
        &refused("etcd://no-such-host.invalid").await,
        ErrorKind::Unavailable,
        &["no-such-host.invalid:2379"],
    );
}

#[tokio::test]
async fn what_answers_is_no_etcd() {
    let redis = RedisServer::start().unwrap();
    let url = redis.url().replace("redis:", "etcd:");
    says(&refused(&url).await, ErrorKind::Unavailable, &[&redis.addr().to_string(), "no etcd"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _read = stream.read(&mut [0; 1024]).await;
            let _written = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    says(
        &refused(&format!("etcd://{address}")).await,
        ErrorKind::Unavailable,
        &[&address.to_string(), "no etcd"],
    );
    web.abort();
}

#[tokio::test]
async fn an_option_makes_no_sense() {
    let server = EtcdServer::start().unwrap();
    let with = |rest: &str| format!("{}/?{rest}", server.url());
    says(&refused(&with("prefix=~")).await, ErrorKind::InvalidArgument, &["prefix"]);
    says(&refused(&with("ca=/no/file.pem")).await, ErrorKind::InvalidArgument, &["etcds://"]);
    let secure = with("ca=/no/file.pem").replace("etcd:", "etcds:");
    says(&refused(&secure).await, ErrorKind::InvalidArgument, &["/no/file.pem"]);
}

#[tokio::test]
async fn foreign_data_is_a_conflict() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    raw(&server).await.put("lock/k/~s/what", "foreign", None).await.unwrap();
    let claim = kept("k", Mode::Exclusive, Duration::from_secs(9));
    let joined = backend.clone().acquire(claim.clone(), Queue::Join).await;
    says(&joined.unwrap_err(), ErrorKind::Conflict, &[]);
    let seen = backend.clone().inspect(claim.key().clone()).await;
    says(&seen.unwrap_err(), ErrorKind::Conflict, &["lock/k/~s/what"]);
    // Other keys are as they were, and so is this one once the data is gone.
    let other = kept("other", Mode::Exclusive, Duration::from_secs(9));
    assert!(matches!(join(&backend, &other).await, Attempt::Granted(_)));
    raw(&server).await.delete("lock/k/~s/what", None).await.unwrap();
    release(&backend, &claim).await;
    let next = kept("k", Mode::Exclusive, Duration::from_secs(9));
    assert!(matches!(join(&backend, &next).await, Attempt::Granted(_)));
}

#[tokio::test]
async fn a_cluster_that_lost_its_data_gets_no_claims() {
    let server = EtcdServer::start().unwrap();
    let locks = LockClient::new(connect(&server).await);
    for _ in 0..20 {
        locks.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
    }
    let ttl = Duration::from_secs(6);
    let guard = locks.lock("held").unwrap().exclusive().ttl(ttl).acquire().await.unwrap();
    server.restart_empty().unwrap();
    // Its revisions begin anew, and so would the tokens.
    let refused = locks.lock("k").unwrap().exclusive().wait(SOON * 5).acquire();
    let error = tokio::time::timeout(SOON * 6, refused).await.unwrap().unwrap_err();
    says(&error, ErrorKind::Conflict, &["lost its data"]);
    tokio::time::timeout(ttl, guard.lost()).await.expect("the holder learns it in time");
    let prefix = Some(GetOptions::new().with_prefix());
    let left = raw(&server).await.get("lock/", prefix).await.unwrap();
    assert_eq!(left.kvs().len(), 0, "nothing was written there");
    // Whoever means it connects anew.
    let anew = LockClient::new(connect(&server).await);
    anew.lock("k").unwrap().exclusive().acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn another_cluster_behind_the_same_address_gets_no_claims() {
    let (server, other) = (EtcdServer::start().unwrap(), EtcdServer::start().unwrap());
    let proxies = [Proxy::start(server.addr()).unwrap(), Proxy::start(other.addr()).unwrap()];
    // As where a member's name leads to another cluster: what could not be seen when the client connected.
    proxies[1].refuse(true);
    let url = format!("etcd://{},{}", proxies[0].addr(), proxies[1].addr());
    let locks = LockClient::new(EtcdBackend::connect(&url).await.unwrap());
    proxies[1].refuse(false);
    proxies[0].refuse(true);
    proxies[0].sever();
    let refused = locks.lock("k").unwrap().exclusive().wait(SOON * 5).acquire();
    let error = tokio::time::timeout(SOON * 6, refused).await.unwrap().unwrap_err();
    says(&error, ErrorKind::Conflict, &["another cluster"]);
    let prefix = Some(GetOptions::new().with_prefix());
    let left = raw(&other).await.get("lock/", prefix).await.unwrap();
    assert_eq!(left.kvs().len(), 0, "nothing was written there");
}

#[tokio::test]
async fn a_url_that_names_two_clusters_is_refused() {
    let (one, other) = (EtcdServer::start().unwrap(), EtcdServer::start().unwrap());
    let error = refused(&format!("{},{}", one.url(), other.addr())).await;
    says(&error, ErrorKind::Conflict, &[&one.addr().to_string(), &other.addr().to_string()]);
}

#[tokio::test]
async fn a_ready_client_is_used_as_it_is() {
    let server = EtcdServer::start().unwrap();
    let backend = EtcdBackend::builder("etcd://nowhere/?prefix=mine/").client(raw(&server).await);
    let backend = backend.connect().await.unwrap();
    assert!(!backend.capabilities().survives_failover, "it is one server");
    let claim = kept("k", Mode::Exclusive, Duration::from_secs(9));
    assert!(matches!(join(&backend, &claim).await, Attempt::Granted(_)));
    renew(&backend, &claim, 1).await.unwrap();
    assert_ne!(key_of(&mut raw(&server).await, "mine/k", &claim).await.lease(), 0);
}
