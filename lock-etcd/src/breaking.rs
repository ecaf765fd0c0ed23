//! Taking claims off a lock by force.

use lockcore::{BreakTarget, ClaimId, ClaimInfo, Ending, Key, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, crowded};
use crate::txn::{Txn, unchanged};
use crate::view::{Seen, View};

/// How many claims one transaction ends: each is a few of the 128 writes that a server allows by default.
const AT_ONCE: usize = 30;

impl Core {
    /// Ends the claims that `target` names, holders by token and then waiters in the order of service.
    pub(crate) async fn break_claims(&self, key: &Key, target: &BreakTarget) -> Result<Vec<ClaimInfo>> {
        let asked = Moment::now();
        let names = self.keys.of(key);
        let view = self.read(&names).await?;
        let mut view = self.settle(&names, view).await?;
        // Whom the break lets in, and who comes meanwhile, is not what it named.
        let chosen: Vec<ClaimId> =
            in_order(&view).into_iter().filter(|seen| is_named(seen, target)).map(|seen| seen.id).collect();
        let mut broken = Vec::with_capacity(chosen.len());
        let mut failures = 0;
        loop {
            let there = in_order(&view).into_iter().filter(|seen| chosen.contains(&seen.id));
            let targets: Vec<Seen> = there.take(AT_ONCE).cloned().collect();
            if targets.is_empty() {
                break;
            }
            let mut infos = Vec::with_capacity(targets.len());
            for seen in &targets {
                infos.push(self.info(&view, seen, asked).await?);
            }
            let guard: Vec<_> = targets.iter().map(|seen| unchanged(&seen.name, seen.modified)).collect();
            let memory = self.leases.memory().await?;
            let writes = self.endings(&names, &targets, Ending::Broken, memory);
            if self.txn(Txn::new().when(guard).and_then(writes)).await?.succeeded {
                broken.append(&mut infos);
                for seen in targets.iter().filter(|seen| seen.record.client == self.session) {
                    self.registry.ended(seen.id, Ending::Broken);
                }
            } else {
                failures += 1;
                if failures == TRIES {
                    return Err(crowded());
                }
            }
            view = self.read(&names).await?;
        }
        if !broken.is_empty() {
            self.hand_over(&names, view).await;
        }
        Ok(broken)
    }
}

/// Holders by token, then waiters in the order of service.
pub(crate) fn in_order(view: &View) -> Vec<&Seen> {
    let mut all: Vec<&Seen> = view.holders().collect();
    all.sort_by_key(|seen| seen.token());
    all.extend(view.waiters());
    all
}

fn is_named(seen: &Seen, target: &BreakTarget) -> bool {
    match target {
        BreakTarget::Claim(id) => seen.id == *id,
        BreakTarget::Token(token) => seen.token() == Some(token.get()),
        BreakTarget::Owner(owner) => seen.record.owner.as_deref() == Some(&**owner),
        BreakTarget::Holders => seen.is_granted(),
        BreakTarget::All => true,
    }
}
