//! Keys of every kind, what is left behind on the server, and the listing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lock_redis::RedisBackend;
use lockcore::{
    Attempt, BreakTarget, Claim, KeyPrefix, LockBackend, LockClient, Mode, PageToken, Queue, Release,
};
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

/// What the server sees when everybody has crashed and nobody came for a while: all keys but the header are gone.
#[tokio::test]
async fn a_lock_whose_claims_have_vanished_is_free() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let short = |text, mode| Arc::new(Claim::new(key(text), mode, Duration::from_millis(50)));
    let two = Mode::Permit { at_most: 2.try_into().unwrap() };
    // Where the header says until when its other keys live: in its form for several holders, and for one with a queue.
    for (text, first, second, horizon) in [
        ("readers", Mode::Shared, Mode::Shared, 75),
        ("permits", two, two, 75),
        ("queue", Mode::Exclusive, Mode::Exclusive, 115),
    ] {
        let crashed = [short(text, first), short(text, second)];
        for one in &crashed {
            acquire(&backend, one).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        let header = format!("lock/{{{text}}}");
        for letter in "cxtqwob".chars() {
            server.command(&["DEL", &format!("{header}{letter}")]).unwrap();
        }
        let at = horizon.to_string();
        server.command(&[b"SETRANGE", header.as_bytes(), at.as_bytes(), &1f64.to_le_bytes()[..]]).unwrap();
        assert!(backend.clone().inspect(key(text)).await.unwrap().is_free(), "{text}");
        let next = [claim(text, Mode::Shared), claim(text, Mode::Shared)];
        for one in &next {
            granted(&backend, one).await;
        }
        queued(&backend, &claim(text, Mode::Exclusive)).await;
        let broken = backend.clone().break_claims(key(text), BreakTarget::All).await.unwrap();
        assert_eq!(broken.len(), 3, "{text}: {broken:?}");
    }
}

#[tokio::test]
async fn an_ended_id_is_remembered_as_long_as_the_most_patient_client_wants() {
    let server = RedisServer::start().unwrap();
    let patient = connect(&server).await;
    let hasty = RedisBackend::builder(&server.url())
        .fence_keep(Duration::from_millis(50))
        .forget_after(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let withdraw = async |backend: &Arc<RedisBackend>| {
        let one = claim("a", Mode::Exclusive);
        let release = Release { claim: one.clone(), answered: false, only_waiting: false };
        backend.clone().release(vec![release]).await.remove(0).unwrap();
        one
    };
    let late = withdraw(&patient).await;
    withdraw(&hasty).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(acquire(&patient, &late).await.unwrap(), Attempt::Gone);
    assert_eq!(hasty.clone().acquire(late, Queue::Never).await.unwrap(), Attempt::Gone);
}

#[tokio::test]
async fn an_owner_too_long_to_be_one_breaks_nobody() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    let claim = Claim::new(key("a"), Mode::Exclusive, Duration::from_secs(30)).with_owner(Some("x".into()));
    granted(&backend, &Arc::new(claim)).await;
    for length in [1024, 1025, 65_534, 65_535, 65_537] {
        let target = BreakTarget::Owner("x".repeat(length).into());
        assert!(backend.clone().break_claims(key("a"), target).await.unwrap().is_empty(), "{length}");
    }
}

#[tokio::test]
async fn the_listing_passes_over_keys_of_others() {
    let server = RedisServer::start().unwrap();
    let backend = connect(&server).await;
    granted(&backend, &claim("a", Mode::Exclusive)).await;
    server.command(&["LPUSH", "lock/{b}", "x"]).unwrap();
    server.command(&["SET", "lock/{c}", "x"]).unwrap();
    let page = backend.clone().list(KeyPrefix::default(), PageToken::default()).await.unwrap();
    assert_eq!(page.keys, [key("a")]);
}
