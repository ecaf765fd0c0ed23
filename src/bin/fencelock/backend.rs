//! Which server: from the command line, the environment or a file; and what of its URL may be shown.

use std::env;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use fencelock::LockClient;

use crate::exit::Failure;

/// Where the URL may come from.
#[derive(Args, Debug)]
pub(crate) struct BackendArgs {
    /// The server that keeps the locks, such as `redis://cache:6379`. Everybody on this machine sees it in `ps`: a URL with a
    /// password is better given by `FENCELOCK_BACKEND`, or in a file
    #[arg(short = 'b', long, value_name = "URL")]
    backend: Option<String>,

    /// A file with the URL in its first line; also by `FENCELOCK_BACKEND_FILE`
    #[arg(long, value_name = "PATH", conflicts_with = "backend")]
    backend_file: Option<PathBuf>,
}

/// A server to connect to.
#[derive(Debug)]
pub(crate) struct Backend(String);

impl BackendArgs {
    /// The URL that was given: an option before the environment, and a URL before a file.
    pub(crate) fn find(self) -> Result<Backend, Failure> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let url = match (self.backend, self.backend_file) {
            (Some(url), _) => url,
            (None, Some(file)) => read(&file)?,
            (None, None) => match (set("FENCELOCK_BACKEND"), set("FENCELOCK_BACKEND_FILE")) {
                (Some(url), _) => {
                    url.into_string().map_err(|_| Failure::misuse("FENCELOCK_BACKEND is not valid UTF-8"))?
                }
                (None, Some(file)) => read(&PathBuf::from(file))?,
                (None, None) => String::new(),
            },
        };
        if url.is_empty() {
            return Err(Failure::misuse(
                "no backend given: say which server keeps the locks, with `-b redis://HOST[:PORT]` or \
                 FENCELOCK_BACKEND=redis://HOST[:PORT] in the environment",
            ));
        }
        Ok(Backend(url))
    }
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::misuse(format!("cannot read the backend's URL from {}: {error}", file.display()))
    })?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(Failure::misuse(format!(
            "the first line of {} is to be the backend's URL",
            file.display()
        )));
    }
    Ok(line.to_owned())
}

impl Backend {
    pub(crate) async fn connect(&self) -> Result<LockClient, Failure> {
        fencelock::connect(&self.0).await.map_err(Failure::from)
    }

    /// Whether it keeps its locks in this very process, where nobody else sees them.
    pub(crate) fn is_private(&self) -> bool {
        self.0.starts_with("memory:")
    }

    /// The URL without user, password and query.
    pub(crate) fn public(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return self.scheme().to_owned() };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may have a slash in it that should have been encoded.
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    }

    fn scheme(&self) -> &str {
        self.0.split_inclusive(':').next().unwrap_or_default()
    }

    /// The failure with every secret of the URL blotted out, whoever put it there.
    pub(crate) fn shield(&self, failure: Failure) -> Failure {
        let mut message = failure.message.replace(&self.0, &self.public());
        if let Some(login) = self.login() {
            let password = login.split_once(':').map_or(login, |(_, password)| password);
            // A short one would blot out half of the message, and is no secret either.
            for secret in [login, password].into_iter().filter(|secret| secret.len() > 2) {
                message = message.replace(secret, "***");
            }
        }
        failure.rephrased(message)
    }

    fn login(&self) -> Option<&str> {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        rest.rsplit_once('@').map(|(login, _)| login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_has_no_secret() {
        for (url, public) in [
            ("redis://cache:6379", "redis://cache:6379"),
            ("rediss://user:pa/ss@cache:6379/2?password=x", "rediss://cache:6379/2"),
            ("redis://:s3cret@[::1]", "redis://[::1]"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(Backend(url.into()).public(), public);
        }
    }

    #[test]
    fn errors_are_shielded() {
        let backend = Backend("redis://web:s3cret@cache".into());
        let failure = Failure::own("redis://web:s3cret@cache: AUTH web s3cret refused");
        let shielded = backend.shield(failure);
        assert_eq!(shielded.message, "redis://cache: AUTH web *** refused");
    }
}
