//! Users and their rights: who is refused is told so, and who is not notices nothing of tokens that expire.

use std::time::Duration;

use etcd_client::Permission;
use lock_etcd::EtcdBackend;
use lockcore::{BreakTarget, ErrorKind, LockBackend, LockClient, PageToken};
use testbed::{EtcdServer, EtcdVersion, Proxy};
use tokio::time::{sleep, timeout};

use crate::{SOON, refused, until};

fn server() -> EtcdServer {
    EtcdServer::options().auth("p@ss/word").user("ann", "pass", "lock/").start().unwrap()
}

#[tokio::test]
async fn who_may_not_is_refused_when_connecting() {
    let server = server();
    let plain = server.url_of("ann", "pass").replace("ann:pass@", "");
    for (url, why) in [
        (plain, "user"),
        (server.url_of("ann", "wrong"), "password"),
        (server.url_of("nobody", "pass"), "password"),
        (format!("{}/?prefix=other/", server.url_of("ann", "pass")), "other/"),
    ] {
        let error = refused(&url).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(why), "no {why:?} in: {error}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
    }
    // A user whose rights are taken away is told so too.
    let backend = EtcdBackend::connect(&server.url_of("ann", "pass")).await.unwrap();
    let mut auth = crate::raw_as(&server, "root", "p@ss/word").await.auth_client();
    auth.role_grant_permission("ann", Permission::read("lock/").with_prefix()).await.unwrap();
    let error = refused(&server.url_of("ann", "pass")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "to read is not enough: {error}");
    let acquire = LockClient::new(backend).lock("k").unwrap().exclusive().wait(SOON).acquire();
    assert_eq!(timeout(2 * SOON, acquire).await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn rights_on_the_prefix_are_all_that_is_needed() {
    let server = server();
    let url = server.url_of("ann", "pass");
    let (one, other) = (EtcdBackend::connect(&url).await.unwrap(), EtcdBackend::connect(&url).await.unwrap());
    let (locks, others) = (LockClient::new(one.clone()), LockClient::new(other.clone()));
    let held = locks.lock("k").unwrap().exclusive().ttl(Duration::from_secs(3)).acquire().await.unwrap();
    let waiting = tokio::spawn(others.lock("k").unwrap().exclusive().acquire());
    until("it waits", async || !locks.lock("k").unwrap().inspect().await.unwrap().waiters.is_empty()).await;
    sleep(Duration::from_secs(4)).await;
    held.release().await.expect("it was renewed");
    let next = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(locks.list("", PageToken::default()).await.unwrap().keys.len(), 1);
    let broken = one.break_claims(lockcore::Key::new("k").unwrap(), BreakTarget::All).await.unwrap();
    assert_eq!(broken.len(), 1);
    timeout(SOON, next.lost()).await.expect("it is told at once");
    let own =
        locks.lock("own").unwrap().exclusive().max_hold(Duration::from_secs(60)).acquire().await.unwrap();
    own.release().await.unwrap();
}

/// Nothing is sent for longer than a token lives, and the watch is opened anew with a token that has expired.
async fn outlives_its_token(server: &EtcdServer, expire: impl AsyncFnOnce()) {
    let proxy = Proxy::start(server.addr()).unwrap();
    let url = server.url_of("ann", "pass").replace(&server.addr().to_string(), &proxy.addr().to_string());
    let (locks, others) = (
        LockClient::new(EtcdBackend::connect(&url).await.unwrap()),
        LockClient::new(EtcdBackend::connect(&url).await.unwrap()),
    );
    expire().await;
    proxy.sever();
    let held = locks.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(others.lock("k").unwrap().exclusive().acquire());
    until("it waits", async || !locks.lock("k").unwrap().inspect().await.unwrap().waiters.is_empty()).await;
    // Longer than any pause before the watch is tried again.
    sleep(SOON).await;
    held.release().await.unwrap();
    let next = timeout(SOON / 2, waiting).await.expect("it is told by the watch").unwrap().unwrap();
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_token_that_expires_is_replaced() {
    let options = EtcdServer::options().auth("root").user("ann", "pass", "lock/").version(EtcdVersion::Built);
    // The option came with 3.5.
    let Ok(server) = options.arg("auth-token-ttl", "1").start() else { return };
    outlives_its_token(&server, async || sleep(Duration::from_secs(3)).await).await;
}

#[tokio::test]
async fn a_server_that_forgets_the_tokens_is_told_again_who_it_is() {
    for version in [EtcdVersion::Built, EtcdVersion::Installed] {
        let options = EtcdServer::options().auth("root").user("ann", "pass", "lock/").version(version);
        let Ok(server) = options.start() else { continue };
        outlives_its_token(&server, async || server.restart().unwrap()).await;
    }
}
