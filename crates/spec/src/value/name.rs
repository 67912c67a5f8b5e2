//! Names: of images, tags, registries, labels, variables, platforms and signals.

use std::str::FromStr;

use super::{Invalid, text_type};

/// The distribution specification leaves room for a registry's name within 255 bytes.
const LONGEST_NAME: usize = 255;

text_type! {
    /// An image's name in its registry, by the grammar of the distribution specification: `redis`, `team/web-ui`.
    ImageName
}

text_type! {
    /// What stands behind the colon of a reference: `latest`, `contrail-3.0-2668`.
    Tag
}

text_type! {
    /// Where images are pushed: `localhost:5100`, `registry.example/team`.
    Registry
}

text_type! {
    /// The key of a label or an annotation: `org.opencontainers.image.vendor`.
    LabelKey
}

text_type! {
    /// The name of an environment variable.
    EnvName
}

text_type! {
    /// `os/architecture`, with a variant where needed: `linux/amd64`, `linux/arm/v7`.
    Platform
}

text_type! {
    /// The signal that asks the process to end: `SIGTERM`, `SIGRTMIN+3` or a number.
    StopSignal
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = "lower-case letters and digits, joined by `-`, `_`, `.` or `/`";
        if text == "scratch" {
            return Err(Invalid::new(text, "a name for an image", "another name: `scratch` means no parent at all"));
        }
        if text.len() > LONGEST_NAME || !text.split('/').all(is_name_component) {
            let lower = text.to_ascii_lowercase();
            let invalid = Invalid::new(text, "a name for an image", expected);
            return Err(if lower != text && lower.split('/').all(is_name_component) {
                invalid.help(format!("did you mean `{lower}`?"))
            } else {
                invalid
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_name_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(first)
        && is_word(last)
        && bytes
            .split(|&byte| is_word(byte))
            .all(|joint| matches!(joint, [] | [b'.'] | [b'_'] | [b'_', b'_']) || joint.iter().all(|&byte| byte == b'-'))
}

impl FromStr for Tag {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let good = (1..=128).contains(&text.len())
            && text.bytes().enumerate().all(|(at, byte)| is_word(byte) || (at > 0 && matches!(byte, b'.' | b'-')));
        let expected = "up to 128 letters, digits, `_`, `.` and `-`, the first no `.` or `-`";
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new(text, "a tag", expected)) }
    }
}

impl FromStr for Registry {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(text, "a registry", "`host`, `host:port`, and a path if the images share one");
        if text.contains("://") {
            return Err(invalid().help("leave the scheme out: whether it is http or https is not said here"));
        }
        let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
        let path_is_good = path.is_none_or(|path| path.split('/').all(is_name_component));
        if text.len() > LONGEST_NAME || !is_host_and_port(host) || !path_is_good {
            return Err(invalid());
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => return address.parse::<std::net::Ipv6Addr>().is_ok() && is_port_suffix(port),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label_is_good = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label_is_good) && port.is_none_or(is_port)
}

fn is_port_suffix(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

impl FromStr for LabelKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_joint = |byte: u8| matches!(byte, b'.' | b'-' | b'_' | b'/');
        let good = (1..=LONGEST_NAME).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_joint(byte))
            && !text.starts_with(|first: char| !first.is_ascii_alphanumeric())
            && !text.ends_with(|last: char| !last.is_ascii_alphanumeric())
            && !text.contains("..");
        let expected = "letters and digits, joined by `.`, `-`, `_` or `/`";
        if good { Ok(Self(text.to_owned())) } else { Err(Invalid::new(text, "a key for a label", expected)) }
    }
}

impl FromStr for EnvName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() <= LONGEST_NAME && crate::interpolate::is_name(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(text, "a name for a variable", "letters, digits and `_`, no digit first"))
    }
}

impl FromStr for Platform {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<&str> = text.split('/').collect();
        let part_is_good = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if (2..=3).contains(&parts.len()) && parts.iter().all(part_is_good) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(text, "a platform", "`os/architecture`, such as `linux/amd64`"))
    }
}

impl FromStr for StopSignal {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
        let is_named = text.len() <= 16
            && text.strip_prefix("SIG").is_some_and(|name| {
                name.starts_with(|first: char| first.is_ascii_uppercase())
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-'))
            });
        if is_number || is_named {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(text, "a signal", "a name such as `SIGTERM`, or a number"))
    }
}

/// Whether `text` may name an image of a registry; the exact grammar is the reader's who resolves it.
pub(crate) fn check_reference(text: &str) -> Result<(), Invalid> {
    let good = (1..=1024).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/:@-[]".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
        && text.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '_' || last == '-')
        && !text.contains("//");
    if good {
        return Ok(());
    }
    Err(Invalid::new(
        text,
        "a parent",
        "an image of this family, `scratch`, or a reference such as `registry/name:tag`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: FromStr>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_ok(), "{text} is good");
        }
    }

    fn refuses<T: FromStr>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_err(), "{text:?} is bad");
        }
    }

    #[test]
    fn image_names_follow_the_distribution_grammar() {
        accepts::<ImageName>(&["redis", "a", "a-b", "a--b", "a__b", "a.b", "a_b", "team/web-ui", "3"]);
        refuses::<ImageName>(&[
            "", "A", "-a", "a-", "a..b", "a___b", "a._b", "/a", "a/", "a//b", "a b", "scratch", "ü",
        ]);
        refuses::<ImageName>(&[&"a".repeat(256)]);
    }

    #[test]
    fn tags_registries_and_platforms_follow_their_grammars() {
        accepts::<Tag>(&["latest", "contrail-3.0-2668", "_x", "A1"]);
        refuses::<Tag>(&["", ".a", "-a", "a b", "a/b", &"x".repeat(129)]);
        accepts::<Registry>(&[
            "localhost:5100",
            "registry.example",
            "registry.example:443/team/x",
            "127.0.0.1:5000",
            "[::1]:5000",
        ]);
        refuses::<Registry>(&["", "https://x", "x:", "x:0", "x:99999", "x:+1", "x/", "x/A", "-x", "x y", "[x]:1"]);
        accepts::<Platform>(&["linux/amd64", "linux/arm/v7"]);
        refuses::<Platform>(&["linux", "linux/", "a/b/c/d", "Linux/amd64"]);
    }

    #[test]
    fn label_keys_variables_and_signals_follow_their_grammars() {
        accepts::<LabelKey>(&["net.juniper.contrail", "a", "io.k8s/x_y-z", "Name"]);
        refuses::<LabelKey>(&["", "a b", ".a", "a.", "a..b", "a=b", "ü"]);
        accepts::<EnvName>(&["PATH", "_x", "A1"]);
        refuses::<EnvName>(&["", "1A", "A-B", "A=B", "A B"]);
        accepts::<StopSignal>(&["SIGTERM", "SIGRTMIN+3", "15"]);
        refuses::<StopSignal>(&["", "TERM", "SIG", "0", "65", "sigterm", "SIG TERM"]);
    }
}
