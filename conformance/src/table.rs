//! The one table of scenarios: the trials, the report and the list of what is shown come from it.

use std::pin::Pin;

use lockcore::Capabilities;

use crate::harness::Seclusion;
use crate::outcome::Outcome;
use crate::rules::Rule;
use crate::scenarios as play;
use crate::scene::Scene;

/// One scenario.
pub struct Scenario {
    /// Its number; it never changes.
    pub id: u16,
    /// Its name in a word or two.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub says: &'static str,
    /// The rules that it shows.
    pub rules: &'static [Rule],
    /// How basic it is.
    pub level: Level,
    /// What it needs of the backend.
    pub needs: &'static [Need],
    /// Whether it needs a server of its own.
    pub seclusion: Seclusion,
    pub(crate) play: Play,
}

type Play = for<'a> fn(&'a Scene) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// How basic a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Without it, it is no lock.
    Core,
    /// Everything else that the rules promise.
    Extended,
}

/// A capability that a scenario needs. A backend that does not declare it is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Claims are granted in the order of their arrival.
    Fair,
    /// Guards change their mode.
    Convert,
    /// A bounded number of holders.
    Permits,
    /// Keys can be listed.
    List,
}

impl Need {
    /// Whether a backend declares it.
    #[must_use]
    pub fn is_met_by(self, capabilities: &Capabilities) -> bool {
        match self {
            Need::Fair => capabilities.fair,
            Need::Convert => capabilities.convert,
            Need::Permits => capabilities.permits,
            Need::List => capabilities.list,
        }
    }

    /// Why a scenario that needs it is ignored.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Need::Fair => "the backend does not declare to be fair",
            Need::Convert => "the backend does not declare to convert",
            Need::Permits => "the backend does not declare permits",
            Need::List => "the backend does not declare to list keys",
        }
    }
}

impl Scenario {
    /// The name of its trial, such as `s07_fifo_excl`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("s{:02}_{}", self.id, self.name)
    }

    /// The scenario of this number.
    #[must_use]
    pub fn of(id: u16) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.id == id)
    }
}

macro_rules! scenarios {
    ($($id:literal $name:ident $theme:ident [$($rule:ident)*] $level:ident $seclusion:ident
       [$($need:ident)*] $says:literal)*) => {
        /// All scenarios, by id.
        pub static SCENARIOS: &[Scenario] = &[$(Scenario {
            id: $id,
            name: stringify!($name),
            says: $says,
            rules: &[$(Rule::$rule),*],
            level: Level::$level,
            needs: &[$(Need::$need),*],
            seclusion: Seclusion::$seclusion,
            play: |scene| Box::pin(play::$theme::$name(scene)),
        }),*];
    };
}

scenarios! {
    1 excl_basic exclusive [S3 S14] Core Shared [] "a lock is acquired, released and acquired again"
    2 excl_blocks exclusive [S3 S5] Core Shared [] "a second claim waits until the first lets go, and is told at once"
    3 try_busy exclusive [S4] Core Shared [] "a try on a held lock is busy at once and leaves no waiter"
    4 shared_many shared [S3 S14] Core Shared [] "readers hold together, and one that leaves takes nobody along"
    5 shared_then_excl shared [S3] Core Shared [] "a writer waits for every reader"
    6 excl_then_shared_batch shared [S4 S5] Core Shared [Fair] "waiting readers are granted as one batch"
    7 fifo_excl queue [S4] Core Shared [Fair] "twenty waiters are granted in the order in which they came"
    8 fifo_mixed queue [S4] Core Shared [Fair] "a reader behind a waiting writer waits behind it"
    9 writer_not_starved queue [S4] Core Shared [Fair] "endless readers do not keep a writer out"
    10 wait_timeout exclusive [S20 S19] Core Shared [] "a wait ends in time, and the waiter is gone"
    11 wait_zero exclusive [S20] Core Shared [] "a wait of zero is a try"
    12 timeout_vs_grant_race exclusive [S20 S19] Core Shared [] "at the end of a wait it is held, or it is not; never both or neither"
    13 drop_waiting_future dropped [S18 S5] Core Shared [] "a waiter whose future is dropped leaves no ghost"
    14 cancel_every_poll_point dropped [S18] Core Shared [] "an acquire that is dropped at any poll leaves nothing behind"
    15 drop_guard_releases dropped [S18 S5] Core Shared [] "dropping a guard lets go, and the next is told"
    16 crashed_holder crash [S6] Core Shared [] "what a dead process held is free after its lease, not before"
    17 crashed_waiter_at_head crash [S9 S6] Core Shared [] "a dead waiter costs its waiter's lease, even when it is granted"
    18 crashed_waiter_in_the_middle crash [S6 S4] Core Shared [Fair] "a dead waiter goes, and the others keep their order"
    19 ttl_expiry_grants_next lease [S6 S5 S10] Core Shared [] "a lease that runs out hands over, and its holder knows before"
    20 ttl_not_early lease [S6] Core Shared [] "no lease is over before its time"
    21 ttl_min_and_rounding lease [S6] Core Shared [] "the lease that is answered is the one in force"
    22 expiry_without_waiters lease [S6] Core Shared [] "a lease runs out although nobody asks"
    23 renew_extends renewal [S7 S12] Core Shared [] "a renewal counts from now and keeps the token"
    24 renew_threshold renewal [S8] Extended Shared [] "a renewal that is not needed sends nothing"
    25 renew_after_expiry renewal [S7] Core Shared [] "a renewal never resurrects, even on a free key"
    26 renew_after_successor renewal [S7 S14] Core Shared [] "a late renewal leaves the successor alone"
    27 renew_reply_lost renewal [S10 S11] Extended Shared [] "an unanswered renewal counts for nothing"
    28 renew_shorter renewal [S7] Extended Shared [] "a lease may be made shorter"
    29 autorenew_holds renewal [S6 S9] Core Shared [] "the client renews for as long as the guard lives"
    30 autorenew_stops_on_drop renewal [S18] Core Shared [] "a dropped guard is renewed no more"
    31 autorenew_survives_a_failure renewal [S11] Extended Shared [] "one failed renewal is not a loss"
    32 autorenew_after_reconnect renewal [S11] Extended Shared [] "cut connections come back before the lease is over"
    33 executor_blocked renewal [S11 S13] Core Shared [] "a guard that was not renewed says so at its next use"
    34 lost_on_break loss [S15 S11] Core Shared [] "a broken holder is told"
    35 lost_with_the_state loss [S11 S12] Extended Own [] "a holder that the server forgot learns it in time"
    36 lost_is_final loss [S11 S7] Core Shared [] "a lost guard stays lost, and says why each time"
    37 lost_by_the_deadline loss [S10 S11] Core Shared [] "without a server a holder gives up before its successor comes"
    38 release_twice release [S14] Core Shared [] "the second release of a claim finds nothing"
    39 release_foreign release [S14] Core Shared [] "a stranger's release has no effect"
    40 release_stale_same_client release [S14 S1] Core Shared [] "the late release of a client's older claim has no effect"
    41 release_with_lost_reply release [S14 S19] Extended Shared [] "a release that lost its answer is tried again without harm"
    42 token_increases fencing [S12] Core Shared [] "a thousand grants, a thousand larger tokens"
    43 token_across_restart fencing [S12] Core Own [] "tokens go on growing after the server restarts"
    44 token_across_clients fencing [S12] Core Shared [] "tokens go on growing from client to client"
    45 token_unique_shared shared [S12 S13] Core Shared [] "co-holders have different tokens, and the earliest as floor"
    46 independent_keys queue [S1 S22] Core Shared [] "keys do not block each other"
    47 break_current breaking [S15] Core Shared [] "a break names what it removed, and the next is granted"
    48 break_wrong_token breaking [S15] Core Shared [] "a break that names nobody has no effect"
    49 break_shared_one breaking [S15] Core Shared [] "of several readers only the named one is broken"
    50 break_then_old_release breaking [S15 S14 S2] Core Shared [] "what a broken holder still sends changes nothing"
    51 inspect_holders_waiters inspecting [S21] Core Shared [Fair] "an inspection shows everybody in order"
    52 inspect_free inspecting [S21] Core Shared [] "an unused key is free"
    53 inspect_after_expiry inspecting [S21 S6] Core Shared [] "an inspection does not show what has expired"
    54 keys_of_all_kinds inspecting [S22] Core Shared [] "any UTF-8 is a key, and no two collide"
    55 same_client_twice exclusive [S1] Core Shared [] "a client that holds waits for itself"
    56 hundred_keys queue [S22] Core Shared [] "a hundred keys at once"
    57 thundering_herd queue [S5 S3] Core Shared [] "two hundred waiters on one key, each granted once"
    58 connection_cut_mid_acquire late [S2 S19] Extended Shared [] "a cut connection gives one grant or none"
    59 acquire_reply_lost late [S2] Extended Shared [] "an acquire that lost its answer and is asked again is one grant"
    60 late_acquire_is_gone late [S2] Core Shared [] "an acquire that arrives after its claim has ended leaves no ghost"
    61 restart_while_held outage [S12 S13 S11] Extended Own [] "after a restart one holds, and the gate knows which"
    62 restart_while_waiting outage [S19 S5] Extended Own [] "a wait outlives a restart, or ends with a clean error"
    63 overlap_is_fenced loss [S13] Core Shared [] "a paused holder's write is refused after its successor's"
    64 server_stands_still outage [S10 S20 S19] Extended Own [] "a server that stands still ends waits and holds in time"
    65 one_reader_partitioned shared [S10 S3 S11] Extended Shared [] "a reader that is cut off ends with its lease, and the others go on"
    66 waiter_partitioned late [S9 S2] Extended Shared [] "a waiter that is cut off lets others go ahead, and comes back"
    67 slow_network late [S10 S20] Extended Shared [] "no grant is handed out with its deadline in the past"
    68 clock_step_forward outage [S12 S13 S11] Extended Own [] "when the server's clock is set forward, one passes the gate"
    69 clock_step_back outage [S6 S12 S11] Extended Own [] "when the server's clock is set back, leases neither end early nor last for ever"
    70 close_ends_everything closing [S18 S11] Core Shared [] "closing a client releases, and ends what waits"
    101 takes_over_a_holder takeover [S16] Core Shared [] "the same owner takes its lock over, ahead of the queue"
    102 takes_over_a_waiter takeover [S16] Extended Shared [Fair] "the same owner takes its place in the queue over"
    103 a_try_replaces_nothing takeover [S16] Extended Shared [] "a try that is not granted takes nothing over"
    104 waits_when_others_hold takeover [S16] Extended Shared [] "a take-over beside other holders waits ahead of the queue"
    105 late_copy_evicts_nobody takeover [S16 S2] Extended Shared [] "a late copy of an old take-over does nothing"
    106 upgrade_waits converting [S17 S12] Core Shared [Convert] "an upgrade waits ahead of the queue, and nobody joins past it"
    107 second_upgrade_fails converting [S17] Core Shared [Convert] "a second upgrade fails at once"
    108 upgrade_times_out converting [S17 S20] Extended Shared [Convert] "an upgrade that is not granted leaves its holder as it was"
    109 upgrade_dropped converting [S17 S18] Extended Shared [Convert] "a dropped upgrade lets go"
    110 downgrade_admits converting [S17 S12] Core Shared [Convert] "a downgrade lets in whom it can"
    111 downgrade_to_permit converting [S17 S3] Extended Shared [Convert Permits] "a downgrade to a permit, and back"
    112 late_conversion converting [S17 S2] Extended Shared [Convert] "conversions are idempotent, and late ones do nothing"
    113 permits_bounded shared [S3] Core Shared [Permits] "no more permits than were asked for"
    114 permits_of_several_bounds shared [S3] Extended Shared [Permits] "the smallest bound among the holders wins"
    115 timeout_names_the_blocker inspecting [S20] Extended Shared [] "a timeout says who holds, and how many are ahead"
    116 list_keys inspecting [S21 S22] Extended Shared [List] "keys in use are listed, by their beginning"
    117 gate_admits_co_holders fencing [S13 S12] Core Shared [] "the gate lets legal co-holders pass, and nobody stale"
    118 handover_keeps_the_lease lease [S9] Core Shared [] "a hand-over starts on what is left of the waiter's lease"
    119 late_renewal renewal [S2 S7] Extended Shared [] "a late copy of an older renewal changes nothing"
    120 waiter_cannot_renew renewal [S7] Core Shared [] "only holders renew"
    121 break_owner breaking [S15] Extended Shared [] "all claims of an owner are broken"
    122 break_all breaking [S15] Extended Shared [] "holders and waiters are broken together"
    123 release_waiting_only release [S14 S20] Core Shared [] "a withdrawal finds a grant, and leaves it"
    124 same_claim_twice late [S2 S1] Core Shared [] "asking twice with one claim is asking once"
    125 late_requests_arrive late [S2 S18] Extended Shared [] "requests that arrive after their client gave up leave no ghost"
    126 unreachable_is_unavailable late [S19 S20] Extended Shared [] "without a server everything ends, and says so"
    127 try_never_overtakes queue [S4] Core Shared [Fair] "a try does not overtake the queue"
    128 fifo_history queue [S4 S5] Core Shared [Fair] "a random queue is served in order, and never sleeps"
    129 random_mix mix [S3 S12 S13 S18] Core Shared [] "many clients at random, and a history that explains itself"
    130 bad_arguments lease [S22 S19] Extended Shared [] "arguments outside their bounds are refused"
    131 max_hold lease [S6] Extended Shared [] "a longest hold ends the renewals"
    132 detach_and_resume renewal [S1 S7] Extended Shared [] "a claim moves to another client"
    133 run_ends_with_the_lock loss [S11 S18] Core Shared [] "work ends when its lock is lost"
    134 wait_free exclusive [S18] Extended Shared [] "waiting for a free lock does not keep it"
    135 client_outlived_by_guard closing [S18] Extended Shared [] "a guard keeps its client alive"
    136 autorenew_after_handover renewal [S9] Core Shared [] "a lock that was handed over is renewed from there"
    137 token_after_idle fencing [S12] Core Shared [] "tokens go on growing after the key was idle"
    138 lost_news_cost_a_heartbeat outage [S5] Core Shared [] "a grant whose message was lost is found at the next heartbeat"
    139 slow_answers deadline [S10] Core Shared [] "a deadline counts from before the request, however late the answer"
    140 slow_answers_at_handover deadline [S10 S9] Core Shared [] "a hand-over counts from the last answered request"
    141 held_until_the_successor deadline [S10 S6] Core Shared [] "nobody believes to hold beside a successor"
    142 late_answer_revives_nobody deadline [S10 S11] Core Shared [] "an answer after the deadline revives nobody"
    143 given_up_claims_stay_gone late [S2 S18] Extended Shared [] "late copies of requests that a client gave up find their claim gone"
    144 drop_without_a_server dropped [S18] Extended Shared [] "a guard that is dropped without a server is released when it is back"
    145 unheard_take_over takeover [S16] Extended Shared [] "a waiter that did not hear that it was replaced takes nothing back"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules that no scenario can show, and why.
    const NOT_SHOWN: &[(Rule, &str)] = &[];

    #[test]
    fn every_rule_is_shown() {
        for &rule in Rule::ALL {
            let shown = SCENARIOS.iter().any(|scenario| scenario.rules.contains(&rule));
            let excused = NOT_SHOWN.iter().any(|&(excused, _)| excused == rule);
            assert!(shown != excused, "{rule} ({}): shown: {shown}, excused: {excused}", rule.text());
        }
    }

    #[test]
    fn ids_grow_and_names_differ() {
        for pair in SCENARIOS.windows(2) {
            assert!(pair[0].id < pair[1].id, "{} before {}", pair[0].id, pair[1].id);
        }
        let mut names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(SCENARIOS.iter().all(|scenario| !scenario.rules.is_empty() && !scenario.says.is_empty()));
    }

    #[test]
    fn the_basic_scenarios_are_there() {
        let played = SCENARIOS.iter().filter(|scenario| scenario.id <= 60).count();
        assert!(played >= 45, "{played} of the first 60");
        assert_eq!(Scenario::of(7).map(Scenario::label).as_deref(), Some("s07_fifo_excl"));
    }
}
