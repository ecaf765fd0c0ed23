//! When a client renews what it holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lock_memory::MemoryBackend;
use lockcore::{ClaimId, LockBackend, Renewal};
use tokio::time::{Instant, sleep};

use crate::scripted::{Scripted, script};
use crate::{millis, secs};

/// By when, which claims were renewed.
type Renewed = Arc<Mutex<BTreeMap<Instant, Vec<ClaimId>>>>;

/// Holds 40 locks of 15 s that were acquired one after the other within 20 s, and then for a minute.
async fn held(joint_renewal: bool) -> Vec<Vec<ClaimId>> {
    let renewed = Renewed::default();
    let seen = renewed.clone();
    let mut scripted = Scripted::new(MemoryBackend::new());
    scripted.joint_renewal = joint_renewal;
    scripted.renew = Some(script(move |memory: Arc<MemoryBackend>, renewal: Renewal| {
        seen.lock().unwrap().entry(Instant::now()).or_default().push(renewal.claim.id());
        async move { memory.renew(vec![renewal]).await.remove(0) }
    }));
    let client = scripted.client();
    let mut guards = Vec::new();
    for key in 0..40 {
        guards
            .push(client.lock(format!("{key}")).unwrap().exclusive().ttl(secs(15)).acquire().await.unwrap());
        sleep(millis(500)).await;
    }
    let (begun, end) = (Instant::now() + secs(5), secs(60));
    sleep(secs(65)).await;
    assert!(guards.iter().all(lockcore::LockGuard::is_held));
    let renewed = renewed.lock().unwrap();
    renewed.range(begun..begun + end).map(|(_, claims)| claims.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn joint_renewals_of_all_claims_become_one_in_a_third_of_the_ttl() {
    let renewed = held(true).await;
    assert!(renewed.iter().all(|claims| claims.len() == 40), "all at once: {renewed:?}");
    // Every 4.5 to 5 s.
    assert!((12..=14).contains(&renewed.len()), "{} times", renewed.len());
}

#[tokio::test(start_paused = true)]
async fn other_renewals_do_not_come_all_at_once() {
    let renewed = held(false).await;
    assert!(renewed.iter().all(|claims| claims.len() < 20), "{renewed:?}");
    let all: usize = renewed.iter().map(Vec::len).sum();
    assert!((40 * 12..=40 * 14).contains(&all), "{all} in 60 s");
}
