//! What can be seen from outside.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lockcore::{ClaimInfo, FencingToken, Key, KeyPrefix, Page, PageToken, Result, Snapshot};

use crate::breaking::in_order;
use crate::clock::{Moment, wall_micros};
use crate::core::{Core, missing, together};
use crate::keys::Keys;
use crate::txn::{Get, Txn, TxnOp};
use crate::view::{Seen, View};

/// How many names of the server one page of a listing looks at.
const PAGE: i64 = 1000;

impl Core {
    pub(crate) async fn inspect(&self, key: &Key) -> Result<Snapshot> {
        let asked = Moment::now();
        let names = self.keys.of(key);
        let view = self.read(&names).await?;
        let view = self.settle(&names, view).await?;
        let infos = self.infos(&view, &in_order(&view), asked).await?;
        let (holders, waiters) = infos.into_iter().partition(|info| info.token.is_some());
        Ok(Snapshot { holders, waiters })
    }

    /// Claims, as people see them. What is left of a lease that is not this client's is as the server says, which is asked once
    /// for each lease, however many lie on it.
    pub(crate) async fn infos(&self, view: &View, claims: &[&Seen], asked: Moment) -> Result<Vec<ClaimInfo>> {
        let known: Vec<Option<Duration>> = claims.iter().map(|seen| self.known_left(seen, asked)).collect();
        let others = claims.iter().zip(&known).filter(|(_, known)| known.is_none());
        let leases: BTreeSet<i64> = others.map(|(seen, _)| seen.lease).collect();
        let mut asking = Vec::with_capacity(leases.len());
        for &lease in &leases {
            asking.push(self.link.time_to_live(lease));
        }
        let mut told = HashMap::with_capacity(leases.len());
        for (lease, left) in leases.into_iter().zip(together(asking).await) {
            told.insert(lease, left?);
        }
        let info = |(seen, known): (&&Seen, Option<Duration>)| {
            let left = known.or_else(|| told.get(&seen.lease).copied()).unwrap_or_default();
            self.info(view, seen, left)
        };
        Ok(claims.iter().zip(known).map(info).collect())
    }

    /// One claim. Its age goes by the wall clocks of whoever wrote and of this client.
    fn info(&self, view: &View, seen: &Seen, left: Duration) -> ClaimInfo {
        let token = self.fence(view, seen).map(|fence| fence.token);
        ClaimInfo {
            id: seen.id,
            mode: seen.record.mode,
            owner: seen.record.owner.clone(),
            note: seen.record.note.clone(),
            token: token.or_else(|| FencingToken::new(seen.token()?)),
            age: Duration::from_micros(wall_micros().saturating_sub(seen.record.since)),
            left,
            upgrading: seen.is_granted() && seen.record.upgrading,
        }
    }

    /// A page of the keys in use.
    pub(crate) async fn list(&self, prefix: &KeyPrefix, page: &PageToken) -> Result<Page> {
        let (start, end) = self.keys.listing(prefix);
        let start = page.0.clone().unwrap_or(start);
        let names = Get { start, end: Some(end), keys_only: true, limit: PAGE, ..Get::default() };
        let answer = self.txn(Txn::new().and_then([TxnOp::Get(names)])).await?;
        let found = answer.gets.first().ok_or_else(missing)?;
        let mut page = Page::default();
        for kv in &found.kvs {
            let Some(key) = self.keys.key_of(&kv.key) else { continue };
            if prefix.begins(&key) && page.keys.last() != Some(&key) {
                page.keys.push(key);
            }
        }
        if found.more
            && let Some(last) = found.kvs.last()
        {
            page.next = Some(PageToken(Some(Keys::behind(&last.key))));
        }
        Ok(page)
    }
}
