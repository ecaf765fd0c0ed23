//! The simulated server beside a real one: the same transactions, the same answers.

use std::time::Duration;

use etcd_client::Client;
use testbed::EtcdServer;

use super::store::Store;
use crate::etcd::Etcd;
use crate::link::Server;
use crate::txn::{Answer, Compare, Get, Is, OnLease, Txn, TxnOp};

const NAMES: [&str; 5] = ["k/p/1", "k/s/1", "k/u/1", "k/x/1", "k/x/2"];
const ENDS: [&str; 3] = ["k/s/0", "k/x/0", "k/z"];
const MISSING: i64 = 77;

/// Revisions in both are counted from the first transaction.
struct Source {
    dice: fastrand::Rng,
    leases: Vec<i64>,
    revision: i64,
}

impl Source {
    fn name(&mut self) -> String {
        NAMES[self.dice.usize(..NAMES.len())].to_owned()
    }

    fn end(&mut self) -> Option<String> {
        self.dice.bool().then(|| ENDS[self.dice.usize(..ENDS.len())].to_owned())
    }

    fn compare(&mut self) -> Compare {
        let revision = self.revision - self.dice.i64(..4);
        let is = match self.dice.u8(..6) {
            0 | 1 => Is::CreatedAt(0),
            2 => Is::CreatedAt(revision),
            3 => Is::ModifiedAt(revision),
            4 => Is::ModifiedAt(0),
            _ => Is::ModifiedBefore(revision),
        };
        Compare { start: self.name(), end: self.end(), is }
    }

    /// One name is written once in a transaction: anything else is refused.
    fn ops(&mut self, most: usize, names: &mut Vec<String>) -> Vec<TxnOp> {
        let mut ops = Vec::new();
        for _ in 0..self.dice.usize(..=most) {
            let op = match self.dice.u8(..5) {
                0 | 1 if !names.is_empty() => {
                    let name = names.swap_remove(self.dice.usize(..names.len()));
                    let lease = match self.dice.u8(..12) {
                        0 => OnLease::Of(MISSING),
                        1..4 => OnLease::Kept,
                        _ => OnLease::Of(self.leases[self.dice.usize(..self.leases.len())]),
                    };
                    TxnOp::Put { name, value: vec![self.dice.u8(b'a'..=b'z')], lease }
                }
                2 if !names.is_empty() => {
                    TxnOp::Delete { name: names.swap_remove(self.dice.usize(..names.len())) }
                }
                _ => TxnOp::Get(Get {
                    start: self.name(),
                    end: self.end(),
                    limit: self.dice.i64(..3),
                    by_creation: self.dice.bool(),
                    keys_only: self.dice.bool(),
                    count_only: self.dice.u8(..4) == 0,
                }),
            };
            ops.push(op);
        }
        ops
    }

    fn txn(&mut self) -> Txn {
        let mut txn = Txn::new();
        for _ in 0..self.dice.usize(..3) {
            txn.when.push(self.compare());
        }
        let all = || NAMES.map(str::to_owned).to_vec();
        txn.then = self.ops(4, &mut all());
        let mut names = all();
        txn.otherwise = self.ops(3, &mut names);
        if self.dice.u8(..3) == 0 {
            let when = [self.compare()];
            let (then, otherwise) = (self.ops(2, &mut names), self.ops(2, &mut names));
            txn.otherwise.push(TxnOp::Txn(Txn::new().when(when).and_then(then).or_else(otherwise)));
        }
        txn
    }
}

/// Two answers in the same words.
fn told(answer: Result<Answer, crate::errors::Trouble>) -> Result<Answer, (lockcore::ErrorKind, bool)> {
    answer.map_err(|trouble| (trouble.kind, trouble.lease_gone))
}

#[tokio::test]
async fn the_simulated_server_answers_as_a_real_one() {
    let seed = super::seeds(1..2).start;
    let server = EtcdServer::start().unwrap();
    let client = Client::connect([server.addr().to_string()], None).await.unwrap();
    let real = Etcd::new(client, None);
    let mut sim = Store::default();
    let mut random = Source { dice: fastrand::Rng::with_seed(seed), leases: Vec::new(), revision: 0 };
    let now = Duration::ZERO;
    for id in [11, 12, 13] {
        assert_eq!(real.grant(id, 1000).await.unwrap(), sim.grant(id, 1000, now).unwrap());
        random.leases.push(id);
    }
    let looks = Txn::new().and_then([TxnOp::Get(Get::default())]);
    sim.revision = Server::txn(&real, looks).await.map_or(1, |answer| answer.revision);
    let (mut written, mut refused) = (0, 0);
    for number in 0..3000 {
        random.revision = sim.revision;
        if number % 100 == 99 {
            let lease = random.leases[random.dice.usize(..random.leases.len())];
            Server::revoke(&real, lease).await.unwrap();
            assert!(sim.revoke(lease));
            assert!(!Server::keep_alive(&real, lease).await.unwrap() && !sim.keep_alive(lease, now));
            assert_eq!(Server::time_to_live(&real, lease).await.unwrap(), sim.time_to_live(lease, now));
            assert_eq!(real.grant(lease, 1).await.unwrap(), sim.grant(lease, 1, now).unwrap());
            assert!(Server::revoke(&real, lease).await.is_ok() && sim.revoke(lease));
            assert_eq!(real.grant(lease, 1000).await.unwrap(), sim.grant(lease, 1000, now).unwrap());
        }
        let txn = random.txn();
        let before = sim.revision;
        let (theirs, ours) = (told(Server::txn(&real, txn.clone()).await), told(sim.txn(&txn)));
        assert_eq!(theirs, ours, "{txn:#?}\n  seed {seed}, transaction {number}");
        refused += i32::from(ours.is_err());
        written += i32::from(sim.revision > before);
    }
    assert!(written > 500 && refused > 50, "{written} wrote, {refused} were refused");
}
