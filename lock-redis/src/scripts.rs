//! The scripts: one for each operation.

use redis::Script;
use std::time::Duration;

use crate::request::micros;

/// One operation as it is sent.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The operation's name in errors.
    pub(crate) name: &'static str,
    pub(crate) sha: String,
    pub(crate) code: String,
}

/// All operations.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Operation,
    pub(crate) renew: Operation,
    pub(crate) convert: Operation,
    pub(crate) release: Operation,
    pub(crate) break_claims: Operation,
    pub(crate) inspect: Operation,
    pub(crate) in_use: Operation,
}

impl Scripts {
    pub(crate) fn new(fence_keep: Duration, forget_after: Duration) -> Scripts {
        let state = concat!(include_str!("scripts/state.lua"), include_str!("scripts/rules.lua"));
        let operation = |name, own: &str| {
            let code = own
                .replace("--@ state\n", state)
                .replace("@FENCE_KEEP@", &micros(fence_keep).to_string())
                .replace("@FORGET_AFTER@", &micros(forget_after).to_string());
            let code = without_comments(&code);
            Operation { name, sha: Script::new(&code).get_hash().to_owned(), code }
        };
        Scripts {
            acquire: operation("acquire", include_str!("scripts/acquire.lua")),
            renew: operation("renew", include_str!("scripts/renew.lua")),
            convert: operation("convert", include_str!("scripts/convert.lua")),
            release: operation("release", include_str!("scripts/release.lua")),
            break_claims: operation("break", include_str!("scripts/break.lua")),
            inspect: operation("inspect", include_str!("scripts/inspect.lua")),
            in_use: operation("list", include_str!("scripts/in_use.lua")),
        }
    }

    pub(crate) fn all(&self) -> [&Operation; 7] {
        [
            &self.acquire,
            &self.renew,
            &self.convert,
            &self.release,
            &self.break_claims,
            &self.inspect,
            &self.in_use,
        ]
    }
}

/// The code with its lines, so that errors name the right one, and without what only people read.
fn without_comments(code: &str) -> String {
    let lines: Vec<&str> = code.lines().map(|line| if line.starts_with("--") { "" } else { line }).collect();
    lines.join("\n")
}
