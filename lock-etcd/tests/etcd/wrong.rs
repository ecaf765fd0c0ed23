//! Wrong addresses, wrong protocols, foreign data: typed errors in bounded time.

use std::time::Duration;

use lock_etcd::EtcdBackend;
use lockcore::{Attempt, ErrorKind, LockBackend, Mode, Queue, Released};
use testbed::{EtcdServer, Proxy};

use crate::{connect, join, kept, raw, release, renew};

const SOON: Duration = Duration::from_secs(2);

async fn refused(url: &str) -> ErrorKind {
    let connecting = EtcdBackend::builder(url).connect_timeout(SOON).request_timeout(SOON).connect();
    let outcome = tokio::time::timeout(4 * SOON, connecting).await.expect("it ends");
    outcome.map(drop).unwrap_err().kind()
}

#[tokio::test]
async fn what_is_no_etcd_is_refused_in_time() {
    let server = EtcdServer::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    proxy.refuse(true);
    assert_eq!(refused(&server.url_at(proxy.addr())).await, ErrorKind::Unavailable);
    proxy.refuse(false);
    proxy.stall(true);
    assert_eq!(refused(&server.url_at(proxy.addr())).await, ErrorKind::Unavailable);
    let secure = server.url().replace("etcd://", "etcds://");
    assert_eq!(refused(&secure).await, ErrorKind::Unavailable);
    assert_eq!(refused(&format!("{}/?prefix=~", server.url())).await, ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn foreign_data_is_a_conflict() {
    let server = EtcdServer::start().unwrap();
    let backend = connect(&server).await;
    raw(&server).await.put("lock/k/~s/what", "foreign", None).await.unwrap();
    let claim = kept("k", Mode::Exclusive, Duration::from_secs(9));
    let joined = backend.clone().acquire(claim.clone(), Queue::Join).await;
    assert_eq!(joined.unwrap_err().kind(), ErrorKind::Conflict);
    let seen = backend.clone().inspect(claim.key().clone()).await;
    let error = seen.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("lock/k/~s/what"), "{error}");
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let server = EtcdServer::start().unwrap();
    let mut auth = raw(&server).await.auth_client();
    auth.user_add("root", "p@ss/word", None).await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.auth_enable().await.unwrap();
    let with = |login: &str| server.url().replace("etcd://", &format!("etcd://{login}@"));
    assert_eq!(refused(&server.url()).await, ErrorKind::Denied);
    assert_eq!(refused(&with("root:wrong")).await, ErrorKind::Denied);
    let backend = EtcdBackend::connect(&with("root:p%40ss%2Fword")).await.unwrap();
    let (one, other) = (kept("k", Mode::Exclusive, SOON * 5), kept("k", Mode::Exclusive, SOON * 5));
    assert!(matches!(join(&backend, &one).await, Attempt::Granted(_)));
    assert!(matches!(join(&backend, &other).await, Attempt::Queued(_)));
    renew(&backend, &one, 1).await.unwrap();
    assert_eq!(release(&backend, &one).await, Released::Released);
    assert!(matches!(join(&backend, &other).await, Attempt::Granted(_)));
}
