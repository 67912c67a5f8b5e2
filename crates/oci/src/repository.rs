//! The name of a repository within its registry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ReferenceError;
use crate::reference::clipped;

/// The longest repository name that registries accept.
const MAX_LENGTH: usize = 255;

/// A repository's path in its registry: lower-case components separated by `/`, as in `contrail/redis`.
///
/// See "Pulling manifests" in the OCI distribution specification for the grammar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

impl Repository {
    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This repository below a prefix: `redis` under `team` is `team/redis`.
    pub fn under(&self, prefix: &Repository) -> Result<Self, ReferenceError> {
        format!("{prefix}/{self}").parse()
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() <= MAX_LENGTH && text.split('/').all(is_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Repository { text: clipped(text) })
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(*first)
        && is_word(*last)
        && component
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Repository {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_distribution_specification_holds() {
        let long = "a".repeat(255);
        for text in ["redis", "a/b/c", "a-b", "a--b", "a.b", "a_b", "a__b", "0", "webui-job", &long] {
            assert!(text.parse::<Repository>().is_ok(), "{text}");
        }
        let longer = "a".repeat(256);
        for text in
            ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", ".a", "a._b", "ä", "a b", "..", &longer]
        {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }
}
