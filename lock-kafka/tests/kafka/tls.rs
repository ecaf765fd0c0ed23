//! TLS with an authority of one's own, and SCRAM.

use std::path::Path;

use lock_kafka::KafkaBackend;
use lockcore::{ErrorKind, LockClient};
use testbed::KafkaServer;
use tokio::time::{Instant, timeout};

use crate::{SOON, refused};

fn over_tls(server: &KafkaServer, authority: &Path) -> String {
    format!("{}?security.protocol=SSL&ssl.ca.location={}", server.url("locks"), authority.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_over_tls_by_a_user_with_a_password_that_is_not_sent() {
    let server = KafkaServer::options().tls("127.0.0.1").user("ann", "geheim").start().unwrap();
    for right in ["DescribeConfigs", "Read", "Write", "Create"] {
        server.allow("ann", right, "locks").unwrap();
    }
    let ca = server.ca_path().unwrap().display();
    let url = |password| {
        format!(
            "{}?security.protocol=SASL_SSL&ssl.ca.location={ca}&sasl.mechanisms=SCRAM-SHA-256&sasl.username=ann\
             &sasl.password={password}",
            server.url("locks")
        )
    };
    let connect = async || LockClient::new(KafkaBackend::connect(&url("geheim")).await.unwrap());
    let (one, other) = (connect().await, connect().await);
    let held = one.lock("k").unwrap().exclusive().acquire().await.unwrap();
    let waiting = tokio::spawn(other.lock("k").unwrap().exclusive().wait(20 * SOON).acquire());
    held.release().await.unwrap();
    let next = timeout(SOON, waiting).await.expect("it is told").unwrap().unwrap();
    next.release().await.unwrap();
    let start = Instant::now();
    let error = refused(&url("wrong")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(start.elapsed() < SOON / 2, "{:?}: {error}", start.elapsed());
    // A mechanism that the broker does not have.
    let error = refused(&url("geheim").replace("SHA-256", "SHA-512")).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("SCRAM-SHA-256"), "what it has: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_be_trusted() {
    let server = KafkaServer::options().tls("127.0.0.1").start().unwrap();
    let stranger = KafkaServer::options().tls("example.com").start().unwrap();
    let own = server.ca_path().unwrap();
    KafkaBackend::connect(&over_tls(&server, own)).await.unwrap();
    for url in [
        over_tls(&server, stranger.ca_path().unwrap()),
        // Its certificate is for another name.
        over_tls(&stranger, stranger.ca_path().unwrap()),
        format!("{}?security.protocol=SSL", server.url("locks")),
    ] {
        let error = refused(&url).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let error = refused(&over_tls(&server, Path::new("/nowhere"))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("ssl.ca.location"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_speaks_tls_and_the_other_does_not() {
    let (plain, tls) =
        (KafkaServer::start().unwrap(), KafkaServer::options().tls("127.0.0.1").start().unwrap());
    for (url, address, advice) in [
        (tls.url("locks"), tls.addr(), "security.protocol"),
        (over_tls(&plain, tls.ca_path().unwrap()), plain.addr(), "PLAINTEXT"),
    ] {
        let error = refused(&url).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        for words in [advice, &address.to_string()] {
            assert!(error.to_string().contains(words), "no {words:?} in: {error}");
        }
    }
}
