//! What can be seen from outside, and keys of all kinds.

use std::collections::BTreeSet;

use lockcore::{ErrorKind, Mode, PageToken, Renew};

use crate::outcome::{Outcome, Stop, ensure, ensure_eq};
use crate::scene::Scene;

pub(crate) async fn inspect_holders_waiters(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let ttl = scene.units(100);
    let one = a.shared().owner("ann").note("reads").ttl(ttl).acquire().await?;
    let other = b.shared().acquire().await?;
    let writer = tokio::spawn(b.exclusive().owner("bob").note("\"writes\"\n{}").acquire());
    scene.until(&c, 2, 1).await?;
    let reader = tokio::spawn(a.shared().owner("eve").acquire());
    scene.until(&c, 2, 2).await?;
    scene.sleep(2).await;
    let snapshot = c.inspect().await?;
    let [first, second] = &snapshot.holders[..] else {
        return Err(Stop::failed(format_args!("two holders instead of {snapshot:?}")));
    };
    ensure_eq!(first.id, one.claim_id(), "the first holder by token");
    ensure_eq!(second.id, other.claim_id(), "the second holder by token");
    ensure_eq!((first.mode, first.token), (Mode::Shared, Some(one.token())), "mode and token of the first");
    ensure_eq!(first.owner.as_deref(), Some("ann"), "the owner of the first");
    ensure_eq!(first.note.as_deref(), Some("reads"), "the note of the first");
    ensure_eq!((&second.owner, &second.note), (&None, &None), "owner and note of who gave none");
    ensure!(first.left <= ttl && first.left + scene.units(50) > ttl, "{:?} of {ttl:?} left", first.left);
    ensure!(first.age >= scene.units(2), "held for {:?} only", first.age);
    ensure!(first.age < scene.units(60), "held for {:?}", first.age);
    let shown: Vec<_> =
        snapshot.waiters.iter().map(|info| (info.mode, info.owner.as_deref(), info.token)).collect();
    let expected = [(Mode::Exclusive, Some("bob"), None), (Mode::Shared, Some("eve"), None)];
    ensure_eq!(shown, expected, "the waiters in order");
    ensure_eq!(snapshot.waiters[0].note.as_deref(), Some("\"writes\"\n{}"), "the note of the first waiter");
    ensure!(snapshot.waiters[0].age >= scene.units(2), "waited for {:?} only", snapshot.waiters[0].age);
    drop((one, other));
    scene.soon("the writer's turn", writer).await???.release().await?;
    scene.soon("the reader's turn", reader).await???.release().await?;
    Ok(())
}

pub(crate) async fn inspect_free(scene: &Scene) -> Outcome {
    let lock = scene.lock("never used").await?;
    ensure!(lock.inspect().await?.is_free(), "a key that nobody used is not free");
    lock.exclusive().acquire().await?.release().await?;
    ensure!(lock.inspect().await?.is_free(), "a key that was released is not free");
    Ok(())
}

pub(crate) async fn inspect_after_expiry(scene: &Scene) -> Outcome {
    let [a, b] = scene.locks("k").await?;
    let ttl = scene.units(3);
    let _guard = a.shared().ttl(ttl).renew(Renew::Manual).acquire().await?;
    ensure_eq!(b.inspect().await?.holders.len(), 1, "holders before the expiry");
    tokio::time::sleep(ttl + scene.units(1)).await;
    let snapshot = b.inspect().await?;
    ensure!(snapshot.is_free(), "an inspection shows what has expired: {snapshot:?}");
    Ok(())
}

pub(crate) async fn timeout_names_the_blocker(scene: &Scene) -> Outcome {
    let [a, b, c] = scene.locks("k").await?;
    let guard = a.exclusive().owner("web-3").note("nightly").acquire().await?;
    let waiting = tokio::spawn(b.exclusive().owner("batch").acquire());
    scene.until(&a, 1, 1).await?;
    for wait in [scene.units(0), scene.units(2)] {
        let error = c.exclusive().wait(wait).acquire().await.map(drop);
        let error = error.err().ok_or_else(|| Stop::failed("granted beside an exclusive holder"))?;
        ensure_eq!(error.kind(), ErrorKind::Timeout, "the error of a wait that is over");
        let text = error.to_string();
        for part in ["exclusive holder web-3", "nightly", "1 ahead"] {
            ensure!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
    guard.release().await?;
    scene.soon("the waiter's turn", waiting).await???.release().await?;
    Ok(())
}

pub(crate) async fn list_keys(scene: &Scene) -> Outcome {
    let client = scene.client().await?;
    let names = ["a", "a/b", "a*[x]?", "b{c}", "b\\"];
    let mut guards = Vec::new();
    for name in names {
        guards.push(client.lock(scene.key(name))?.exclusive().acquire().await?);
    }
    client.lock(scene.key("let go"))?.exclusive().acquire().await?.release().await?;
    let all: BTreeSet<String> = names.iter().map(|name| scene.key(name)).collect();
    ensure_eq!(listed(&client, scene.prefix()).await?, all, "the keys of this trial that are in use");
    let a: BTreeSet<String> = ["a", "a/b", "a*[x]?"].iter().map(|name| scene.key(name)).collect();
    ensure_eq!(listed(&client, &scene.key("a")).await?, a, "those that begin with a");
    let star: BTreeSet<String> = [scene.key("a*[x]?")].into();
    ensure_eq!(listed(&client, &scene.key("a*")).await?, star, "a prefix is no pattern");
    ensure_eq!(
        listed(&client, &scene.key("nothing")).await?,
        BTreeSet::new(),
        "those under an unused prefix"
    );
    Ok(())
}

async fn listed(client: &lockcore::LockClient, prefix: &str) -> Outcome<BTreeSet<String>> {
    let mut page = Some(PageToken::default());
    let mut keys = BTreeSet::new();
    while let Some(token) = page {
        let found = client.list(prefix, token).await?;
        keys.extend(found.keys.iter().map(|key| key.as_str().to_owned()));
        page = found.next;
    }
    Ok(keys)
}

pub(crate) async fn keys_of_all_kinds(scene: &Scene) -> Outcome {
    let client = scene.client().await?;
    let other = scene.client().await?;
    let own = scene.prefix();
    let fill = |c: &str, bytes: usize| format!("{own}{}", c.repeat((bytes - own.len()) / c.len()));
    let mut keys: Vec<String> = [
        "", "/", "//", ":", "{", "}", "{}", "{a}", "{a}b", "}{", "\0", "\0\0", " ", "\n", "\r\n", "*", "?",
        "[a]", "\\", "%", "%00", "%2F", "/h", ":h", "/q", ":q", ".", "..", "a", "A", "é", "e\u{301}", "ключ",
        "🔒", "\u{feff}",
    ]
    .iter()
    .map(|end| format!("{own}{end}"))
    .collect();
    keys.extend(
        ["{", "}", "{}", "/", ":", "\0", "lock/", "lock/{", "holders:", "\n"]
            .iter()
            .map(|start| format!("{start}{own}")),
    );
    keys.extend([
        fill("k", 255),
        fill("k", 256),
        fill("k", 512),
        fill("/", 512),
        fill("\0", 512),
        fill("🔒", 512),
    ]);
    let mut guards = Vec::new();
    for key in &keys {
        let guard = client.lock(key.clone())?.exclusive().owner(key.as_str()).try_acquire().await?;
        guards
            .push(guard.ok_or_else(|| Stop::failed(format_args!("{key:?} is the same as a key before it")))?);
    }
    for (key, guard) in keys.iter().zip(&guards) {
        let lock = other.lock(key.clone())?;
        let holders = lock.inspect().await?.holders;
        ensure_eq!(holders.len(), 1, "holders of {key:?}");
        ensure_eq!(holders[0].id, guard.claim_id(), "who holds {key:?}");
        ensure_eq!(holders[0].owner.as_deref(), Some(key.as_str()), "the owner of {key:?}");
        ensure!(lock.shared().try_acquire().await?.is_none(), "{key:?} is free to another client");
    }
    for guard in guards {
        guard.release().await?;
    }
    Ok(())
}
