//! How a client begins with a partition that has a past.
//!
//! It takes the second-newest checkpoint and folds on from there; on the way it comes to where the newest was taken, and
//! compares. So what it begins with was found by somebody else as well, and a checkpoint that is wrong is noticed.
//!
//! It knows no sessions yet, and so not whether a checkpoint counts: one that was copied from another log must not be taken
//! for one of this log, whose holders it does not have. It shows the stamp of the record before it, which is another one here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::checkpoint::{Checkpoint, Part, Progress};
use crate::errors::Halt;
use crate::fold::Replica;
use crate::log::{Batch, Bounds, Log, Reader};
use crate::record::{Id, Read, Record};
use crate::what::{Genesis, What};

/// How much of the end of the log is searched first for two checkpoints; then twice as much, and so on.
const FIRST_SEARCH: u64 = 4096;

/// The log as it was when this began.
pub(crate) struct Begun {
    pub(crate) replica: Replica,
    /// What goes on where this has ended.
    pub(crate) reader: Box<dyn Reader>,
    /// How far it was read.
    pub(crate) read: u64,
}

/// A replica of the log as it is now.
pub(crate) async fn begin(log: &Arc<dyn Log>) -> Result<Begun, Halt> {
    let (mut tries, mut start) = (0, None);
    while tries < TRIES {
        let bounds = bounds(log).await;
        // In a log in which much is written this may happen many times.
        let is_shorter = start.replace(bounds.start).is_some_and(|before| before < bounds.start);
        tries = if is_shorter { 1 } else { tries + 1 };
        match try_begin(log, bounds).await {
            // Perhaps it was deleted while it was searched.
            Err(Halt::Missing) => sleep(AGAIN).await,
            begun => return begun,
        }
    }
    Err(Halt::Missing)
}

/// How often a log whose beginning is away, and stays where it is, is searched again.
const TRIES: usize = 5;

/// A broker that is away is asked again after this time.
const AGAIN: Duration = Duration::from_millis(200);

/// As [`begin`], of a log that has begun: whoever comes first to an empty one begins it.
pub(crate) async fn begin_or_found(log: &Arc<dyn Log>, genesis: &Genesis) -> Result<Begun, Halt> {
    /// When a genesis record that was not read is sent once more; a second one does not count.
    const AGAIN_AFTER: Duration = Duration::from_secs(2);
    let mut begun = begin(log).await?;
    while begun.replica.genesis().is_none() {
        drop(log.append(None, Record::new(Id::random(), 0, What::Genesis(genesis.clone())).encode()));
        let sent = Instant::now();
        while begun.replica.genesis().is_none() {
            match timeout_at(sent + AGAIN_AFTER, begun.reader.next()).await {
                Ok(batch) => begun.take_in(&batch?)?,
                Err(_) => break,
            }
        }
    }
    Ok(begun)
}

impl Begun {
    fn take_in(&mut self, batch: &Batch) -> Result<(), Halt> {
        for entry in &batch.entries {
            // One that was compacted still begins at 0, and has no record there: not the one by which others go, but perhaps another
            // one behind it that would be taken for that.
            if self.replica.next() == 0 && entry.offset > 0 {
                return Err(Halt::Missing);
            }
            self.replica.apply(entry)?;
        }
        self.read = self.read.max(batch.next);
        Ok(())
    }
}

async fn try_begin(log: &Arc<dyn Log>, bounds: Bounds) -> Result<Begun, Halt> {
    let replica = match find(log, bounds).await? {
        Some(checkpoint) => Replica::of(&checkpoint)?,
        None if bounds.start == 0 => Replica::default(),
        None => return Err(Halt::Missing),
    };
    let (reader, read) = (log.reader(replica.next()), replica.next());
    let mut begun = Begun { replica, reader, read };
    // The last of what is there may be no record.
    while begun.read < bounds.end {
        let batch = begun.reader.next().await?;
        begun.take_in(&batch)?;
    }
    Ok(begun)
}

async fn bounds(log: &Arc<dyn Log>) -> Bounds {
    loop {
        match log.bounds().await {
            Ok(bounds) => return bounds,
            Err(error) => tracing::debug!(error, "the log does not say where it ends, asking again"),
        }
        sleep(AGAIN).await;
    }
}

/// The second-newest checkpoint of those that can be begun with. With only one, there is none to check it by; then it is
/// taken if the log begins too late for anything else.
async fn find(log: &Arc<dyn Log>, bounds: Bounds) -> Result<Option<Checkpoint>, Halt> {
    let mut length = FIRST_SEARCH;
    loop {
        let from = bounds.end.saturating_sub(length).max(bounds.start);
        let mut found = search(log, from, bounds).await?;
        let is_all = from == bounds.start;
        if found.len() >= 2 {
            found.pop();
            return Ok(found.pop());
        }
        if is_all {
            return Ok(if bounds.start == 0 { None } else { found.pop() });
        }
        length = length.saturating_mul(2);
    }
}

/// The newest two checkpoints of the log from this offset on, by where they were taken.
async fn search(log: &Arc<dyn Log>, from: u64, bounds: Bounds) -> Result<Vec<Checkpoint>, Halt> {
    let mut newest: Vec<Checkpoint> = Vec::new();
    let mut writers: HashMap<Id, Writer> = HashMap::new();
    let mut stamps = Stamps { is_all: from == bounds.start, stamps: Vec::new() };
    let (mut reader, mut read) = (log.reader(from), from);
    while read < bounds.end {
        let Batch { entries, next, .. } = reader.next().await?;
        read = read.max(next);
        for entry in entries {
            if may_be_of_checkpoint(&entry.bytes)
                && let Read::Record(record) = Record::decode(&entry.bytes)?
                && let What::Checkpoint(part) = record.what
                && let Some(checkpoint) = writers.entry(record.session).or_default().reads(record.seq, &part)
                && checkpoint.at_offset >= bounds.start
                && newest.iter().all(|known| known.at_offset < checkpoint.at_offset)
                && stamps.are_of(&checkpoint)
            {
                newest.push(checkpoint);
                if newest.len() > 2 {
                    newest.remove(0);
                }
            }
            stamps.stamps.push((entry.offset, entry.stamp));
        }
    }
    Ok(newest)
}

/// Most records are not, and need not be read for that.
fn may_be_of_checkpoint(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"checkpoint\""))
}

/// The stamps of what was read, in the order of the log.
struct Stamps {
    /// Whether nothing lies before the first of them.
    is_all: bool,
    stamps: Vec<(u64, u64)>,
}

impl Stamps {
    /// Whether this checkpoint was taken in this log, as far as what was read tells.
    fn are_of(&self, checkpoint: &Checkpoint) -> bool {
        let before = self.stamps.partition_point(|&(offset, _)| offset < checkpoint.at_offset);
        // It is written after the record that it was taken before.
        if before == self.stamps.len() {
            return false;
        }
        match before.checked_sub(1).map(|last| self.stamps[last].1) {
            Some(stamp) => checkpoint.image().is_some_and(|image| image.clock.stamp == stamp),
            None => self.is_all,
        }
    }
}

/// A session that writes checkpoints, as whoever does not know the sessions can follow it.
#[derive(Default)]
struct Writer {
    seq: u64,
    progress: Option<Progress>,
    state: String,
}

impl Writer {
    /// Takes in the next part; the checkpoint, if it was the last one.
    fn reads(&mut self, seq: u64, part: &Part) -> Option<Checkpoint> {
        // A late copy does not count.
        if seq <= self.seq {
            return None;
        }
        self.seq = seq;
        self.progress = Progress::with(self.progress, part);
        if part.number == 0 || self.progress.is_none() {
            self.state.clear();
        }
        let progress = self.progress?;
        self.state.push_str(&part.state);
        if !progress.is_whole() {
            return None;
        }
        let Part { at_offset, hash, .. } = *part;
        Some(Checkpoint { at_offset, hash, state: std::mem::take(&mut self.state) })
    }
}
