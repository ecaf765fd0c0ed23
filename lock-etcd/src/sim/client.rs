//! The connection of one client to a [`SimKv`]: what becomes of its requests, and of what it watches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_conformance::simulation::Switch;
use lockcore::ErrorKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::kv::SimKv;
use crate::errors::Trouble;
use crate::link::{News, Server, Watch};
use crate::txn::{Answer, Txn};

/// The connection of one client.
#[derive(Clone)]
pub(super) struct SimClient {
    kv: Arc<SimKv>,
    random: Arc<Mutex<fastrand::Rng>>,
    /// Whether the process goes on.
    goes_on: Switch,
}

/// What happens to a request.
#[derive(Default)]
struct Fate {
    there: Duration,
    back: Duration,
    end: End,
    /// When the connection breaks, for the client.
    breaks: Option<Duration>,
    /// It is taken back when its client gives up before it is done.
    may_be_cancelled: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Answered,
    AnswerLost,
    NeverDone,
    NeverSent,
}

impl SimClient {
    pub(super) fn new(kv: &Arc<SimKv>, random: fastrand::Rng, goes_on: Switch) -> SimClient {
        SimClient { kv: kv.clone(), random: Arc::new(Mutex::new(random)), goes_on }
    }

    fn fate(&self) -> Fate {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = |random: &mut fastrand::Rng, most: u64| Duration::from_millis(random.u64(0..=most));
        if !self.kv.is_chaos() {
            return Fate { there: millis(&mut random, 2), back: millis(&mut random, 2), ..Fate::default() };
        }
        let mut fate =
            Fate { there: millis(&mut random, 5), back: millis(&mut random, 5), ..Fate::default() };
        match random.u8(..100) {
            0..12 => fate.there = millis(&mut random, 1000),
            12..16 => fate.there = millis(&mut random, 15_000),
            16..22 => fate.back = millis(&mut random, 4000),
            22..26 => fate.end = End::AnswerLost,
            26..29 => fate.end = End::NeverDone,
            29..31 => fate.end = End::NeverSent,
            _ => {}
        }
        if random.u8(..100) < 5 {
            fate.breaks = Some(millis(&mut random, 50));
        }
        fate.may_be_cancelled = random.bool();
        fate
    }

    async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&SimKv) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let fate = self.fate();
        if fate.end == End::NeverSent {
            return Err(Trouble::new(ErrorKind::Unavailable, "tcp connect error"));
        }
        let (tell, told) = oneshot::channel();
        let (kv, goes_on) = (self.kv.clone(), self.goes_on.clone());
        tokio::spawn(async move {
            // A process that stands still neither sends nor reads.
            goes_on.on().await;
            sleep(fate.there).await;
            if fate.end == End::NeverDone || (fate.may_be_cancelled && tell.is_closed()) {
                return;
            }
            let answer = act(&kv);
            if fate.end == End::AnswerLost {
                return;
            }
            sleep(fate.back).await;
            goes_on.on().await;
            // The client may have given up.
            drop(tell.send(answer));
        });
        let broken = async {
            match fate.breaks {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = told => match answer {
                Ok(answer) => answer,
                Err(_) => std::future::pending().await,
            },
            () = broken => Err(Trouble::new(ErrorKind::Indeterminate, "connection reset")),
        }
    }
}

#[async_trait]
impl Server for SimClient {
    async fn txn(&self, txn: Txn) -> Result<Answer, Trouble> {
        self.ask(move |kv| kv.txn(txn)).await
    }

    async fn grant(&self, id: i64, seconds: i64) -> Result<i64, Trouble> {
        self.ask(move |kv| kv.with_store(|store, now| store.grant(id, seconds, now))).await
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, Trouble> {
        self.ask(move |kv| Ok(kv.with_store(|store, now| store.keep_alive(lease, now)))).await
    }

    async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        let revoked = self.ask(move |kv| Ok(kv.with_store(|store, _| store.revoke(lease)))).await?;
        if revoked { Ok(()) } else { Err(Trouble::lease_gone()) }
    }

    async fn time_to_live(&self, lease: i64) -> Result<i64, Trouble> {
        self.ask(move |kv| Ok(kv.with_store(|store, now| store.time_to_live(lease, now)))).await
    }

    async fn watch(&self, beginning: String) -> Result<Box<dyn Watch>, Trouble> {
        let (tell, told) = mpsc::unbounded_channel();
        self.ask(move |kv| {
            kv.watch(beginning, tell);
            Ok(())
        })
        .await?;
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
        Ok(Box::new(SimWatch { client: self.clone(), told, random, next: None, breaks: None }))
    }
}

/// An open watch.
struct SimWatch {
    client: SimClient,
    told: mpsc::UnboundedReceiver<News>,
    random: fastrand::Rng,
    /// What comes next, and when. Held here, so that dropping the future loses nothing.
    next: Option<(Instant, News)>,
    breaks: Option<Instant>,
}

#[async_trait]
impl Watch for SimWatch {
    async fn next(&mut self) -> Result<Vec<News>, Trouble> {
        let chaos = self.client.kv.is_chaos();
        let random = &mut self.random;
        let breaks = *self.breaks.get_or_insert_with(|| {
            Instant::now() + Duration::from_millis(if chaos { random.u64(100..20_000) } else { 1 << 40 })
        });
        if self.next.is_none() {
            let news = tokio::select! {
                biased;
                () = sleep_until(breaks), if chaos => None,
                news = self.told.recv() => news,
            };
            let Some(news) = news else {
                self.told.close();
                return Err(Trouble::new(ErrorKind::Unavailable, "the watch was cancelled"));
            };
            let late = match random.u8(..10) {
                0 if chaos => random.u64(..3000),
                _ => random.u64(..5),
            };
            self.next = Some((Instant::now() + Duration::from_millis(late), news));
        }
        if let Some((at, _)) = &self.next {
            sleep_until(*at).await;
        }
        self.client.goes_on.on().await;
        Ok(self.next.take().map(|(_, news)| news).into_iter().collect())
    }
}
