//! The memory server itself.

use lock_memory::MemoryServer;
use lockcore::{LockClient, PageToken, Renew};
use tokio::time::sleep;

use crate::secs;

/// S6: what has expired is removed before any rule is applied, listing included.
#[tokio::test(start_paused = true)]
async fn an_expired_key_is_not_listed() {
    let server = MemoryServer::new();
    let locks = LockClient::new(server.client());
    let _guard =
        locks.lock("k").unwrap().exclusive().renew(Renew::Manual).ttl(secs(1)).acquire().await.unwrap();
    for expected in [1, 0] {
        let (mut keys, mut page) = (0, Some(PageToken::default()));
        while let Some(from) = page {
            let some = locks.list("", from).await.unwrap();
            keys += some.keys.len();
            page = some.next;
        }
        assert_eq!(keys, expected);
        sleep(secs(2)).await;
    }
}
