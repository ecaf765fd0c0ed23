//! Three brokers of one cluster.

use std::io;
use std::iter;

use super::api::{self, Described, Election};
use super::{KafkaOptions, KafkaServer};
use crate::wait::{PATIENCE, wait_for};

/// A Kafka of three nodes, each a process of its own that is broker and controller.
///
/// What is said of a topic is about its first partition.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<KafkaServer>,
}

impl KafkaCluster {
    /// Starts a cluster.
    ///
    /// # Errors
    /// As [`KafkaOptions::start_cluster`].
    pub fn start() -> io::Result<Self> {
        KafkaOptions::default().start_cluster()
    }

    pub(super) fn new(nodes: Vec<KafkaServer>) -> Self {
        Self { nodes }
    }

    /// Gives the URL of a topic that names all nodes.
    #[must_use]
    pub fn url(&self, topic: &str) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| node.addr().to_string()).collect();
        format!("kafka://{}/{topic}", hosts.join(","))
    }

    /// Gives the URL of a topic that names the proxy of this number of each node.
    #[must_use]
    pub fn url_through(&self, proxy: usize, topic: &str) -> String {
        let proxies = self.nodes.iter().map(|node| node.proxies()[proxy].addr().to_string());
        format!("kafka://{}/{topic}", proxies.collect::<Vec<String>>().join(","))
    }

    /// Gives the node of this number, from 0 to 2.
    #[must_use]
    pub fn node(&self, number: usize) -> &KafkaServer {
        &self.nodes[number]
    }

    /// Gives all nodes.
    #[must_use]
    pub fn nodes(&self) -> &[KafkaServer] {
        &self.nodes
    }

    /// Gives the numbers of the nodes that a topic is on, the preferred leader first.
    ///
    /// # Errors
    /// `TimedOut` when nobody knows.
    pub fn replicas(&self, topic: &str) -> io::Result<Vec<usize>> {
        let seen = wait_for("the replicas", PATIENCE, || Ok(self.describe(topic)))?;
        Ok(seen.replicas.into_iter().map(place).collect())
    }

    /// Gives the number of the node that leads a topic; waits while there is none.
    ///
    /// # Errors
    /// `TimedOut` when there is none.
    pub fn leader(&self, topic: &str) -> io::Result<usize> {
        wait_for("a leader", PATIENCE, || Ok(self.leads(topic)))
    }

    /// Waits until another node than this one leads a topic, and gives its number.
    ///
    /// # Errors
    /// `TimedOut` when none does.
    pub fn leader_but(&self, topic: &str, not: usize) -> io::Result<usize> {
        wait_for("another leader", PATIENCE, || Ok(self.leads(topic).filter(|leader| *leader != not)))
    }

    /// Waits until just these nodes are known to have all of a topic.
    ///
    /// # Errors
    /// `TimedOut` when that does not come.
    pub fn wait_until_in_sync(&self, topic: &str, nodes: &[usize]) -> io::Result<()> {
        wait_for(&format!("{nodes:?} to be in sync"), PATIENCE, || {
            let Some(Described { leader: Some(_), in_sync, .. }) = self.describe(topic) else {
                return Ok(None);
            };
            let mut in_sync: Vec<usize> = in_sync.into_iter().map(place).collect();
            in_sync.sort_unstable();
            Ok((in_sync == nodes).then_some(()))
        })
    }

    /// Makes a node that is in sync the leader of a topic, and waits until it is.
    ///
    /// # Errors
    /// When the brokers refuse, or nobody answers.
    pub fn move_leader(&self, topic: &str, to: usize) -> io::Result<()> {
        self.lead(topic, to, Election::Preferred)
    }

    /// Makes a node the leader of a topic that has none although it lacks records, which are lost then.
    ///
    /// # Errors
    /// As [`move_leader`](Self::move_leader).
    pub fn elect_uncleanly(&self, topic: &str, to: usize) -> io::Result<()> {
        self.lead(topic, to, Election::Unclean)
    }

    fn lead(&self, topic: &str, to: usize, how: Election) -> io::Result<()> {
        let broker = self.node(to).addr();
        if how == Election::Preferred {
            let others = self.replicas(topic)?.into_iter().filter(|replica| *replica != to);
            let replicas: Vec<i32> = iter::once(to).chain(others).map(number).collect();
            api::reassign(broker, topic, &replicas)?;
        }
        wait_for(&format!("node {to} to lead"), PATIENCE, || {
            // Refused as long as the one that is gone is not given up.
            let _refused = api::elect(broker, topic, how);
            Ok((self.leads(topic) == Some(to)).then_some(()))
        })
    }

    /// The topic as the first node that answers sees it. One that is paused makes this slow.
    fn describe(&self, topic: &str) -> Option<Described> {
        let mut running = self.nodes.iter().filter(|node| node.pid().is_some());
        running.find_map(|node| api::describe(node.addr(), topic).ok())
    }

    fn leads(&self, topic: &str) -> Option<usize> {
        self.describe(topic)?.leader.map(place)
    }
}

/// The number of a node as Kafka has it.
fn number(place: usize) -> i32 {
    i32::try_from(place + 1).unwrap_or(i32::MAX)
}

fn place(number: i32) -> usize {
    usize::try_from(number - 1).unwrap_or(usize::MAX)
}
