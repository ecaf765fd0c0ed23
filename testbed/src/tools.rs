//! Finding the programs of the servers.

use std::env;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Folders where distributions put servers, and which a user's `PATH` may lack.
const USUAL: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];

/// Finds an installed program by its name.
///
/// # Errors
/// `NotFound`, with the advice to run `cargo xtask setup`, when no folder of `PATH` and none of the usual ones has it.
pub fn require(program: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(USUAL.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("`{program}` is needed by this test and is not installed: run `cargo xtask setup`"),
            )
        })
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there() {
        assert!(require("sh").unwrap().is_absolute());
    }

    #[test]
    fn a_missing_program_is_an_error_with_advice() {
        let error = require("no-such-server").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("`no-such-server`"), "{error}");
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}
