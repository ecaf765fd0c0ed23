//! `cargo xtask setup`: what the tests need beside Rust.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::servers;

/// Something that tests need, and where it comes from.
struct Tool {
    /// The name of a program, or the path of a file.
    program: &'static str,
    /// The package of Debian and Ubuntu that has it.
    package: &'static str,
    needed_for: &'static str,
}

/// Everything that the tests need beside Rust. A new server is a new line.
const TOOLS: &[Tool] = &[
    Tool { program: "setpriv", package: "util-linux", needed_for: "ending servers with the test" },
    Tool { program: "redis-server", package: "redis-server", needed_for: "tests of the Redis backend" },
    Tool { program: "redis-cli", package: "redis-tools", needed_for: "tests of the Redis backend" },
    Tool { program: "protoc", package: "protobuf-compiler", needed_for: "building the etcd backend" },
    Tool {
        program: "/usr/include/google/protobuf/descriptor.proto",
        package: "libprotobuf-dev",
        needed_for: "building the etcd backend",
    },
    Tool { program: "etcd", package: "etcd-server", needed_for: "tests of the etcd backend" },
    Tool { program: "cc", package: "gcc", needed_for: "building the Kafka backend" },
    Tool { program: "c++", package: "g++", needed_for: "building the Kafka backend" },
    Tool { program: "make", package: "make", needed_for: "building the Kafka backend" },
    Tool {
        program: "/usr/include/openssl/ssl.h",
        package: "libssl-dev",
        needed_for: "building the Kafka backend with TLS",
    },
    Tool { program: "pkg-config", package: "pkg-config", needed_for: "building the Kafka backend with TLS" },
    Tool { program: "java", package: "default-jre-headless", needed_for: "tests of the Kafka backend" },
    Tool { program: "mvn", package: "maven", needed_for: "fetching Kafka for its tests" },
];

/// Where programs are, also those for administrators that a user's `PATH` may lack.
const USUAL: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];

/// Installs what is missing where it may (`apt-get`, as root), and else says what to install.
///
/// # Errors
/// When `apt-get`, `go` or `mvn` cannot be run or fails.
pub(crate) fn run() -> io::Result<ExitCode> {
    let installed = install_tools()?;
    if installed == ExitCode::SUCCESS {
        servers::build_etcd()?;
        servers::fetch_kafka()?;
    }
    Ok(installed)
}

fn install_tools() -> io::Result<ExitCode> {
    let missing = missing();
    if missing.is_empty() {
        println!("set-up: nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    for tool in &missing {
        println!("set-up: {} is missing ({}; package {})", tool.program, tool.needed_for, tool.package);
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let packages = packages;
    if !is_installed("apt-get") {
        eprintln!(
            "\nset-up: install these with this system's package manager (names of Debian):\n  {}",
            packages.join(" ")
        );
        return Ok(ExitCode::FAILURE);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "\nset-up: only root may install packages. Run:\n  sudo apt-get install --no-install-recommends {0}\n\
             A service that a package starts is not needed: every test starts servers of its own.",
            packages.join(" ")
        );
        return Ok(ExitCode::FAILURE);
    }
    install(&packages)?;
    if let Some(tool) = self::missing().first() {
        return Err(io::Error::other(format!(
            "{} was installed, but there is no {}",
            tool.package, tool.program
        )));
    }
    println!("set-up: done");
    Ok(ExitCode::SUCCESS)
}

fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !is_installed(tool.program)).collect()
}

pub(crate) fn is_installed(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).is_file();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(USUAL.iter().map(PathBuf::from))
        .filter_map(|folder| folder.join(program).metadata().ok())
        .any(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn install(packages: &[&str]) -> io::Result<()> {
    let _no_services = NoServices::declare(Path::new("/usr/sbin/policy-rc.d"))?;
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    if apt_get(&install)? {
        return Ok(());
    }
    // The usual reason: the list of packages is old, or was never fetched.
    println!("set-up: fetching the list of packages, then once more");
    if apt_get(&["update"])? && apt_get(&install)? {
        return Ok(());
    }
    Err(io::Error::other(format!("apt-get could not install {}: see above", packages.join(" "))))
}

fn apt_get(args: &[&str]) -> io::Result<bool> {
    println!("set-up: apt-get {}", args.join(" "));
    let mut command = Command::new("apt-get");
    // Another apt at work is waited for, up to two minutes.
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command.status()?.success())
}

/// Keeps packages from starting services, for as long as it lives: Debian asks `policy-rc.d` whether it may.
///
/// A machine that has such a file already has its own answer, which stays.
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn declare(policy: &Path) -> io::Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy) {
            Ok(mut file) => {
                let declared = Self(Some(policy.to_owned()));
                // 101 is "action forbidden".
                file.write_all(b"#!/bin/sh\nexit 101\n")?;
                Ok(declared)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self(None)),
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("cannot write {}: {error}", policy.display())))
            }
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0
            && let Err(error) = fs::remove_file(policy)
        {
            eprintln!("set-up: remove {} by hand, or no service will start: {error}", policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_not() {
        assert!(is_installed("sh") && is_installed("/etc/passwd"));
        assert!(!is_installed("no-such-server"));
    }

    #[test]
    fn the_policy_goes_and_a_foreign_one_stays() {
        let policy = env::temp_dir().join(format!("fencelock-policy-{}", std::process::id()));
        let declared = NoServices::declare(&policy).unwrap();
        assert!(fs::read_to_string(&policy).unwrap().contains("101"));
        drop(NoServices::declare(&policy).unwrap());
        assert!(policy.exists());
        drop(declared);
        assert!(!policy.exists());
    }
}
