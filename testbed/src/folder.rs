//! Temporary folders that leave nothing behind, not even those of a killed test.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "fencelock-testbed-";
const ALIVE: &str = "alive";

/// A folder for one server's data, gone when dropped.
///
/// A killed process drops nothing, and neither does one that kept a server in a `static`. So each folder has a
/// file that its owner keeps locked for as long as it lives, and the first folder made by a process sweeps away those
/// whose file nobody has locked.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
    _alive: File,
}

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| sweep(&env::temp_dir()));
        Self::new_in(&env::temp_dir())
    }

    /// A folder in a place that is not the usual one, which is swept each time.
    pub(crate) fn in_place(place: &Path) -> io::Result<Self> {
        sweep(place);
        Self::new_in(place)
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let alive = lock(dir.path())?;
        Ok(Self { dir, _alive: alive })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into the folder and gives its path.
    pub(crate) fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}

/// Locks the folder's file. It gets its final name only when locked, so that no sweep finds it in between.
fn lock(dir: &Path) -> io::Result<File> {
    let unnamed = dir.join("alive.new");
    let file = File::create(&unnamed)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(&unnamed, dir.join(ALIVE))?;
    Ok(file)
}

/// Removes the folders of dead processes. What cannot be removed (another user's) stays: this is tidiness, no duty.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && is_orphan(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_orphan(dir: &Path) -> bool {
    File::open(dir.join(ALIVE))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_orphans_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let orphan = folder("fencelock-testbed-orphan");
        drop(lock(&orphan).unwrap());
        let owned = folder("fencelock-testbed-owned");
        let _owner = lock(&owned).unwrap();
        let unborn = folder("fencelock-testbed-unborn");
        let foreign = folder("foreign");
        drop(lock(&foreign).unwrap());

        sweep(parent.path());

        assert!(!orphan.exists());
        assert!(owned.exists() && unborn.exists() && foreign.exists());
    }
}
