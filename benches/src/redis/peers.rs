//! The bare operations of a server: what a lock could cost at best.

use lockcore::Mode;
use redis::aio::MultiplexedConnection;

use crate::Result;
use crate::worker::{Contender, Worker};

/// The floor of an uncontended lock: `SET NX PX`, then a script that deletes its own value.
pub(crate) struct Pair {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) sha: String,
}

/// The release of a bare lock.
pub(crate) const DELETE_OWN: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

impl Contender for Pair {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(&self.value).arg("NX").arg("PX").arg(30_000);
        let granted: Option<String> = set.query_async(&mut self.connection).await?;
        if granted.is_none() {
            return Err("the bare lock was taken".into());
        }
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        let mut release = redis::cmd("EVALSHA");
        release.arg(&self.sha).arg(1).arg(&self.key).arg(&self.value);
        let deleted: u64 = release.query_async(&mut self.connection).await?;
        if deleted != 1 {
            return Err("the bare lock was gone".into());
        }
        worker.has_left();
        Ok(())
    }
}

/// The floor of a hand-over: a token in a list. Each worker waits on a connection of its own.
pub(crate) struct Token {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) list: String,
}

impl Contender for Token {
    async fn turn(&mut self, mode: Mode, worker: &mut Worker) -> Result<()> {
        worker.asks(mode);
        let mut take = redis::cmd("BLPOP");
        take.arg(&self.list).arg(0);
        let _taken: (String, String) = take.query_async(&mut self.connection).await?;
        worker.granted(0, 0);
        worker.hold().await;
        worker.leaves();
        let mut give = redis::cmd("RPUSH");
        give.arg(&self.list).arg("token");
        let _length: u64 = give.query_async(&mut self.connection).await?;
        worker.has_left();
        Ok(())
    }
}
