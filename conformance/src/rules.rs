//! The rules that the scenarios show.

use std::fmt;

macro_rules! rules {
    ($($rule:ident $text:literal)*) => {
        /// A rule of what a lock means, by its number in `docs/semantics.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "`text` says what each one is")]
        pub enum Rule { $($rule),* }

        impl Rule {
            /// All of them, in order.
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            /// The rule in a few words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Rule::$rule => $text),* }
            }
        }
    };
}

rules! {
    S1 "a claim is named by its own random id, by nothing else"
    S2 "operations are idempotent per claim; one that ended never comes back"
    S3 "one function decides who may hold together"
    S4 "arrival order at the server is the queue"
    S5 "a grant is made at the event that makes it possible"
    S6 "every claim has a lease, and what has expired is gone"
    S7 "renewing counts from now and never resurrects"
    S8 "a renewal that is not needed sends nothing"
    S9 "being granted does not change a lease"
    S10 "the client's own deadline is never later than the server's"
    S11 "loss is sticky, noticed at each use, told by the deadline"
    S12 "tokens are unique and grow between conflicting grants"
    S13 "the fence gate refuses whoever is stale, and nobody else"
    S14 "a release removes exactly its own claim, and says whether"
    S15 "a break removes what it names; its holder learns it"
    S16 "taking over ends the owner's other claims and takes their place"
    S17 "upgrades wait ahead of the queue, downgrades are atomic"
    S18 "a dropped future or guard leaves nothing behind"
    S19 "errors tell the truth about the server"
    S20 "the wait bounds the acquire; a timeout says who holds"
    S21 "an inspection shows holders and waiters in order"
    S22 "any key of 1 to 512 bytes, and no two collide"
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
