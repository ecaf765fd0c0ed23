//! The task that makes the connection, and makes it again whenever it fails.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lockcore::ErrorKind;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, Value};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::checks;
use crate::errors::Trouble;
use crate::link::{Link, Live, closed, lock};

/// The first and the longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(10);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Enough that a crowd of tasks need not queue to get into the queue.
const REQUESTS_QUEUED: usize = 4096;

impl Link {
    /// Makes a connection, checks the server, loads the scripts, subscribes: all of it or nothing.
    pub(crate) async fn connect(&self) -> Result<(), Trouble> {
        let address = self.target.address();
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let link = self.this.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.target.connect_timeout))
            .set_response_timeout(Some(self.target.request_timeout))
            .set_pipeline_buffer_size(REQUESTS_QUEUED)
            .set_push_sender(move |push: PushInfo| {
                let Some(link) = link.upgrade() else { return Err(()) };
                link.pushed(number, &push);
                Ok(())
            });
        let attempt = async {
            let failed = |error| Trouble::connecting(self.target.client.get_connection_info().addr(), error);
            let mut connection = self
                .target
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(failed)?;
            let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(failed)?;
            checks::check(&info, &address)?;
            if let Some(restart) = &self.target.restart {
                restart.look(&info, &address)?;
            }
            let mut pipeline = Pipeline::new();
            for operation in self.scripts.all() {
                pipeline.cmd("SCRIPT").arg("LOAD").arg(&operation.code).ignore();
            }
            pipeline.query_async::<()>(&mut connection).await.map_err(failed)?;
            if let Some(channel) = &self.channel {
                connection.subscribe(channel).await.map_err(failed)?;
            }
            Ok(connection)
        };
        let silent = || Trouble::new(ErrorKind::Unavailable, format!("{address} does not answer"));
        let connection = timeout(self.target.connect_timeout, attempt).await.map_err(|_| silent())??;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        *live = Some(Live { connection, number });
        Ok(())
    }

    /// Starts the task that replaces a failed connection, also when the runtime that it ran on is gone.
    pub(crate) fn ensure_keeper(&self) {
        let mut keeper = lock(&self.keeper);
        if keeper.as_ref().is_none_or(JoinHandle::is_finished)
            && let (Ok(runtime), Some(link)) = (Handle::try_current(), self.this.upgrade())
        {
            *keeper = Some(runtime.spawn(keep(link)));
        }
    }

    /// Whether the connection answers, and answers what it was asked.
    async fn is_alive(&self, live: &mut Live) -> bool {
        let word = fastrand::u64(..).to_string();
        let mut ping = redis::cmd("PING");
        ping.arg(&word);
        matches!(live.connection.send_packed_command(&ping).await,
            Ok(Value::BulkString(echo)) if echo == word.as_bytes())
    }
}

/// Replaces the connection whenever it is lost or does not answer, for ever.
async fn keep(link: Arc<Link>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(mut live) = link.current() else {
            match link.connect().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    link.attempts.send_replace(None);
                    // Messages may have been missed.
                    link.registry.everybody_look();
                }
                Err(trouble) => {
                    tracing::debug!(address = link.target.address(), ?trouble, "cannot connect");
                    link.attempts.send_replace(Some(trouble));
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
            continue;
        };
        link.wake.notified().await;
        if link.suspect.swap(false, Ordering::AcqRel) && !link.is_alive(&mut live).await {
            link.lost(live.number);
        }
    }
}
