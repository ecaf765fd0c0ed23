//! When a client renews what it holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_memory::MemoryBackend;
use lockcore::{Key, LockBackend, LockGuard, Renewal};
use tokio::time::{Instant, sleep};

use crate::scripted::{Scripted, away, script};
use crate::{millis, secs};

/// Which keys were renewed, when.
type Renewed = Arc<Mutex<BTreeMap<Instant, Vec<usize>>>>;

/// Holds 40 locks that were acquired one after the other within 20 s, and then for a minute.
async fn held(group: fn(&Key) -> Option<usize>, ttl: fn(usize) -> Duration) -> Vec<Vec<usize>> {
    let renewed = Renewed::default();
    let seen = renewed.clone();
    let mut scripted = Scripted::new(MemoryBackend::new());
    scripted.group = group;
    scripted.renew = Some(script(move |memory: Arc<MemoryBackend>, renewal: Renewal| {
        let key = renewal.claim.key().as_str().parse().unwrap();
        seen.lock().unwrap().entry(Instant::now()).or_default().push(key);
        async move { memory.renew(vec![renewal]).await.remove(0) }
    }));
    let client = scripted.client();
    let mut guards = Vec::new();
    for key in 0..40 {
        let lock = client.lock(format!("{key}")).unwrap();
        guards.push(lock.exclusive().ttl(ttl(key)).acquire().await.unwrap());
        sleep(millis(500)).await;
    }
    let (begun, end) = (Instant::now() + secs(5), secs(60));
    sleep(secs(65)).await;
    assert!(guards.iter().all(LockGuard::is_held));
    let renewed = renewed.lock().unwrap();
    renewed.range(begun..begun + end).map(|(_, keys)| keys.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn all_claims_of_a_group_are_renewed_at_once_in_a_third_of_the_ttl() {
    let renewed = held(|_| Some(1), |_| secs(15)).await;
    assert!(renewed.iter().all(|keys| keys.len() == 40), "all at once: {renewed:?}");
    // Every 4.5 to 5 s.
    assert!((12..=14).contains(&renewed.len()), "{} times", renewed.len());
}

#[tokio::test(start_paused = true)]
async fn without_a_group_renewals_do_not_come_all_at_once() {
    let renewed = held(|_| None, |_| secs(15)).await;
    assert!(renewed.iter().all(|keys| keys.len() < 20), "{renewed:?}");
    let all: usize = renewed.iter().map(Vec::len).sum();
    assert!((40 * 12..=40 * 14).contains(&all), "{all} in 60 s");
}

/// Claims of short leases come often; those of long ones do not come along.
#[tokio::test(start_paused = true)]
async fn a_longer_lease_is_not_renewed_as_often_as_a_shorter_one() {
    let renewed = held(|_| Some(1), |key| if key % 2 == 0 { secs(3) } else { secs(60) }).await;
    let long = renewed.iter().flatten().filter(|&&key| key % 2 == 1).count();
    // 20 of them every 18 to 20 s.
    assert!((20 * 3..=20 * 4).contains(&long), "{long} in 60 s");
}

/// Whatever becomes of one group, the others are renewed.
#[tokio::test(start_paused = true)]
async fn a_group_out_of_reach_does_not_take_another_along() {
    let mut scripted = Scripted::new(MemoryBackend::new());
    scripted.group = |key| Some(key.as_str().len());
    scripted.renew = Some(script(async |memory: Arc<MemoryBackend>, renewal: Renewal| {
        if renewal.claim.key().as_str() == "away" {
            sleep(secs(1000)).await;
            return Err(away());
        }
        memory.renew(vec![renewal]).await.remove(0)
    }));
    let client = scripted.client();
    let hold = async |key| client.lock(key).unwrap().exclusive().ttl(secs(10)).acquire().await.unwrap();
    let (one, other) = (hold("away").await, hold("here").await);
    let third = hold("k").await;
    sleep(secs(30)).await;
    assert!(!one.is_held() && !other.is_held(), "their group is out of reach");
    assert!(third.is_held());
}
