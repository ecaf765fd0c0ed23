//! A server's wall clock, which a test sets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use crate::folder::Folder;
use crate::tools::require;

/// What is preloaded into the server: it reads the clock for it.
const SOURCE: &str = include_str!("../servers/clock.c");

/// How far the clock of one server is ahead, as a file that the server has in its memory.
#[derive(Debug)]
pub(crate) struct Clock {
    file: File,
    library: PathBuf,
    path: PathBuf,
}

impl Clock {
    /// A clock that is right, in the folder of its server.
    ///
    /// # Errors
    /// When there is no C compiler, or what it says.
    pub(crate) fn new(folder: &Folder) -> io::Result<Self> {
        let (source, library) = (folder.write("clock.c", SOURCE)?, folder.path().join("clock.so"));
        let mut build = Command::new(require("cc")?);
        build.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        let done = build.output()?;
        if !done.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()));
        }
        let path = folder.path().join("clock");
        fs::write(&path, 0_i64.to_ne_bytes())?;
        let file = File::options().write(true).open(&path)?;
        Ok(Self { file, library, path })
    }

    /// What the server's process is started with.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        vec![("LD_PRELOAD".to_owned(), text(&self.library)), ("CLOCK_FILE".to_owned(), text(&self.path))]
    }

    /// Sets it so many seconds ahead of this machine's, or behind.
    pub(crate) fn set_ahead(&self, seconds: i64) -> io::Result<()> {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0)
    }
}
