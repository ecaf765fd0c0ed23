//! The files of a project that say what the suite found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Report, to_markdown, to_matrix};

/// What stands above the tables.
const HEADING: &str = "# What the conformance suite finds\n\n\
    Each trial of the suite on each backend (`yes` is passed), and the mutants by which the suite itself is tried: backends that\n\
    are broken in one way each. The rules are those of [semantics.md](semantics.md). Written by `cargo xtask report`, from\n\
    [what each run found](conformance.json).\n\n";

/// Before and after the table of guarantees in the README.
const MARKS: [&str; 2] = ["<!-- guarantees -->\n", "<!-- end of guarantees -->\n"];

/// Reports as they are published, file by file.
pub struct Published(Vec<(PathBuf, String)>);

impl Published {
    /// The files in this folder that say what these reports say.
    ///
    /// # Errors
    /// When its README cannot be read, or has no marks.
    pub fn of(reports: &[Report], folder: &Path) -> io::Result<Published> {
        let readme = folder.join("README.md");
        let text = fs::read_to_string(&readme)?;
        let [before, after] = MARKS;
        let parts = text.split_once(before).and_then(|(head, rest)| Some((head, rest.split_once(after)?.1)));
        let (head, tail) =
            parts.ok_or_else(|| io::Error::other("README.md has no marks for the guarantees"))?;
        let docs = folder.join("docs");
        Ok(Published(vec![
            (docs.join("conformance.json"), to_json(reports)?),
            (docs.join("conformance.md"), [HEADING, &to_markdown(reports)].concat()),
            (readme, [head, before, &to_matrix(reports), after, tail].concat()),
        ]))
    }

    /// The same of the reports that the folder has.
    ///
    /// # Errors
    /// As [`of`](Published::of), and when there are none.
    pub fn in_folder(folder: &Path) -> io::Result<Published> {
        let reports = fs::read_to_string(folder.join("docs").join("conformance.json"))?;
        let reports: Vec<Report> = serde_json::from_str(&reports)?;
        Published::of(&reports, folder)
    }

    /// Writes the files.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(path, text)| fs::write(path, text))
    }

    /// The first file that says something else, or is not there.
    #[must_use]
    pub fn stale(&self) -> Option<&Path> {
        let is_stale = |path: &Path, text: &String| fs::read_to_string(path).ok().as_ref() != Some(text);
        self.0.iter().find(|(path, text)| is_stale(path, text)).map(|(path, _)| path.as_path())
    }
}

/// One trial a line, so that a change is easy to see.
fn to_json(reports: &[Report]) -> serde_json::Result<String> {
    let text = serde_json::to_string(reports)?;
    Ok(text.replace("},{\"", "},\n{\"").replace(":[{", ":[\n{") + "\n")
}
