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

/// Finds a program that `cargo xtask setup` has built: `servers/NAME` in the target folder of this workspace.
///
/// # Errors
/// `NotFound`, with the advice to run `cargo xtask setup`, when it was not built.
pub fn built(program: &str) -> io::Result<PathBuf> {
    let file = servers().join(program);
    if is_executable(&file) {
        return Ok(file);
    }
    let message =
        format!("there is no {}: `cargo xtask setup` builds it where Go is installed", file.display());
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

/// Finds a folder of files that `cargo xtask setup` has fetched.
///
/// # Errors
/// As [`built`].
pub(crate) fn folder_of(name: &str) -> io::Result<PathBuf> {
    let folder = servers().join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let message = format!("there is no {}, which this test needs: run `cargo xtask setup`", folder.display());
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

/// Where the set-up keeps servers.
fn servers() -> PathBuf {
    let standard = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
    env::var_os("FENCELOCK_SERVERS").map_or_else(standard, PathBuf::from)
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

    #[test]
    fn a_missing_folder_is_an_error_with_advice() {
        let error = folder_of("no-such-server").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("cargo xtask setup"), "{error}");
    }
}
