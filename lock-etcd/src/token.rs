//! Tokens: the revision of the write that granted, and which of that write's grants it was.
//!
//! The last two decimal digits are the latter, so that whoever reads a token sees the revision in it.

use lockcore::{Fence, FencingToken};

/// How far the tokens of two revisions are apart.
const STEP: u64 = 100;

/// How many claims one write grants at most. Each takes two of the 128 operations that etcd allows in a transaction.
pub(crate) const MOST: usize = 50;

/// The token of a claim that the write of this revision granted, after so many others.
pub(crate) fn token(revision: i64, nth: u64) -> u64 {
    revision.unsigned_abs().saturating_mul(STEP).saturating_add(nth)
}

/// The fence of such a claim. No floor is the token of the first one of that write.
pub(crate) fn fence(revision: i64, nth: u64, floor: u64) -> Fence {
    let at = |nth| FencingToken::new(token(revision, nth)).unwrap_or(FencingToken::FIRST);
    Fence { token: at(nth), floor: FencingToken::new(floor).unwrap_or(at(0)).min(at(nth)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_grow_with_the_revision_and_within_a_write() {
        let of = |revision, nth, floor| {
            let fence = fence(revision, nth, floor);
            (fence.token.get(), fence.floor.get())
        };
        assert_eq!([of(7, 0, 0), of(7, 1, 0), of(7, 49, 650)], [(700, 700), (701, 700), (749, 650)]);
        assert_eq!(of(8, 0, 0), (800, 800), "above all of the write before");
        assert_eq!(of(7, 0, 900), (700, 700), "no floor is above the token");
        assert!(MOST as u64 <= STEP, "each write has tokens enough");
    }
}
