//! Ports that an image declares: `80`, `80/udp`, `8000-8010`.

use std::fmt;
use std::str::FromStr;

use super::Invalid;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// The default.
    Tcp,
    /// `/udp`.
    Udp,
    /// `/sctp`.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// One port or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl Port {
    /// Every port of the range as a configuration writes it: `80/tcp`.
    pub fn each(self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(move |port| format!("{port}/{}", self.protocol))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}/{}", self.first, self.protocol)
        } else {
            write!(formatter, "{}-{}/{}", self.first, self.last, self.protocol)
        }
    }
}

impl FromStr for Port {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(text, "a port", "`80`, `80/udp` or `8000-8010`, from 1 to 65535");
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(invalid()),
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        match (port_number(first), port_number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last, protocol }),
            _ => Err(invalid()),
        }
    }
}

fn port_number(text: &str) -> Option<u16> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits_only && port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_protocols_read_as_docker_reads_them() {
        let cases = [("80", "80/tcp"), ("80/udp", "80/udp"), ("8000-8002", "8000-8002/tcp"), ("1/sctp", "1/sctp")];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), expected);
        }
        for text in ["", "0", "65536", "-1", "+80", "80/icmp", "90-80", "http", "80:80", "1-2-3"] {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
        assert_eq!("1-2/udp".parse::<Port>().unwrap().each().collect::<Vec<_>>(), ["1/udp", "2/udp"]);
    }
}
