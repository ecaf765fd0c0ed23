//! Random histories of one partition: what several clients say, in whatever order it reaches the log.

use std::collections::BTreeMap;

use lockcore::ClaimId;

use super::oracle::{Appended, Oracle};
use super::speaker::{Speaker, View};
use crate::checkpoint::Checkpoint;
use crate::fold::Replica;
use crate::log::Entry;
use crate::record::{Id, Read, Record};
use crate::what::{Genesis, What};

const SPEAKERS: usize = 3;
const RECORDS: u64 = 60;
const SECOND: u64 = 1_000_000;

/// A record that was sent, and may reach the log more than once.
struct Flying {
    sent: u64,
    record: Record,
    appended: bool,
}

struct World {
    random: fastrand::Rng,
    /// True time in microseconds, and how far the broker's clock is from it.
    now: u64,
    skew: u64,
    flying: Vec<Flying>,
    log: Vec<(Entry, Read)>,
    appended_at: BTreeMap<u64, u64>,
    replica: Replica,
    checkpoints: Vec<Checkpoint>,
    oracle: Oracle,
}

fn genesis(random: &mut fastrand::Rng) -> Genesis {
    Genesis {
        incarnation: Id::from_bits(1),
        partitions: 1,
        partition: 0,
        margin_us: 2 * SECOND,
        grace_us: 2 * SECOND,
        step_us: random.u64(1..10) * SECOND,
        checkpoint_every: random.u64(8..30).try_into().unwrap(),
        window: random.u64(16..100),
    }
}

/// What a history amounts to.
#[derive(Default)]
struct Told {
    grants: usize,
    lapses: usize,
    checkpoints: usize,
}

fn play(seed: u64) -> Result<Told, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let genesis = genesis(&mut random);
    // Some are rash, and some have brokers whose clocks are set forward: nobody's belief is protected by the log then.
    let (rash, steps) = (random.u8(..4) == 0, random.u8(..4) == 0);
    let now = 1_700_000_000 * SECOND;
    let mut world = World {
        oracle: Oracle::new(genesis.clone(), now, !rash && !steps),
        random,
        now,
        skew: 0,
        flying: Vec::new(),
        log: Vec::new(),
        appended_at: BTreeMap::new(),
        replica: Replica::default(),
        checkpoints: Vec::new(),
    };
    let begin = Record::new(Id::from_bits(1), 0, What::Genesis(genesis));
    world.append(&begin.encode(), Some((&begin, now)))?;
    let mut speakers: Vec<Speaker> = (0..SPEAKERS).map(|_| Speaker::new(&mut world.random)).collect();
    for speaker in &speakers {
        let record = speaker.opens(1);
        world.append(&record.encode(), Some((&record, now)))?;
    }
    while world.end() < RECORDS {
        world.time_passes(steps);
        let speaker = &mut speakers[world.random.usize(..SPEAKERS)];
        match world.random.u8(..12) {
            0..6 => {
                world.somebody_speaks(speaker, rash);
                // Most records go straight into the log.
                if world.random.u8(..5) > 0 {
                    world.arrives(world.flying.len() - 1)?;
                }
            }
            6..10 if !world.flying.is_empty() => {
                let which = world.random.usize(..world.flying.len());
                world.arrives(which)?;
            }
            10 if world.random.u8(..3) == 0 => {
                let end = world.end() - world.random.u64(..world.end().min(8));
                let record = if world.random.bool() {
                    speaker.says(What::Close)
                } else {
                    speaker.reopens(&mut world.random, end)
                };
                world.send(record);
                world.arrives(world.flying.len() - 1)?;
            }
            11 if world.random.u8(..4) == 0 => world.append(b"{\"identifier\":\"somebody else's\"}", None)?,
            _ => {}
        }
    }
    world.all_agree()?;
    let Oracle { grants, lapses, .. } = world.oracle;
    Ok(Told { grants, lapses, checkpoints: world.checkpoints.len() })
}

impl World {
    fn end(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap()
    }

    fn time_passes(&mut self, steps: bool) {
        self.now += match self.random.u8(..10) {
            0..3 => 0,
            3..9 => self.random.u64(..SECOND),
            _ => self.random.u64(..20 * SECOND),
        };
        if self.random.u8(..10) == 0 {
            // Another broker leads; its clock is within the margin of the others.
            self.skew = self.random.u64(..2 * SECOND);
        }
        if steps && self.random.u8(..20) == 0 {
            self.skew = 3600 * SECOND;
        }
    }

    fn somebody_speaks(&mut self, speaker: &mut Speaker, rash: bool) {
        let flying = &self.flying;
        let unanswered = |id: ClaimId| {
            flying.iter().any(|flying| {
                !flying.appended && matches!(&flying.record.what, What::Acquire(join) if join.claim == id)
            })
        };
        let view = View {
            replica: &self.replica,
            checkpoint: self.checkpoints.last(),
            overdue: self.oracle.overdue(self.now, &self.appended_at),
            rash,
            unanswered: &unanswered,
        };
        let record = speaker.speaks(&view, &mut self.random);
        if let What::Release(let_go) = &record.what
            && !let_go.only_waiting
        {
            self.oracle.leaves(let_go.claim, self.now);
        }
        self.send(record);
    }

    fn send(&mut self, record: Record) {
        self.flying.push(Flying { sent: self.now, record, appended: false });
    }

    /// One of the records that are under way reaches the log; a copy of it may come later.
    fn arrives(&mut self, which: usize) -> Result<(), String> {
        let again = self.random.u8(..3) == 0;
        if self.random.u8(..12) == 0 {
            self.flying.swap_remove(which);
            return Ok(());
        }
        self.flying[which].appended = true;
        let (record, sent) = (self.flying[which].record.clone(), self.flying[which].sent);
        if !again {
            self.flying.swap_remove(which);
        }
        self.append(&record.encode(), Some((&record, sent)))
    }

    fn append(&mut self, bytes: &[u8], written: Option<(&Record, u64)>) -> Result<(), String> {
        let (offset, stamp) = (self.end(), (self.now + self.skew) / 1000 * 1000);
        let entry = Entry { offset, stamp, bytes: bytes.to_vec() };
        let read = Record::decode(bytes).map_err(|halt| halt.to_string())?;
        let folded = self.replica.apply_read(offset, stamp, &read).map_err(|halt| halt.to_string())?;
        self.log.push((entry, read));
        self.appended_at.insert(offset, self.now);
        if let Some(checkpoint) = &folded.checkpoint {
            self.checkpoints.push(checkpoint.clone());
        }
        let (record, sent) = written.map_or((None, self.now), |(record, sent)| (Some(record), sent));
        let at = Appended { offset, stamp, record, sent, now: self.now };
        let seen = self.oracle.looks(&at, &folded, &self.replica);
        seen.map_err(|wrong| format!("{wrong}\n{}", self.shown()))
    }

    /// Whoever reads the log again, from its beginning or from a checkpoint, comes to the same state.
    fn all_agree(&mut self) -> Result<(), String> {
        let image = self.replica.image();
        // To read all of them again takes the most time: usually it is one.
        let all = self.random.u8(..8) == 0;
        let chosen = self.random.usize(..self.checkpoints.len().max(1));
        let begins = self.checkpoints.iter().enumerate().filter(|&(which, _)| all || which == chosen);
        for from in std::iter::once(None).chain(begins.map(|(_, checkpoint)| Some(checkpoint))) {
            let mut replica = match from {
                None => Replica::default(),
                Some(checkpoint) => Replica::of(checkpoint).map_err(|halt| halt.to_string())?,
            };
            let next = usize::try_from(replica.next()).unwrap();
            for (entry, read) in &self.log[next..] {
                let applied = if all {
                    replica.apply(entry)
                } else {
                    replica.apply_read(entry.offset, entry.stamp, read)
                };
                applied.map_err(|halt| format!("{halt}\n{}", self.shown()))?;
            }
            if replica.image() != image {
                return Err(format!("from {from:?} it comes to {:?}\n{}", replica.image(), self.shown()));
            }
        }
        Ok(())
    }

    fn shown(&self) -> String {
        let line = |(entry, _): &(Entry, Read)| {
            let at = self.appended_at.get(&entry.offset).copied().unwrap_or_default();
            let text = String::from_utf8_lossy(&entry.bytes);
            format!("{} {at} {} {text:.600}", entry.offset, entry.stamp)
        };
        self.log.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn all_who_read_a_log_agree_and_nothing_comes_back() {
    let seeds = super::seeds(0..10_000);
    // On two cores, since the many are what takes time.
    let half = |odd: u64| {
        let mut all = Told::default();
        for seed in seeds.clone().filter(|seed| seed % 2 == odd) {
            match play(seed) {
                Ok(told) => {
                    all.grants += told.grants;
                    all.lapses += told.lapses;
                    all.checkpoints += told.checkpoints;
                }
                Err(wrong) => {
                    panic!(
                        "{wrong}\n  again: SEED={seed} cargo test -p lock-kafka --lib -- all_who_read_a_log"
                    )
                }
            }
        }
        println!("{} grants, {} leases ended, {} checkpoints", all.grants, all.lapses, all.checkpoints);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| half(0));
        half(1);
    });
}
