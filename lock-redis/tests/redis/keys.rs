//! Keys of every kind, what is left behind on the server, and the listing.

use std::collections::BTreeSet;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{BreakTarget, KeyPrefix, LockBackend, LockClient, Mode, PageToken};
use testbed::RedisServer;

use crate::bench::{acquire, claim, connect, granted, key, keys, queued, release, until};

#[tokio::test]
async fn any_key_is_a_lock_of_its_own() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let texts: Vec<String> = [
        "a", "a/b", "{}", "}{", "{a}", "%7Ba%7D", "a\0b", "a\nb", "a\r\nb", "*", "[a]", "\\", "ключ", " ",
        "q",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["k".repeat(512), "}".repeat(512), "\0".repeat(512)])
    .collect();
    let mut held = Vec::new();
    for text in &texts {
        let one = claim(text, Mode::Exclusive);
        granted(&backend, &one).await;
        assert_eq!(backend.clone().inspect(key(text)).await.unwrap().holders[0].id, one.id(), "{text:?}");
        held.push(one);
    }
    let mut listed = BTreeSet::new();
    let mut page = PageToken::default();
    loop {
        let found = backend.clone().list(KeyPrefix::default(), page).await.unwrap();
        listed.extend(found.keys.iter().map(|key| key.as_str().to_owned()));
        let Some(next) = found.next else { break };
        page = next;
    }
    assert_eq!(listed, texts.iter().cloned().collect());
    for (prefix, expected) in [("a", 5), ("{", 2), ("*", 1), ("\\", 1), ("zz", 0)] {
        let found =
            backend.clone().list(KeyPrefix::new(prefix).unwrap(), PageToken::default()).await.unwrap();
        assert_eq!(found.keys.len(), expected, "{prefix}: {:?}", found.keys);
    }
    for one in &held {
        release(&backend, one).await.unwrap();
    }
    let found = backend.clone().list(KeyPrefix::default(), PageToken::default()).await.unwrap();
    assert!(found.keys.is_empty(), "free locks are not listed: {:?}", found.keys);
    assert!(backend.clone().list(KeyPrefix::default(), PageToken(Some("x".into()))).await.is_err());
}

#[tokio::test]
async fn prefixes_and_databases_are_apart() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    granted(&backend, &claim("a", Mode::Exclusive)).await;
    let other = RedisBackend::builder(&server.url()).prefix("other/").connect().await.unwrap();
    granted(&other, &claim("a", Mode::Exclusive)).await;
    let second = RedisBackend::connect(&format!("{}/2", server.url())).await.unwrap();
    granted(&second, &claim("a", Mode::Exclusive)).await;
}

#[tokio::test]
async fn nothing_but_the_fence_is_left_behind() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let locks = LockClient::new(backend.clone());
    for mode in [Mode::Exclusive, Mode::Shared, Mode::Permit { at_most: 2.try_into().unwrap() }] {
        let claims: Vec<_> = (0..6).map(|_| claim("a", mode)).collect();
        for one in &claims {
            acquire(&backend, one).await.unwrap();
        }
        for one in &claims {
            release(&backend, one).await.unwrap();
        }
    }
    let lock = locks.lock("a").unwrap();
    let shared = lock.shared().owner("me").acquire().await.unwrap();
    shared.upgrade().await.unwrap().downgrade().await.unwrap().release().await.unwrap();
    assert_eq!(keys(&server), ["lock/{a}"]);
    let left = server.command(&["PTTL", "lock/{a}"]).unwrap().as_integer().unwrap();
    assert!(left > 30 * 24 * 3600 * 1000, "the fence is kept for 30 days: {left}");
    until("nothing is listened for", async || backend.listening() == 0).await;
}

#[tokio::test]
async fn what_nobody_releases_vanishes_by_itself() {
    let server = RedisServer::start().unwrap();
    let backend = RedisBackend::builder(&server.url())
        .fence_keep(Duration::from_millis(100))
        .forget_after(Duration::from_millis(100))
        .connect()
        .await
        .unwrap();
    let claims: Vec<_> =
        [Mode::Shared, Mode::Shared, Mode::Exclusive, Mode::Permit { at_most: 3.try_into().unwrap() }]
            .into_iter()
            .map(|mode| claim("a", mode))
            .collect();
    for one in &claims {
        acquire(&backend, one).await.unwrap();
    }
    // Every key has an end of its own, whatever becomes of the clients.
    for name in keys(&server) {
        let left = server.command(&["PTTL", &name]).unwrap().as_integer().unwrap();
        assert!(left > 0, "{name} stays for ever");
    }
    let broken = backend.clone().break_claims(key("a"), BreakTarget::All).await.unwrap();
    assert_eq!(broken.len(), 4);
    assert_eq!(keys(&server), ["lock/{a}", "lock/{a}d"]);
    until("the tombstones are gone", async || keys(&server) == ["lock/{a}"]).await;
    drop(claims);
}

#[tokio::test]
async fn leases_of_waiters_and_holders_have_keys_that_outlive_them() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    granted(&backend, &claim("a", Mode::Shared)).await;
    let long = std::sync::Arc::new(lockcore::Claim::new(key("a"), Mode::Shared, Duration::from_secs(3600)));
    granted(&backend, &long).await;
    queued(&backend, &claim("a", Mode::Exclusive)).await;
    for name in keys(&server) {
        let left = server.command(&["PTTL", &name]).unwrap().as_integer().unwrap();
        assert!(left > 3_600_000, "{name} would end before a lease does: {left}");
    }
}
