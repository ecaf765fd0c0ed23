//! What must be true of the keys of a lock at every revision.

use std::collections::BTreeMap;

use lockcore::{ClaimId, Mode};

use super::store::Store;
use crate::record::Record;
use crate::txn::KeyValue;

/// Who holds together on the server and must not, if anybody does: these conflict, or one was let in past an upgrade.
pub(super) fn conflict(store: &Store) -> Option<String> {
    let mut holders: BTreeMap<&str, Vec<(&str, Mode)>> = BTreeMap::new();
    for (name, kv) in &store.keys {
        let Some((lock, claim)) = name.split_once("/~") else { continue };
        let Some(record) = claim_of(kv) else { continue };
        if record.granted.is_some() {
            holders.entry(lock).or_default().push((claim, record.mode));
        }
    }
    let too_many = |held: &[(&str, Mode)]| {
        held.iter().any(|(_, mode)| {
            let most = match mode {
                Mode::Exclusive => 1,
                Mode::Shared => usize::MAX,
                Mode::Permit { at_most } => usize::try_from(at_most.get()).unwrap_or(usize::MAX),
            };
            held.len() > most
        })
    };
    match holders.into_iter().find(|(_, held)| too_many(held)) {
        Some((lock, held)) => {
            Some(format!("at revision {} these hold {lock} together: {held:?}", store.revision))
        }
        None => overtaken(store),
    }
}

/// The holder that was let in after another had begun to wait for the lock alone.
fn overtaken(store: &Store) -> Option<String> {
    let holders = || {
        store.keys.iter().filter_map(|(name, kv)| {
            let record = Record::decode(&kv.value)?;
            let token = record.granted?.token;
            let token = if token == 0 { crate::token::token(kv.modified, 0) } else { token };
            Some((name, token, record.upgrading))
        })
    };
    holders().filter(|&(.., upgrading)| upgrading).find_map(|(name, ..)| {
        let (lock, claim) = name.split_once("/~")?;
        let (_, slot) = claim.split_once('/')?;
        let begun = store.keys.get(&format!("{lock}/~u/{slot}"))?.modified;
        let begun = crate::token::token(begun, 0);
        let beside = |other: &str| other != name && other.split_once("/~").is_some_and(|(of, _)| of == lock);
        let (late, token, _) = holders().find(|&(other, token, _)| beside(other) && token > begun)?;
        Some(format!("{late} was let in at {token}, past the upgrade of {name} at {begun}"))
    })
}

/// The claim that a key is, if it is one.
pub(super) fn claim_of(kv: &KeyValue) -> Option<Record> {
    let name = str::from_utf8(&kv.key).ok()?;
    let is_claim = ["/~x/", "/~s/", "/~p/"].iter().any(|kind| name.contains(kind));
    Record::decode(&kv.value).filter(|_| is_claim)
}

/// The name of the key of this claim.
pub(super) fn name_of(store: &Store, id: ClaimId) -> Option<&String> {
    let is_it = |kv: &KeyValue| claim_of(kv).is_some_and(|record| record.id == id);
    store.keys.iter().find(|(_, kv)| is_it(kv)).map(|(name, _)| name)
}

/// How the claim of this id holds, if it does.
pub(super) fn holder(store: &Store, id: ClaimId) -> Option<Mode> {
    let record = claim_of(store.keys.get(name_of(store, id)?)?)?;
    record.granted.map(|_| record.mode)
}

/// Whether the claim was broken or replaced: its holder may not know yet.
pub(super) fn ended_by_others(store: &Store, id: ClaimId) -> bool {
    let end = format!("/~d/{id}");
    let remembered = store.keys.iter().find(|(name, _)| name.ends_with(&end));
    remembered.is_some_and(|(_, kv)| matches!(kv.value.first(), Some(b'B' | b'T')))
}
