//! The state of a partition as it is written down, and its hash.

use lockcore::ClaimId;
use lockcore::state::LockImage;
use serde::{Deserialize, Serialize};

use crate::clock::LogClock;
use crate::leases::Lease;
use crate::sessions::Sessions;
use crate::what::Genesis;

/// The state after all records before `at_offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) at_offset: u64,
    pub(crate) hash: Hash,
    pub(crate) state: Image,
}

/// Everything that decides what later records do. Two replicas that read the same have the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) genesis: Genesis,
    pub(crate) clock: LogClock,
    pub(crate) last_token: u64,
    /// The `at_offset` of the last checkpoint that counted.
    pub(crate) counted: u64,
    pub(crate) sessions: Sessions,
    /// By key.
    pub(crate) locks: Vec<(String, LockImage)>,
    /// By claim.
    pub(crate) leases: Vec<(ClaimId, Lease)>,
}

/// FNV-1a over the JSON of an image, the same in every version of every program. It tells mistakes, not malice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Hash(u64);

impl Image {
    pub(crate) fn hash(&self) -> Hash {
        // Strings, numbers and lists only: it does not fail.
        Hash::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

impl Checkpoint {
    /// Whether its hash is the one of its state.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.hash() == self.hash
    }
}

impl Hash {
    pub(crate) fn of(bytes: &[u8]) -> Hash {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Hash(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        format!("{:016x}", hash.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Hash, Self::Error> {
        u64::from_str_radix(&text, 16).map(Hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_of_the_books() {
        assert_eq!(String::from(Hash::of(b"")), "cbf29ce484222325");
        assert_eq!(String::from(Hash::of(b"foobar")), "85944171f73967e8");
        assert_eq!(Hash::try_from(String::from(Hash::of(b"foobar"))).unwrap(), Hash::of(b"foobar"));
    }
}
