//! Three members of one cluster.

use std::io;

use serde_json::json;

use super::{EtcdOptions, EtcdServer, EtcdVersion};
use crate::wait::{PATIENCE, wait_for};

/// An etcd of three members, each a process of its own.
///
/// # Examples
/// ```
/// use testbed::EtcdCluster;
/// let cluster = EtcdCluster::start().unwrap();
/// let next = (cluster.leader().unwrap() + 1) % 3;
/// cluster.move_leader(next).unwrap();
/// assert_eq!(cluster.leader().unwrap(), next);
/// ```
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<EtcdServer>,
}

impl EtcdCluster {
    /// Starts a cluster of the newest version that is there.
    ///
    /// # Errors
    /// As [`EtcdOptions::start_cluster`].
    pub fn start() -> io::Result<Self> {
        EtcdOptions::default().start_cluster()
    }

    /// Starts a cluster of this version.
    ///
    /// # Errors
    /// As [`EtcdOptions::start_cluster`].
    pub fn start_version(version: EtcdVersion) -> io::Result<Self> {
        EtcdOptions::default().version(version).start_cluster()
    }

    pub(super) fn new(members: Vec<EtcdServer>) -> Self {
        Self { members }
    }

    /// Gives the URL that names all members, with root's password if they ask for one.
    #[must_use]
    pub fn url(&self) -> String {
        let others = self.members[1..].iter().map(|member| format!(",{}", member.addr()));
        others.fold(self.members[0].url(), |url, other| url + &other)
    }

    /// Gives the member of this number, from 0 to 2.
    #[must_use]
    pub fn member(&self, number: usize) -> &EtcdServer {
        &self.members[number]
    }

    /// Gives all members.
    #[must_use]
    pub fn members(&self) -> &[EtcdServer] {
        &self.members
    }

    /// Gives the number of the leader, as the first member that answers knows it; waits while there is none. A member that is
    /// paused is not to be asked: it makes this slow.
    ///
    /// # Errors
    /// `TimedOut` when there is none.
    pub fn leader(&self) -> io::Result<usize> {
        wait_for("a leader", PATIENCE, || {
            let seen: Vec<_> = self.members.iter().map(|member| member.api.leader().ok()).collect();
            let named = seen.iter().flatten().find_map(|(_, leader)| leader.clone());
            let is_it = |seen: &Option<(String, Option<String>)>| {
                seen.as_ref().is_some_and(|(id, _)| Some(id) == named.as_ref())
            };
            Ok(named.as_ref().and_then(|_| seen.iter().position(is_it)))
        })
    }

    /// Makes another member the leader, and waits until it is. All members must answer.
    ///
    /// # Errors
    /// When the leader refuses or does not answer.
    pub fn move_leader(&self, to: usize) -> io::Result<()> {
        let leader = &self.members[self.leader()?];
        let (target, _) = self.members[to].api.leader()?;
        let token = leader.token()?;
        let order = json!({ "targetID": target });
        leader.api.call(token.as_deref(), "/v3/maintenance/transfer-leadership", &order)?;
        let moved = || Ok((self.leader()? == to).then_some(()));
        wait_for("the leader to move", PATIENCE, moved)
    }

    /// Waits until every member that runs answers and sees a leader.
    ///
    /// # Errors
    /// `TimedOut` when one does not.
    pub fn wait_until_healthy(&self) -> io::Result<()> {
        let running = self.members.iter().filter(|member| member.pid().is_some());
        running.into_iter().try_for_each(EtcdServer::ready)
    }
}
