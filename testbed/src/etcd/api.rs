//! What the tests ask of a server past any client library: its plain HTTP side, and the API's JSON on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{ask, http_get};

/// The plain HTTP port of a server.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) port: u16,
}

impl Api {
    pub(super) fn get(&self, path: &str) -> io::Result<String> {
        http_get(self.addr(), path)
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Calls the API; numbers of 64 bits are texts there.
    pub(super) fn call(&self, token: Option<&str>, path: &str, body: &Value) -> io::Result<Value> {
        let body = body.to_string();
        let token = token.map_or_else(String::new, |token| format!("Authorization: {token}\r\n"));
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = ask(self.addr(), &request)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Makes root, and users who may read and write what begins with their prefix; then passwords are asked for.
    pub(super) fn enable_auth(&self, root: &str, users: &[(String, String, String)]) -> io::Result<()> {
        self.call(None, "/v3/auth/user/add", &json!({ "name": "root", "password": root }))?;
        self.call(None, "/v3/auth/role/add", &json!({ "name": "root" }))?;
        self.call(None, "/v3/auth/user/grant", &json!({ "user": "root", "role": "root" }))?;
        for (name, password, prefix) in users {
            let mut end = prefix.clone().into_bytes();
            // The first key behind all that begin so. No prefix of a test ends with the largest byte.
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            let range = json!({
                "permType": "READWRITE",
                "key": STANDARD.encode(prefix),
                "range_end": STANDARD.encode(end),
            });
            self.call(None, "/v3/auth/user/add", &json!({ "name": name, "password": password }))?;
            self.call(None, "/v3/auth/role/add", &json!({ "name": name }))?;
            self.call(None, "/v3/auth/role/grant", &json!({ "name": name, "perm": range }))?;
            self.call(None, "/v3/auth/user/grant", &json!({ "user": name, "role": name }))?;
        }
        self.call(None, "/v3/auth/enable", &json!({})).map(drop)
    }

    /// The ids of this member and of the leader; none when it knows no leader.
    pub(super) fn leader(&self) -> io::Result<(String, Option<String>)> {
        let status = self.call(None, "/v3/maintenance/status", &json!({}))?;
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let member = text(&status["header"]["member_id"])
            .ok_or_else(|| io::Error::other(format!("no member id in {status}")))?;
        Ok((member, text(&status["leader"]).filter(|leader| leader != "0")))
    }
}
