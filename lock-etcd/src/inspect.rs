//! What can be seen from outside.

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
        let mut looks = Vec::with_capacity(view.claims.len());
        for seen in in_order(&view) {
            looks.push(self.info(&view, seen, asked));
        }
        let infos = together(looks).await.into_iter().collect::<Result<Vec<_>>>()?;
        let (holders, waiters) = infos.into_iter().partition(|info| info.token.is_some());
        Ok(Snapshot { holders, waiters })
    }

    /// One claim, as people see it. Its age goes by the wall clocks of whoever wrote and of this client.
    pub(crate) async fn info(&self, view: &View, seen: &Seen, asked: Moment) -> Result<ClaimInfo> {
        let token = self.fence(view, seen).map(|fence| fence.token);
        Ok(ClaimInfo {
            id: seen.id,
            mode: seen.record.mode,
            owner: seen.record.owner.clone(),
            note: seen.record.note.clone(),
            token: token.or_else(|| FencingToken::new(seen.token()?)),
            age: Duration::from_micros(wall_micros().saturating_sub(seen.record.since)),
            left: self.shown_left(seen, asked).await?,
            upgrading: seen.is_granted() && seen.record.upgrading,
        })
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
