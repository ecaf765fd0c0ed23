//! Three brokers of one cluster.

use std::io;

use super::{KafkaOptions, KafkaServer};

/// A Kafka of three nodes, each a process of its own that is broker and controller.
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
}
