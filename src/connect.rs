//! From a URL to a client: the table of backends.

use std::sync::Arc;

use lockcore::{Error, ErrorKind, LockBackend, LockClient, Result};

/// Which feature each scheme needs.
const SCHEMES: [(&str, &str); 6] = [
    ("memory", "memory"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("etcd", "etcd"),
    ("etcds", "etcd"),
    ("kafka", "kafka"),
];

/// Connects to the server that `url` names, and makes sure that it can keep locks.
///
/// | URL | backend | feature |
/// |---|---|---|
/// | `memory:` | a new lock server in this process | `memory` |
/// | `redis://[user:password@]host[:port][/db]` | Redis | `redis` |
/// | `rediss://…` | Redis over TLS | `redis` |
/// | `etcd://[user:password@]host[:port][,host…][/?prefix=…]` | etcd | `etcd` |
/// | `etcds://…` | etcd over TLS | `etcd` |
/// | `kafka://host[:port][,host…][/topic][?…]` | Kafka | `kafka` |
///
/// # Errors
/// `InvalidArgument` for a URL that is none or has an unknown scheme, `Unsupported` for a backend that this build does not
/// have, `Unavailable` or `Denied` when the server cannot be reached or refuses, and `Unsupported` when it is set up in
/// a way that endangers locks.
///
/// # Cancel safety
/// Dropping the future closes what was opened.
pub async fn connect(url: &str) -> Result<LockClient> {
    Ok(LockClient::new(backend(url).await?))
}

/// Connects as [`connect`] does, for a client with other settings than the default ones
/// ([`LockClient::builder`]).
///
/// # Errors
/// As [`connect`].
///
/// # Cancel safety
/// As [`connect`].
pub async fn backend(url: &str) -> Result<Arc<dyn LockBackend>> {
    let Some((scheme, _)) = url.split_once(':') else {
        return Err(invalid(format!(
            "a backend is given as a URL such as redis://127.0.0.1, not as {url:?}"
        )));
    };
    match scheme {
        #[cfg(feature = "memory")]
        "memory" => Ok(lock_memory::MemoryBackend::new()),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => Ok(lock_redis::RedisBackend::connect(url).await?),
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => Ok(lock_etcd::EtcdBackend::connect(url).await?),
        #[cfg(feature = "kafka")]
        "kafka" => Ok(lock_kafka::KafkaBackend::connect(url).await?),
        other => Err(missing(other)),
    }
}

/// Why no backend of this build takes the scheme.
fn missing(scheme: &str) -> Error {
    if let Some((_, feature)) = SCHEMES.iter().find(|(known, _)| *known == scheme) {
        let message = format!("this program was built without `{feature}`: enable the feature");
        return Error::new(ErrorKind::Unsupported, message);
    }
    let known: Vec<String> = SCHEMES.iter().map(|(scheme, _)| format!("{scheme}:")).collect();
    invalid(format!("unknown scheme {scheme:?}; known are {}", known.join(", ")))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_backend_is_refused_with_what_to_do() {
        for (url, kind, says) in [
            ("", ErrorKind::InvalidArgument, "redis://127.0.0.1"),
            ("127.0.0.1", ErrorKind::InvalidArgument, "redis://127.0.0.1"),
            ("redsi://127.0.0.1", ErrorKind::InvalidArgument, "known are memory:, redis:"),
            #[cfg(not(feature = "redis"))]
            ("redis://127.0.0.1", ErrorKind::Unsupported, "built without `redis`: enable the feature"),
            #[cfg(not(feature = "etcd"))]
            ("etcd://127.0.0.1", ErrorKind::Unsupported, "built without `etcd`: enable the feature"),
            #[cfg(not(feature = "kafka"))]
            ("kafka://127.0.0.1", ErrorKind::Unsupported, "built without `kafka`: enable the feature"),
            #[cfg(not(feature = "memory"))]
            ("memory:", ErrorKind::Unsupported, "built without `memory`: enable the feature"),
        ] {
            let error = connect(url).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{url}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
