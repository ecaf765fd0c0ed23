//! The documents say what the suite found the last time.

use std::path::Path;

use lock_conformance::report::Published;

#[test]
fn the_documents_say_what_the_reports_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let stale = Published::in_folder(&folder).unwrap().stale().map(Path::to_path_buf);
    assert_eq!(stale, None, "cargo xtask report");
}
