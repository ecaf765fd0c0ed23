//! How clients say to a broker who they are, and what nobody else reads.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use crate::certificates::Certificates;
use crate::folder::Folder;

/// Whom the broker lets in; nobody has a right that is not given.
#[derive(Debug, Clone, Default)]
pub(super) struct Security {
    pub(super) users: Vec<(String, String)>,
    /// The names in the broker's certificate; without any it has none.
    pub(super) names: Vec<String>,
}

impl Security {
    pub(super) fn is_needed(&self) -> bool {
        !(self.users.is_empty() && self.names.is_empty())
    }

    /// What Kafka calls what its clients' listeners speak.
    pub(super) fn protocol(&self) -> &'static str {
        match (self.users.is_empty(), self.names.is_empty()) {
            (true, true) => "PLAINTEXT",
            (true, false) => "SSL",
            (false, true) => "SASL_PLAINTEXT",
            (false, false) => "SASL_SSL",
        }
    }

    /// The broker's properties for these listeners of clients.
    pub(super) fn properties(
        &self,
        listeners: &[&str],
        folder: &Folder,
    ) -> io::Result<Vec<(String, String)>> {
        let mut properties = Vec::new();
        let mut set = |name: &str, value: &str| properties.push((name.to_owned(), value.to_owned()));
        if !self.names.is_empty() {
            let Certificates { authority, certificate, key } =
                Certificates::generate_for(self.names.clone())?;
            folder.write(AUTHORITY, &authority)?;
            let store = folder.write("server.pem", &(key + &certificate))?;
            set("ssl.keystore.type", "PEM");
            set("ssl.keystore.location", &store.to_string_lossy());
        }
        if !self.users.is_empty() {
            set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
            // Whoever comes by the listener without users: the broker itself, and the tests that give rights.
            set("super.users", "User:ANONYMOUS");
            set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256");
            let module = "org.apache.kafka.common.security";
            let mut plain = format!("{module}.plain.PlainLoginModule required");
            for (user, password) in &self.users {
                // Writing to a string does not fail.
                let _ = write!(plain, " user_{user}=\"{password}\"");
            }
            for listener in listeners {
                let jaas = format!("listener.name.{}", listener.to_lowercase());
                set(&format!("{jaas}.plain.sasl.jaas.config"), &format!("{plain};"));
                let scram = format!("{module}.scram.ScramLoginModule required;");
                set(&format!("{jaas}.scram-sha-256.sasl.jaas.config"), &scram);
            }
        }
        Ok(properties)
    }

    /// Where the certificate of the broker's authority is.
    pub(super) fn authority(&self, folder: &Folder) -> Option<PathBuf> {
        (!self.names.is_empty()).then(|| folder.path().join(AUTHORITY))
    }
}

const AUTHORITY: &str = "authority.pem";
