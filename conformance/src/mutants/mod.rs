//! Backends that are broken in one way each: the suite's own test.
//!
//! Every [`Mutant`] names the scenario that must notice it. [`hunt`] plays that scenario against it, and a healthy twin
//! shows that it is the mutation that is noticed, and not the twin.

mod backend;
mod faults;
mod shelf;
mod twin;

use std::sync::Arc;

use async_trait::async_trait;
use lockcore::Result;

use self::twin::Twin;
use crate::harness::{Client, Harness, Hook, Link, Seclusion, Server, Timing};
use crate::play::{Verdict, play};
use crate::table::Scenario;

macro_rules! mutants {
    ($($(#[doc = $says:literal])* $mutant:ident $name:literal $scenario:literal)*) => {
        /// One way in which a backend can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $says])* $mutant),*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$mutant),*];

            /// Its name, as the report gives it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$mutant => $name),* }
            }

            /// The number of the scenario that must notice it.
            #[must_use]
            pub fn scenario(self) -> u16 {
                match self { $(Mutant::$mutant => $scenario),* }
            }
        }
    };
}

mutants! {
    /// A release takes off whoever holds, whoever asked.
    ReleaseWithoutOwnerCheck "release_without_owner_check" 39
    /// A release takes off all holders of the key.
    ReleaseByKeyName "release_by_key_name" 4
    /// An acquire that arrives after its claim has ended makes a new holder.
    LateAcquireRevives "late_acquire_revives" 60
    /// A hand-over gives the full ttl.
    HandoverSetsFullTtl "handover_sets_full_ttl" 118
    /// A renewal of a claim that has expired takes the lock again.
    RenewRecreates "renew_recreates" 25
    /// A reader joins the readers although a writer waits.
    ReaderOvertakesWriter "reader_overtakes_writer" 8
    /// A break by token breaks whoever holds.
    BreakWithoutTokenCheck "break_without_token_check" 48
    /// The token of an expired claim is given out again.
    TokenReusedAfterExpiry "token_reused_after_expiry" 19
    /// Leases never run out.
    TtlIgnored "ttl_ignored" 22
    /// An exclusive claim is let in beside readers.
    SharedAdmitsExclusive "shared_admits_exclusive" 5
    /// Nobody is told that it was granted.
    NotificationLost "notification_lost" 2
    /// Whoever waits cannot withdraw.
    WithdrawalIgnored "withdrawal_ignored" 13
    /// The release of a claim that was broken or has expired frees its successor.
    EndedReleaseFreesSuccessor "ended_release_frees_successor" 50
    /// A try that is busy stays in the queue.
    TryJoinsQueue "try_joins_queue" 3
    /// The last to come is served first.
    LastInFirstOut "last_in_first_out" 7
    /// Leases run out at half their time.
    LeaseHalved "lease_halved" 20
    /// Co-holders have one token.
    SharedTokenTwice "shared_token_twice" 45
    /// A reader's floor is its own token.
    FloorIsToken "floor_is_token" 117
    /// A renewal that was overtaken by a newer one counts.
    LateRenewalCounts "late_renewal_counts" 119
    /// A take-over goes to the end of the queue.
    TakeOverAtTail "take_over_at_tail" 101
    /// An upgrade does not wait for the other readers.
    UpgradeDoesNotWait "upgrade_does_not_wait" 106
    /// An inspection shows what has expired until somebody else asks.
    InspectShowsExpired "inspect_shows_expired" 53
    /// Permits count for nothing.
    PermitsUnbounded "permits_unbounded" 113
    /// A second request of the same claim makes a second claim.
    RequestNotIdempotent "request_not_idempotent" 124
}

/// What became of a mutant.
#[derive(Clone, Debug)]
pub struct Hunted {
    /// Which one.
    pub mutant: Mutant,
    /// The name of the scenario that was to notice it.
    pub scenario: String,
    /// The first line of what the scenario said; `None` when it noticed nothing.
    pub caught: Option<String>,
}

/// Plays the scenario that must notice `mutant` against it.
#[must_use]
pub fn hunt(mutant: Mutant) -> Hunted {
    let harness: Arc<dyn Harness> = Arc::new(TwinHarness(Some(mutant)));
    let Some(scenario) = Scenario::of(mutant.scenario()) else {
        return Hunted { mutant, scenario: "none".into(), caught: None };
    };
    let caught = match play(&harness, scenario, 1) {
        Verdict::Failed(message) => Some(message.lines().next().unwrap_or_default().to_owned()),
        Verdict::Passed | Verdict::Skipped(_) => None,
    };
    Hunted { mutant, scenario: scenario.label(), caught }
}

/// The harness of the twin that is not broken: for the suite's own tests, and as an example.
#[derive(Debug)]
pub struct HealthyHarness;

#[async_trait]
impl Harness for HealthyHarness {
    fn name(&self) -> &'static str {
        "healthy"
    }

    fn timing(&self) -> Timing {
        Timing::paused()
    }

    async fn open(&self, seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        TwinHarness(None).open(seclusion).await
    }
}

struct TwinHarness(Option<Mutant>);

#[async_trait]
impl Harness for TwinHarness {
    fn name(&self) -> &'static str {
        self.0.map_or("healthy", Mutant::name)
    }

    fn timing(&self) -> Timing {
        Timing::paused()
    }

    async fn open(&self, _seclusion: Seclusion) -> Result<Arc<dyn Server>> {
        Ok(Arc::new(TwinServer { mutant: self.0, shelf: Arc::default() }))
    }
}

struct TwinServer {
    mutant: Option<Mutant>,
    shelf: Arc<shelf::Shelf>,
}

#[async_trait]
impl Server for TwinServer {
    fn version(&self) -> String {
        "twin".into()
    }

    async fn connect(&self) -> Result<Client> {
        Ok(Arc::new(Twin::new(self.mutant, self.shelf.clone())))
    }

    async fn connect_through(&self) -> Hook<(Client, Box<dyn Link>)> {
        let twin = Twin::new(self.mutant, self.shelf.clone());
        let link = faults::link(&twin);
        Ok((Arc::new(twin), link))
    }

    async fn keys_kept(&self) -> Hook<usize> {
        Ok(self.shelf.keys_kept())
    }

    async fn restart(&self) -> Hook {
        self.lose_state().await
    }

    async fn lose_state(&self) -> Hook {
        // Its tokens go by the clock, which must have moved on.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        self.shelf.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SCENARIOS;

    #[test]
    fn every_mutant_is_caught() {
        for &mutant in Mutant::ALL {
            let hunted = hunt(mutant);
            assert!(hunted.caught.is_some(), "{} was not noticed by {}", mutant.name(), hunted.scenario);
        }
    }

    /// The property test stands on its own: it finds every mutant that answers wrongly, without knowing of any.
    #[test]
    fn random_commands_find_mutants() {
        let mut missed = Vec::new();
        for &mutant in Mutant::ALL {
            let harness: Arc<dyn Harness> = Arc::new(TwinHarness(Some(mutant)));
            if crate::property::play(&harness, 1).is_ok() {
                missed.push(mutant);
            }
        }
        // Nobody asks there whether somebody was told.
        assert_eq!(missed, [Mutant::NotificationLost]);
    }

    /// What is noticed in a mutant is its mutation.
    #[test]
    fn the_healthy_twin_passes() {
        let harness: Arc<dyn Harness> = Arc::new(HealthyHarness);
        for scenario in SCENARIOS {
            let verdict = play(&harness, scenario, 1);
            assert!(!matches!(verdict, Verdict::Failed(_)), "{}: {verdict:?}", scenario.label());
        }
    }
}
