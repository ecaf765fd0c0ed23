//! Servers that no distribution has in the version that the tests want.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::is_installed;

/// The version of etcd that is built, beside the 3.4 of Debian.
const ETCD: &str = "go.etcd.io/etcd/server/v3@v3.6.5";

/// The folder of the broker that the tests of the Kafka backend run; its version is in `testbed/servers/kafka/pom.xml`.
const KAFKA: &str = "kafka-4.1.0";

/// A program that is nothing but that server.
const MAIN: &str = "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\nfunc main() { etcdmain.Main(os.Args) }\n";

/// Builds etcd 3.6 where Go is there, once; without it the tests run on the installed version.
///
/// # Errors
/// When `go` cannot be run or fails.
pub(crate) fn build_etcd() -> io::Result<()> {
    let folder = folder();
    let program = folder.join("etcd-3.6");
    if program.is_file() {
        return Ok(());
    }
    if !is_installed("go") && !is_installed("/usr/local/go/bin/go") {
        println!(
            "set-up: Go is not there, so etcd 3.6 is not built: the tests of etcd run on the installed version only"
        );
        return Ok(());
    }
    println!("set-up: building {ETCD}; that takes a minute or two");
    let source = folder.join("etcd-source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("main.go"), MAIN)?;
    if !source.join("go.mod").is_file() {
        go(&source, &["mod", "init", "etcd"])?;
    }
    go(&source, &["get", ETCD])?;
    // Under another name first: a build that was stopped must not be taken for a server.
    go(&source, &["build", "-o", "etcd-3.6", "."])?;
    fs::rename(source.join("etcd-3.6"), program)
}

/// Fetches the jars of Kafka, once: there is no package of it.
///
/// # Errors
/// When `mvn` cannot be run or fails.
pub(crate) fn fetch_kafka() -> io::Result<()> {
    let folder = folder();
    let jars = folder.join(KAFKA);
    if jars.is_dir() {
        return Ok(());
    }
    println!("set-up: fetching {KAFKA} with Maven; that takes a few seconds");
    fs::create_dir_all(&folder)?;
    // Under another name first: what was fetched in part must not be taken for a server.
    let part = fs::canonicalize(&folder)?.join("kafka-part");
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/servers/kafka/pom.xml");
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "--file"]).arg(project).arg("dependency:copy-dependencies");
    if !maven.arg(format!("-DoutputDirectory={}", part.display())).status()?.success() {
        return Err(io::Error::other("mvn failed: see above"));
    }
    fs::rename(part, jars)
}

/// Where they are kept: the tests look there too.
fn folder() -> PathBuf {
    let standard = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers");
    env::var_os("FENCELOCK_SERVERS").map_or_else(standard, PathBuf::from)
}

fn go(folder: &Path, args: &[&str]) -> io::Result<()> {
    let program = if is_installed("go") { "go" } else { "/usr/local/go/bin/go" };
    let status = Command::new(program).args(args).current_dir(folder).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("go {} failed: see above", args.join(" "))))
}
