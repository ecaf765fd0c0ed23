//! Certificates made on the spot.

use std::io;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// An authority and one server certificate for 127.0.0.1 and localhost, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificates {
    pub(crate) fn generate() -> io::Result<Self> {
        Self::generate_for(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
    }

    /// As usual, for other names.
    pub(crate) fn generate_for(names: Vec<String>) -> io::Result<Self> {
        Self::try_generate(names)
            .map_err(|error| io::Error::other(format!("cannot make certificates: {error}")))
    }

    fn try_generate(names: Vec<String>) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "testbed authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "testbed server");
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok(Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
