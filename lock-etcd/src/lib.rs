//! The etcd backend of fencelock: locks on one etcd cluster, 3.4 or newer.
//!
//! # The protocol
//! **Keys.** A claim is one key: `lock/<key>/~x/<client>.<slot>` (exclusive), `~s/` (shared) or `~p/` (permit), by the mode that
//! it joined with. Its value (JSON, see `record`) has its id, what it is now and whether it is *granted*; the lease that it lies on
//! is its lease. `~u/<client>.<slot>` marks a claim that stands out of turn, an upgrade or a take-over, and lives and ends with
//! it. `~d/<id>` remembers for an hour that a claim has ended.
//!
//! **Names are used again** (`slots`), because etcd goes past every name that was ever used until it is compacted: one slot of a
//! client on a lock is for one claim at a time. Only two requests go by the name alone, the join (which compares that the key is not
//! there) and the client's own release. A slot is free again when its claim was released and every one of them was answered; else
//! it is spoilt for ever. All other writes compare the mod revision, which no key ever has twice.
//!
//! **Order.** Claims stand in the order of their create revisions, or at a place that was taken over. Who is next is decided by
//! `view`, as `LockState` decides it.
//!
//! **The join** is one transaction. Shared: are `~p/`, `~u/` and `~x/` empty? Exclusive: is everything empty? Then the claim is put
//! as granted, else as queued (a try: not at all). It also compares that its key is not there and its id not remembered as ended.
//! An uncontended acquire, and its release, is one request each: what is to be done else is sent only where others were seen a
//! short while ago (`front`), or after a refusal. A claim belongs to the client that asks for it: asked for by another one as
//! well, it would be two in the queue. Permits, take-overs and tries among them read the lock first and write under the guard
//! that nothing was written since.
//!
//! **The token** of a grant (`token`) is the revision of the transaction that granted it, never the create revision: waiters are
//! granted in another order than they came, if one of them is an upgrade. Two more digits tell those apart whom one
//! transaction granted. Revisions of a cluster never go back.
//!
//! **The grant of a waiter** (`grants`) is a transaction of whoever sees that its turn has come: the client that released, usually,
//! which reads who is next with its deletion; else the waiter at its heartbeat, or anybody who inspects. It puts the value anew as
//! granted, on the lease that the claim lies on, and writes to the news of the claim's client, in one. All who come in together, such
//! as the readers up to the next writer, are granted in one, in their order. Its guards:
//! - *each claim's mod revision is the one that was read.* So what was released, broken, converted or granted since is left alone. The
//!   create revision would not do (a later write keeps it), nor would the name.
//! - *no marker is newer than the read.* That nobody who conflicts is ahead stays true whatever others do in turn: who joins stands
//!   behind; who stands behind is not granted past one who conflicts and is ahead; a direct join finds the waiter's own key in its
//!   way, unless both share. What can come ahead, a take-over or an upgrade, leaves a marker for as long as it lives (also when
//!   the upgrade is taken back), and a downgrade only lets more in.
//! - *for whoever comes beside others: the oldest holder is as it was read.* Its token is the floor of the grant. If it went, somebody
//!   who conflicts may have come and gone, of whom nothing is left to compare.
//! - *for readers where nobody holds: no reader's key is newer than the read.* A reader that joins when the last writer has
//!   gone is granted past readers that wait; a floor above its token would fence it off.
//!
//! **The hand-over** of a holder that is alone may be one write (`handover`): its deletion and the grant of those that this
//! client saw behind it. It compares the mod revisions of all, and that there is no marker that was not seen. The own one says that
//! nobody was let in since the holder came to be alone; and between it and them there was nobody when they were read.
//!
//! **An upgrade** puts its marker first and reads in the same transaction. From then on nobody joins (the marker is in their way),
//! no grant goes through that was decided before, and nobody decides a new one; so "I am the only holder", read after it, stays true.
//!
//! **Late copies.** A release of a claim of which a request is unanswered, a break, and a take-over leave `~d/<id>`, which every join
//! compares; a join also names a lease, and fails when that is gone. Renewals and conversions are guarded by the mod revision
//! and numbered in the value. What may still come is kept out by the next write, and so it must be followed by one: after a
//! move to another lease that was not answered, a keepalive and a read are no renewal.
//!
//! **Leases.** A claim that its client renews to its whole ttl until it lets go shares one lease per length with the others; a
//! release deletes the key and never revokes a shared lease. Whoever is renewed no more, though others on the lease are, is taken out by
//! its own client (`keeper`), never before its guard has given up: hence a claim stays known to it until the server surely does
//! not have it. Every other claim has a lease of its own. A grant leaves the lease as it is; the first renewal afterwards moves
//! the claim, guarded, to the lease of its ttl. A lease is revoked only when nothing lies on it and nothing that is under way
//! can come to lie on it.
//!
//! **A renewal** is a keepalive and, after it, a read of the key: at its own mod revision, on its own lease. The keepalive alone
//! proves nothing, because a key may be gone while its lease lives. What is answered as left counts from before the keepalive was
//! sent, less one per cent.
//!
//! **News** come by one watch per client on one key, opened from *now*: etcd serves a watch from an earlier revision up to 100 ms late.
//! After each gap all claims look for themselves, and every waiter looks at each heartbeat. The end of a lease is no news: the
//! claim that is next is told when to look. But each shared lease has a name of its own beside that key, which ends with it: when it
//! is ended from outside, whoever lies on it hears of it at once.
//!
//! **Members.** A client asks one member, until that does not answer (`members`), and keeps its watch there. Answers whose revision
//! is older than what was seen before, or that another cluster gives, are refused (`lineage`): tokens would be used again.
//!
//! # Examples
//! ```no_run
//! # async fn example() -> Result<(), lockcore::Error> {
//! let backend = lock_etcd::EtcdBackend::connect("etcd://one:2379,two:2379,three:2379").await?;
//! # drop(backend);
//! # Ok(())
//! # }
//! ```

mod acquire;
mod backend;
mod breaking;
mod checks;
mod clock;
mod connect;
mod convert;
mod core;
mod errors;
mod etcd;
mod front;
mod grants;
mod handover;
mod heartbeat;
mod inspect;
mod keeper;
mod keys;
mod leases;
mod lineage;
mod link;
mod members;
mod news;
mod record;
mod registry;
mod release;
mod renew;
mod settle;
#[cfg(test)]
mod sim;
mod slots;
mod takeover;
mod token;
mod txn;
mod view;

pub use self::backend::EtcdBackend;
pub use self::connect::EtcdBuilder;
