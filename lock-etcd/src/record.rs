//! The value of a claim's key: JSON, so that `etcdctl get` shows who holds.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Claim, ClaimId, Fence, Mode};
use serde::{Deserialize, Serialize};

use crate::clock::wall_micros;

/// The version of the format.
const VERSION: u8 = 1;

/// What is kept of a claim. Its lease and its place in the queue are etcd's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    v: u8,
    pub(crate) id: ClaimId,
    pub(crate) mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Arc<str>>,
    /// The session of the client that hears of it.
    pub(crate) client: String,
    /// Since when it holds or waits, in microseconds of the writer's wall clock: for people.
    pub(crate) since: u64,
    /// The length of its lease in seconds.
    pub(crate) ttl: u64,
    /// Set when it is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) granted: Option<Grant>,
    /// Set when it does not stand where it arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
    /// The numbers of the last renewal that was written, and of the last conversion.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) renewed: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) converted: u64,
    /// A holder that waits to become exclusive.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) upgrading: bool,
    /// It has a marker, which lies on the same lease and ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) marked: bool,
}

/// The fence of a holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// Zero: by the revision of the write itself, which nobody knows beforehand.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) token: u64,
    /// After how many others the same write granted it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) nth: u64,
    /// Zero: the token of the first one of that write, or of a reader that came alone, the smallest token there is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) floor: u64,
}

impl Grant {
    /// A grant of which all is known, as it is written when something else of the claim changes.
    pub(crate) fn of(fence: Fence) -> Grant {
        Grant { token: fence.token.get(), nth: 0, floor: fence.floor.get() }
    }
}

/// A place that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    /// 0: ahead of all who arrived; 1: among them.
    pub(crate) rank: u8,
    /// The revision that it stands at; zero: that of its own creation.
    pub(crate) at: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// A claim that joins now, waiting.
    pub(crate) fn new(claim: &Claim, client: &str, lease: Duration) -> Record {
        Record {
            v: VERSION,
            id: claim.id(),
            mode: claim.mode(),
            owner: claim.owner().cloned(),
            note: claim.note().cloned(),
            client: client.to_owned(),
            since: wall_micros(),
            ttl: lease.as_secs(),
            granted: None,
            place: None,
            renewed: 0,
            converted: 0,
            upgrading: false,
            marked: false,
        }
    }

    /// The same claim, granted by the very write that this goes out with, after so many others.
    pub(crate) fn granted(mut self, nth: u64, floor: u64) -> Record {
        self.granted = Some(Grant { token: 0, nth, floor });
        self.since = wall_micros();
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // A struct of numbers and texts always encodes.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for what we did not write.
    pub(crate) fn decode(value: &[u8]) -> Option<Record> {
        serde_json::from_slice::<Record>(value).ok().filter(|record| record.v == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use lockcore::Key;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        let claim = Claim::new(Key::new("k").unwrap(), Mode::Shared, Duration::from_secs(9));
        let record = Record::new(&claim.with_owner(Some("ann".into())), "c", Duration::from_secs(9));
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        let granted = record.granted(3, 17);
        assert_eq!(Record::decode(&granted.encode()), Some(granted));
        for foreign in ["", "{}", "7", r#"{"v":2,"mode":"shared","client":"c","since":0,"ttl":1}"#] {
            assert_eq!(Record::decode(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
