//! What machine an image is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lenient::{is_default, null_is_default};

/// An operating system, an architecture in Go's words, and for some architectures a variant: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
    /// The version of the operating system; Windows images have one.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that the image needs.
    #[serde(rename = "os.features", default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub os_features: Vec<String>,
    /// The variant of the processor: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is not `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform: expected `os/architecture[/variant]`, for example `linux/amd64`")]
pub struct PlatformError {
    text: String,
}

impl Platform {
    /// Linux on the given architecture (in Go's words).
    pub fn linux(architecture: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: None,
        }
    }

    /// Whether an image for this platform is what someone who asked for `wanted` gets. A variant that is not asked
    /// for does not matter, and 64-bit ARM is `v8` whether that is written or not.
    pub fn serves(&self, wanted: &Platform) -> bool {
        let variant = |platform: &Platform| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", Some("v8")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (variant(wanted).is_none() || variant(self) == variant(wanted))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let valid = (2..=3).contains(&parts.len()) && parts.iter().all(is_word);
        if !valid {
            return Err(PlatformError { text: crate::reference::clipped(text) });
        }
        let architecture = match parts[1] {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            os: parts[0].to_owned(),
            variant: parts
                .get(2)
                .filter(|variant| (architecture, **variant) != ("arm64", "v8"))
                .map(ToString::to_string),
            ..Self::linux(architecture)
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_and_print() {
        for (text, printed) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/x86_64", "linux/amd64"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), printed);
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variant_matters_only_when_it_is_asked_for() {
        let cases = [
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/amd64", "linux/arm64", false),
        ];
        for (has, wanted, expected) in cases {
            let (has, wanted): (Platform, Platform) = (has.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(has.serves(&wanted), expected, "{has} for {wanted}");
        }
    }
}
