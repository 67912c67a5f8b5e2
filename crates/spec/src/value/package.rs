//! A package that an image asks for: `nodejs`, `libc6:i386`, `redis-server=5:7.0.15-1`.

use std::fmt;
use std::str::FromStr;

use super::Invalid;

/// A name, and the architecture and version if the author insists on one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageRequest {
    /// The package's name, or one that another package provides.
    pub name: String,
    /// Behind a colon.
    pub architecture: Option<String>,
    /// Behind an equals sign: exactly this version.
    pub version: Option<String>,
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(formatter, ":{architecture}")?;
        }
        if let Some(version) = &self.version {
            write!(formatter, "={version}")?;
        }
        Ok(())
    }
}

impl FromStr for PackageRequest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(text, "a package", "`name`, `name:architecture` or `name=version`");
        let (left, version) = text.split_once('=').map_or((text, None), |(left, version)| (left, Some(version)));
        let (name, architecture) = left.split_once(':').map_or((left, None), |(name, arch)| (name, Some(arch)));
        if text.contains(char::is_whitespace) {
            return Err(invalid().help("write one package an entry"));
        }
        if !is_package_name(name) || !architecture.is_none_or(is_architecture) || !version.is_none_or(is_version) {
            return Err(invalid());
        }
        Ok(Self { name: name.into(), architecture: architecture.map(Into::into), version: version.map(Into::into) })
    }
}

/// Debian policy 5.6.1: lower-case letters, digits, `+`, `-` and `.`, at least two of them.
fn is_package_name(text: &str) -> bool {
    (2..=128).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
}

fn is_architecture(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_version(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_names_with_architecture_and_version() {
        for text in
            ["nodejs", "libstdc++6", "libc6:i386", "redis-server=5:7.0.15-1~deb12u5", "python3.11:amd64=3.11.2-6"]
        {
            assert_eq!(text.parse::<PackageRequest>().unwrap().to_string(), text);
        }
        for text in ["", "a", "Redis", "a b", "redis=", "redis:", "-redis", "redis/sid", "red$is"] {
            assert!(text.parse::<PackageRequest>().is_err(), "{text}");
        }
    }
}
