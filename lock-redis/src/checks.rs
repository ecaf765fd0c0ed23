//! What a server must be for locks to be safe on it, looked at on every new connection.

use lockcore::ErrorKind;

use crate::errors::Trouble;

/// The oldest version that this library knows to work.
const OLDEST: (u32, u32) = (6, 2);

/// What a server's `INFO` says under this name; nothing if it does not say.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).unwrap_or_default()
}

/// Refuses a server, by its `INFO`, on which locks would vanish or could not be written.
pub(crate) fn check(info: &str, address: &str) -> Result<(), Trouble> {
    let field = |name: &str| field(info, name);
    let refuse = |kind, message: String| Err(Trouble::new(kind, message));
    if let Some(version) = version(field("redis_version")).filter(|version| *version < OLDEST) {
        let (major, minor) = version;
        return refuse(
            ErrorKind::Unsupported,
            format!("{address} is Redis {major}.{minor}; 6.2 or newer is needed"),
        );
    }
    match field("redis_mode") {
        "cluster" => {
            let message = format!("{address} is a node of a Redis Cluster: a server of its own is needed");
            return refuse(ErrorKind::Unsupported, message);
        }
        "sentinel" => {
            let message = format!("{address} is a Sentinel: name the primary that it watches over");
            return refuse(ErrorKind::Unsupported, message);
        }
        _ => {}
    }
    if field("role") == "slave" {
        return refuse(
            ErrorKind::Unavailable,
            format!("{address} is a replica, which takes no writes: connect to its primary"),
        );
    }
    match field("maxmemory_policy") {
        "" | "noeviction" => {}
        policy => {
            return refuse(
                ErrorKind::Unsupported,
                format!(
                    "{address} has maxmemory-policy {policy} and may evict a lock that is held: \
                     set maxmemory-policy noeviction, or use another server for locks"
                ),
            );
        }
    }
    Ok(())
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(info: &str) -> Option<ErrorKind> {
        check(info, "here:1").err().map(|trouble| trouble.kind)
    }

    #[test]
    fn unsafe_servers_are_refused() {
        assert_eq!(kind("redis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(kind("redis_version:6.0.16\r\n"), Some(ErrorKind::Unsupported));
        assert_eq!(kind("redis_version:10.0.1\r\n"), None);
        assert_eq!(kind("redis_mode:standalone\r\nrole:master\r\n"), None);
        assert_eq!(kind("redis_mode:cluster\r\nrole:master\r\n"), Some(ErrorKind::Unsupported));
        assert_eq!(kind("redis_mode:sentinel\r\n"), Some(ErrorKind::Unsupported));
        assert_eq!(kind("role:slave\r\n"), Some(ErrorKind::Unavailable));
        for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru", "allkeys-random"] {
            assert_eq!(kind(&format!("maxmemory_policy:{policy}\r\n")), Some(ErrorKind::Unsupported));
        }
    }
}
