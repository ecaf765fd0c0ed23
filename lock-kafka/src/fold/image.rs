//! Replicas and checkpoints: taking one, beginning with one, and comparing.

use std::collections::HashMap;

use lockcore::Key;
use lockcore::state::LockState;

use super::{HASHES, Replica, Tracked};
use crate::checkpoint::{Checkpoint, Image, Part};
use crate::errors::Halt;
use crate::record::Id;
use crate::what::Genesis;

impl Replica {
    /// The replica that a checkpoint shows.
    ///
    /// # Errors
    /// [`Halt::Diverged`] when it is not in itself right.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Replica, Halt> {
        let at_offset = checkpoint.at_offset;
        let image = checkpoint.image().ok_or(Halt::Diverged { at_offset })?;
        let Image { genesis, clock, last_token, counted, sessions, locks, leases } = image;
        let mut replica = Replica {
            genesis: Some(genesis),
            next: at_offset,
            clock,
            last_token,
            counted,
            sessions,
            ..Replica::default()
        };
        let mut leases: HashMap<_, _> = leases.into_iter().collect();
        for (text, image) in locks {
            let key = Key::new(text).map_err(|_| Halt::Diverged { at_offset })?;
            for claim in &image.claims {
                let lease = leases.remove(&claim.id).ok_or(Halt::Diverged { at_offset })?;
                replica.claims.insert(claim.id, Tracked { key: key.clone(), lease });
            }
            replica.locks.insert(key.clone(), LockState::of_image(&key, image).expiring_by_command());
        }
        Ok(replica)
    }

    /// What is known now, if the log has begun.
    pub(crate) fn image(&self) -> Option<Image> {
        let genesis = self.genesis.clone()?;
        let locks = self.locks.iter().map(|(key, state)| (key.as_str().to_owned(), state.image()));
        let mut leases: Vec<_> = self.claims.iter().map(|(&id, tracked)| (id, tracked.lease)).collect();
        leases.sort_unstable_by_key(|&(id, _)| id);
        Some(Image {
            genesis,
            clock: self.clock,
            last_token: self.last_token,
            counted: self.counted,
            sessions: self.sessions.clone(),
            locks: locks.collect(),
            leases,
        })
    }

    /// Where a checkpoint is due before the record at `offset`: forgets what is over, and takes it.
    pub(super) fn look_back(&mut self, offset: u64) -> Option<Checkpoint> {
        let genesis = self.genesis.as_ref()?;
        let every = genesis.checkpoint_every.get();
        let at_offset = offset / every * every;
        if at_offset < self.next {
            return None;
        }
        self.sessions.forget(at_offset, genesis.window);
        let (now, mut none) = (self.clock.now, Vec::new());
        self.locks.retain(|_, state| {
            state.expire(now, &mut none);
            !state.is_idle()
        });
        let checkpoint = Checkpoint::new(at_offset, &self.image()?);
        self.hashes.push_back((at_offset, checkpoint.hash));
        if self.hashes.len() > HASHES {
            self.hashes.pop_front();
        }
        Some(checkpoint)
    }

    /// A part of a checkpoint that somebody took: with its last part it counts if it is newer than the last that did, and must
    /// be what was found here.
    pub(super) fn compare(
        &mut self,
        offset: u64,
        session: Id,
        part: &Part,
        genesis: &Genesis,
    ) -> Result<(), Halt> {
        let at_offset = part.at_offset;
        let is_due = at_offset.is_multiple_of(genesis.checkpoint_every.get()) && at_offset <= offset;
        let progress = self.sessions.writes(session, part);
        if !is_due || !progress.is_some_and(|progress| progress.is_whole()) {
            return Ok(());
        }
        // Whoever began later than at this offset cannot tell. Compared is what does not count as well: that it is not the
        // first may be a mistake of one's own.
        let found = self.hashes.iter().find(|&&(at, _)| at == at_offset).map(|&(_, hash)| hash);
        if found.is_some_and(|found| found != part.hash) {
            return Err(Halt::Diverged { at_offset });
        }
        if at_offset <= self.counted {
            return Ok(());
        }
        self.counted = at_offset;
        if found.is_some() {
            self.agreed.push_back(at_offset);
            if self.agreed.len() > 2 {
                self.agreed.pop_front();
            }
        } else {
            self.agreed.clear();
        }
        Ok(())
    }

    /// Up to where the log is not needed any more: the newest two checkpoints agree with what was found here, and whoever
    /// begins with the older one can check the newer. The record before that one stays: it tells whose the checkpoint is.
    pub(crate) fn deletable(&self) -> Option<u64> {
        let older = self.agreed.front().filter(|_| self.agreed.len() == 2);
        older.map(|at_offset| at_offset.saturating_sub(1))
    }
}
