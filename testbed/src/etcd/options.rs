//! What an etcd server is to be like.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::api::Api;
use super::{EtcdCluster, EtcdServer};
use crate::certificates::Certificates;
use crate::folder::Folder;
use crate::ports;
use crate::process::Program;
use crate::tools::{built, require};

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdVersion {
    /// The distribution's, 3.4.
    Installed,
    /// The one that `cargo xtask setup` builds, 3.6.
    Built,
}

/// The name of the program that the set-up builds.
const BUILT: &str = "etcd-3.6";

/// The folder of a server's data, in its own folder.
pub(super) const DATA: &str = "data";

/// What a server is to be like: see [`EtcdServer::options`].
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    version: Option<EtcdVersion>,
    args: Vec<String>,
    root: Option<String>,
    users: Vec<(String, String, String)>,
    tls: bool,
    place: Option<PathBuf>,
}

/// The ports of one member: for clients, for testbed's own requests, and for the other members.
#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    plain: u16,
    peer: u16,
}

impl EtcdOptions {
    /// Sets the version; the newest that is there unless told.
    #[must_use]
    pub fn version(mut self, version: EtcdVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds an option of the command line, as in `arg("quota-backend-bytes", "1000000")`.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.push(format!("--{name}={value}"));
        self
    }

    /// Asks clients for a user and a password; root's is this.
    #[must_use]
    pub fn auth(mut self, root: &str) -> Self {
        self.root = Some(root.into());
        self
    }

    /// Adds a user who may read and write what begins with `prefix`, where [`auth`](Self::auth) is asked for.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, prefix: &str) -> Self {
        self.users.push((name.into(), password.into(), prefix.into()));
        self
    }

    /// Serves its clients TLS only, with a certificate for 127.0.0.1 and localhost: its authority is at
    /// [`EtcdServer::ca_path`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Keeps its data somewhere in `place`, as one in earnest: what it says is written is on the disk. Tests need no such
    /// patience.
    #[must_use]
    pub fn in_earnest(mut self, place: &Path) -> Self {
        self.place = Some(place.to_owned());
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// `NotFound`, with the advice to run `cargo xtask setup`, when that version is not there; the end of the server's log when
    /// it does not start.
    pub fn start(self) -> io::Result<EtcdServer> {
        let one = self.start_members(1)?.pop();
        one.ok_or_else(|| io::Error::other("there is no member"))
    }

    /// Starts a cluster of three and waits until each of them answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_cluster(self) -> io::Result<EtcdCluster> {
        self.start_members(3).map(EtcdCluster::new)
    }

    fn start_members(&self, count: usize) -> io::Result<Vec<EtcdServer>> {
        // Between the choice of a port and etcd's use of it another process may take it.
        let mut attempt = 1;
        loop {
            match self.try_start(count) {
                Err(error) if attempt < 5 && error.to_string().contains("address already in use") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_start(&self, count: usize) -> io::Result<Vec<EtcdServer>> {
        let mut ports = Vec::with_capacity(count);
        for _ in 0..count {
            let client = ports::free()?;
            let plain = if self.tls { ports::free()? } else { client };
            ports.push(Ports { client, plain, peer: ports::free()? });
        }
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(at, ports)| format!("m{at}=http://127.0.0.1:{}", ports.peer))
            .collect();
        let peers = peers.join(",");
        let certificates = if self.tls { Some(Certificates::generate()?) } else { None };
        let mut members = Vec::with_capacity(count);
        for (at, ports) in ports.into_iter().enumerate() {
            let member = self.member(at, ports, &peers, certificates.as_ref())?;
            member.launch()?;
            members.push(member);
        }
        members.iter().try_for_each(EtcdServer::ready)?;
        if let (Some(root), Some(first)) = (&self.root, members.first()) {
            first.api.enable_auth(root, &self.users)?;
        }
        Ok(members)
    }

    fn member(
        &self,
        at: usize,
        ports: Ports,
        peers: &str,
        certificates: Option<&Certificates>,
    ) -> io::Result<EtcdServer> {
        let newest = || if built(BUILT).is_ok() { EtcdVersion::Built } else { EtcdVersion::Installed };
        let version = self.version.unwrap_or_else(newest);
        let (name, file) = match version {
            EtcdVersion::Installed => ("etcd", require("etcd")?),
            EtcdVersion::Built => (BUILT, built(BUILT)?),
        };
        let folder = self.place.as_deref().map_or_else(Folder::new, Folder::in_place)?;
        let mut ca = None;
        let mut client = format!("http://127.0.0.1:{}", ports.client);
        let mut listen = client.clone();
        let mut args = self.args.clone();
        if let Some(certificates) = certificates {
            ca = Some(folder.write("ca.pem", &certificates.authority)?);
            client = client.replace("http:", "https:");
            listen = format!("{client},http://127.0.0.1:{}", ports.plain);
            args.push(format!(
                "--cert-file={}",
                path(&folder.write("server.pem", &certificates.certificate)?)
            ));
            args.push(format!("--key-file={}", path(&folder.write("server.key", &certificates.key)?)));
        }
        let peer = format!("http://127.0.0.1:{}", ports.peer);
        args.extend(
            [
                ("name", format!("m{at}")),
                ("data-dir", DATA.to_owned()),
                ("listen-client-urls", listen),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", peers.to_owned()),
                // Two clusters that were started alike must not take each other for themselves.
                ("initial-cluster-token", peers.to_owned()),
                ("log-level", "warn".to_owned()),
            ]
            .map(|(name, value)| format!("--{name}={value}")),
        );
        if version == EtcdVersion::Built && self.place.is_none() {
            // What a killed process has written stays all the same; only a machine's crash would lose it.
            args.push("--unsafe-no-fsync".to_owned());
        }
        let dir = folder.path().to_owned();
        let program = Program { name, file: Some(file), args, env: Vec::new(), dir };
        let api = Api { port: ports.plain };
        let (process, port, root) = (Mutex::new(None), ports.client, self.root.clone());
        Ok(EtcdServer { process, port, api, root, ca, program, folder })
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
