//! The state of a partition as it is written down, and its hash.

use lockcore::ClaimId;
use lockcore::state::LockImage;
use serde::{Deserialize, Serialize};

use crate::clock::LogClock;
use crate::leases::Lease;
use crate::sessions::Sessions;
use crate::what::Genesis;

/// So much of a state goes into one record, in which it is a text of at most twice this length.
pub(crate) const PART_BYTES: usize = 480_000;

/// The state after all records before `at_offset`, and its hash.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) at_offset: u64,
    pub(crate) hash: Hash,
    /// The JSON of an [`Image`].
    pub(crate) state: String,
}

/// What one record has of a checkpoint: a state may be longer than a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) at_offset: u64,
    pub(crate) hash: Hash,
    /// Which of them this is, from 0.
    pub(crate) number: u32,
    pub(crate) of: u32,
    pub(crate) state: String,
}

/// The first parts of a checkpoint, as one session has written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) at_offset: u64,
    hash: Hash,
    of: u32,
    pub(crate) next: u32,
    /// The hash of what was read.
    found: Hash,
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

impl Checkpoint {
    pub(crate) fn new(at_offset: u64, image: &Image) -> Checkpoint {
        // Strings, numbers and lists only: it does not fail.
        let state = serde_json::to_string(image).unwrap_or_default();
        Checkpoint { at_offset, hash: Hash::of(state.as_bytes()), state }
    }

    /// Cuts the state into pieces of at most `limit` bytes, and of one character at least.
    pub(crate) fn parts(&self, limit: usize) -> Vec<Part> {
        let (mut pieces, mut rest) = (Vec::new(), self.state.as_str());
        while !rest.is_empty() {
            let may_end = |end: &usize| rest.is_char_boundary(*end);
            let end = (1..=limit.min(rest.len())).rev().find(may_end);
            let one = rest.chars().next().map_or(0, char::len_utf8);
            let (piece, after) = rest.split_at(end.unwrap_or(one));
            pieces.push(piece);
            rest = after;
        }
        let of = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let part = |(number, state): (u32, &str)| Part {
            at_offset: self.at_offset,
            hash: self.hash,
            number,
            of,
            state: state.to_owned(),
        };
        (0..).zip(pieces).map(part).collect()
    }

    /// What the state says, if it is one.
    pub(crate) fn image(&self) -> Option<Image> {
        serde_json::from_str(&self.state).ok()
    }
}

impl Progress {
    /// What was read so far together with `part`, if that is what comes next.
    pub(crate) fn with(so_far: Option<Progress>, part: &Part) -> Option<Progress> {
        let Part { at_offset, hash, of, number, .. } = *part;
        let before = match so_far {
            _ if number == 0 => Progress { at_offset, hash, of, next: 0, found: Hash::EMPTY },
            Some(so_far) => so_far,
            None => return None,
        };
        let goes_on =
            (before.at_offset, before.hash, before.of, before.next) == (at_offset, hash, of, number);
        goes_on.then(|| Progress {
            next: before.next + 1,
            found: before.found.and(part.state.as_bytes()),
            ..before
        })
    }

    /// Whether all parts were read.
    pub(crate) fn is_all(&self) -> bool {
        self.next == self.of
    }

    /// Whether what was read has the hash that it should have.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_all() && self.found == self.hash
    }
}

impl Hash {
    const EMPTY: Hash = Hash(0xcbf2_9ce4_8422_2325);

    pub(crate) fn of(bytes: &[u8]) -> Hash {
        Hash::EMPTY.and(bytes)
    }

    /// The hash of what this is the hash of, and of these bytes after it.
    fn and(self, bytes: &[u8]) -> Hash {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Hash(bytes.iter().fold(self.0, step))
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
    use crate::record::{Id, MAX_RECORD_BYTES, Record};
    use crate::what::What;

    fn parts() -> Vec<Part> {
        let state = "{\"text\":\"ключ 1\"}".to_owned();
        let whole = Checkpoint { at_offset: 10, hash: Hash::of(state.as_bytes()), state };
        whole.parts(4)
    }

    /// What is known after these parts, each from what was known before.
    fn read<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Option<Progress> {
        parts.into_iter().fold(None, Progress::with)
    }

    #[test]
    fn a_state_is_cut_between_characters_and_is_whole_again_in_its_order() {
        let parts = parts();
        let pieces: Vec<&str> = parts.iter().map(|part| &*part.state).collect();
        assert_eq!(pieces, ["{\"te", "xt\":", "\"к", "лю", "ч 1", "\"}"]);
        assert!(read(&parts).unwrap().is_whole());
        assert!(!read(&parts[..5]).unwrap().is_all());
        // Begun once more.
        assert!(read(parts[..3].iter().chain(&parts)).unwrap().is_whole());
    }

    #[test]
    fn nothing_else_is_a_checkpoint() {
        let parts = parts();
        assert_eq!(read(&parts[1..]), None, "its beginning is missing");
        assert_eq!(read(parts[..2].iter().chain(&parts[3..])), None, "a part is missing");
        assert_eq!(read(parts[..2].iter().chain(&parts[1..])), None, "a part comes twice");
        let mut other = parts.clone();
        other[3].state = "яю".into();
        assert!(read(&other).is_some_and(|read| read.is_all() && !read.is_whole()), "it has another hash");
        other[3] = Part { at_offset: 20, ..parts[3].clone() };
        assert_eq!(read(&other), None, "one of another checkpoint");
        for one in [Part { hash: Hash(1), ..parts[3].clone() }, Part { of: 7, ..parts[3].clone() }] {
            other[3] = one;
            assert_eq!(read(&other), None, "one of another that was taken there");
        }
    }

    #[test]
    fn a_part_fits_into_a_record() {
        let state = "\"".repeat(2 * PART_BYTES);
        let checkpoint = Checkpoint { at_offset: u64::MAX, hash: Hash(u64::MAX), state };
        let parts = checkpoint.parts(PART_BYTES);
        assert_eq!(parts.len(), 2);
        let what = What::Checkpoint(Part { number: u32::MAX - 1, of: u32::MAX, ..parts[0].clone() });
        let record = Record::new(Id::random(), u64::MAX, what);
        assert!(record.encode().len() <= MAX_RECORD_BYTES);
    }

    #[test]
    fn the_hash_is_the_one_of_the_books() {
        assert_eq!(String::from(Hash::of(b"")), "cbf29ce484222325");
        assert_eq!(String::from(Hash::of(b"foobar")), "85944171f73967e8");
        assert_eq!(Hash::try_from(String::from(Hash::of(b"foobar"))).unwrap(), Hash::of(b"foobar"));
    }
}
