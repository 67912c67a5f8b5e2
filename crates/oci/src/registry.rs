//! Where a repository lives: `host[:port]`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ReferenceError;
use crate::reference::{DOCKER_HUB, DOCKER_HUB_INDEX, clipped};

/// The host, and the port if one is written, of a registry: `localhost:5100`, `[::1]:5000`, `registry.example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Registry(String);

impl Registry {
    /// Docker's public registry, where an image without a registry in its name comes from.
    pub fn docker_hub() -> Self {
        Self(DOCKER_HUB.to_owned())
    }

    /// `host[:port]` as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Further names under which credentials for this registry are kept.
    pub fn old_names(&self) -> &'static [&'static str] {
        if self.0 == DOCKER_HUB { &["https://index.docker.io/v1/", DOCKER_HUB_INDEX] } else { &[] }
    }

    /// The host and port at which its API answers: its own name, but for Docker's public registry, which is known by one
    /// name and answers under its old one.
    pub fn api_host(&self) -> &str {
        if self.0 == DOCKER_HUB { DOCKER_HUB_INDEX } else { &self.0 }
    }

    /// The host without the port; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let (host, _) = split_port(&self.0);
        host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, if one is written.
    pub fn port(&self) -> Option<u16> {
        split_port(&self.0).1.and_then(|port| port.parse().ok())
    }

    /// Whether connections to it cannot leave this machine: `localhost`, 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Registry {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let invalid = || ReferenceError::Registry { text: clipped(text) };
        let (host, port) = split_port(text);
        let host_is_valid = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
            None => host.len() <= 253 && host.split('.').all(is_label),
        };
        let port_is_valid = port.is_none_or(|port| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        });
        if host_is_valid && port_is_valid { Ok(Self(text.to_owned())) } else { Err(invalid()) }
    }
}

/// Splits `host:port`; the colons inside the brackets of an IPv6 address do not count.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Registry {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Registry> for String {
    fn from(registry: Registry) -> Self {
        registry.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_come_apart() {
        let cases = [
            ("localhost:5100", "localhost", Some(5100), true),
            ("127.0.0.9", "127.0.0.9", None, true),
            ("[::1]:5000", "::1", Some(5000), true),
            ("[::1]", "::1", None, true),
            ("registry.example:443", "registry.example", Some(443), false),
            ("localhost.example", "localhost.example", None, false),
            ("127.0.0.1.example", "127.0.0.1.example", None, false),
        ];
        for (text, host, port, loopback) in cases {
            let registry: Registry = text.parse().unwrap();
            assert_eq!((registry.host(), registry.port(), registry.is_loopback()), (host, port, loopback), "{text}");
            assert_eq!(registry.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for text in ["", ":5000", "a b", "a..b", "-a", "a-", "a:99999", "a:", "a:b", "[::1", "[zz]", "user@host", "a/b"]
        {
            assert!(text.parse::<Registry>().is_err(), "{text}");
        }
    }
}
