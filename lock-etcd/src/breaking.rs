//! Taking claims off a lock by force.

use lockcore::{BreakTarget, ClaimId, ClaimInfo, Ending, Key, Result};

use crate::clock::Moment;
use crate::core::{Core, TRIES, crowded};
use crate::errors::afterwards;
use crate::takeover::AT_ONCE;
use crate::view::{Seen, View};

impl Core {
    /// Ends the claims that `target` names, holders by token and then waiters in the order of service.
    pub(crate) async fn break_claims(&self, key: &Key, target: &BreakTarget) -> Result<Vec<ClaimInfo>> {
        let mut broken = Vec::new();
        match self.break_into(key, target, &mut broken).await {
            Err(error) if !broken.is_empty() => Err(afterwards(error)),
            Err(error) => Err(error),
            Ok(()) => Ok(broken),
        }
    }

    async fn break_into(&self, key: &Key, target: &BreakTarget, broken: &mut Vec<ClaimInfo>) -> Result<()> {
        let asked = Moment::now();
        let names = self.keys.of(key);
        let view = self.read(&names).await?;
        let mut view = self.settle(&names, view).await?;
        // Whom the break lets in, and who comes meanwhile, is not what it named.
        let chosen: Vec<ClaimId> =
            in_order(&view).into_iter().filter(|seen| is_named(seen, target)).map(|seen| seen.id).collect();
        let mut failures = 0;
        loop {
            let there = in_order(&view).into_iter().filter(|seen| chosen.contains(&seen.id));
            let targets: Vec<Seen> = there.take(AT_ONCE).cloned().collect();
            if targets.is_empty() {
                break;
            }
            let mut infos = self.infos(&view, &targets.iter().collect::<Vec<_>>(), asked).await?;
            if self.end(&names, &targets, Ending::Broken).await? {
                broken.append(&mut infos);
            } else {
                failures += 1;
                if failures == TRIES {
                    return Err(crowded());
                }
            }
            view = self.read(&names).await?;
        }
        if !broken.is_empty() {
            self.hand_over(&names, key, view).await;
        }
        Ok(())
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
