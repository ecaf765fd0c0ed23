//! TLS with an authority of one's own.

use lock_etcd::{EtcdBackend, EtcdBuilder};
use lockcore::{Error, ErrorKind, LockClient};
use testbed::EtcdServer;
use tokio::time::timeout;

use crate::SOON;

async fn refused(builder: EtcdBuilder) -> Error {
    let connecting = builder.connect_timeout(SOON).connect();
    timeout(2 * SOON, connecting).await.expect("it ends").expect_err("it is refused")
}

#[tokio::test]
async fn locks_over_tls_by_option_and_by_url() {
    let server = EtcdServer::options().tls().auth("root").user("ann", "pass", "lock/").start().unwrap();
    let ca = server.ca_path().unwrap();
    let by_option = EtcdBackend::builder(&server.url_of("ann", "pass")).ca_file(ca);
    let one = LockClient::new(by_option.connect().await.unwrap());
    let url = format!("{}/?ca={}", server.url().replace("127.0.0.1", "localhost"), ca.display());
    let other = LockClient::new(EtcdBackend::connect(&url).await.unwrap());
    let held = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().acquire());
    server.restart().unwrap();
    held.release().await.unwrap();
    let next = timeout(4 * SOON, waiting).await.expect("within a heartbeat").unwrap().unwrap();
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted() {
    let server = EtcdServer::options().tls().start().unwrap();
    let stranger = EtcdServer::options().tls().start().unwrap();
    for builder in [
        EtcdBackend::builder(&server.url()),
        EtcdBackend::builder(&server.url()).ca_file(stranger.ca_path().unwrap()),
    ] {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn one_side_speaks_tls_and_the_other_does_not() {
    let (plain, tls) = (EtcdServer::start().unwrap(), EtcdServer::options().tls().start().unwrap());
    let to_plain = EtcdBackend::builder(&plain.url().replace("etcd:", "etcds:"));
    let to_tls = EtcdBackend::builder(&tls.url().replace("etcds:", "etcd:"));
    for (builder, address, advice) in [
        (to_plain.ca_file(tls.ca_path().unwrap()), plain.addr(), "a port that speaks TLS"),
        (to_tls, tls.addr(), "etcds://"),
    ] {
        let error = refused(builder).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        for words in [advice, &address.to_string()] {
            assert!(error.to_string().contains(words), "no {words:?} in: {error}");
        }
    }
}
