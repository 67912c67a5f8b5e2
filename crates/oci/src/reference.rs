//! The full name of an image: `registry/repository[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use content::Digest;
use serde::{Deserialize, Serialize};

use crate::{Registry, Repository, Tag};

/// Where an image without a registry in its name comes from, by Docker's custom.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// The old name of the same registry, which still stands in many files.
pub(crate) const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// The namespace of that registry's images whose names have one component.
const DOCKER_HUB_OFFICIAL: &str = "library";

/// The name of an image: a registry, a repository in it, and a tag, a digest, both or neither.
///
/// Parsing with [`str::parse`] takes the name as it stands and wants a registry in it. The short names that Docker's
/// users write (`debian:12`) need [`Reference::parse_familiar`], so that nothing comes from a public registry by
/// accident.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: Registry,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

/// Why a text is not the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No registry stands before the repository.
    #[error("`{text}` names no registry: expected `host[:port]/repository[:tag][@digest]`")]
    NoRegistry {
        /// What was parsed.
        text: String,
    },
    /// The part before the first slash is not a host.
    #[error("`{text}` is not a registry: expected a host name or address, and perhaps a port")]
    Registry {
        /// What was parsed.
        text: String,
    },
    /// The repository breaks the grammar.
    #[error(
        "`{text}` is not a repository: expected at most 255 lower-case letters, digits, single dots, underscores and dashes, in parts separated by `/`"
    )]
    Repository {
        /// What was parsed.
        text: String,
    },
    /// The tag breaks the grammar.
    #[error("`{text}` is not a tag: expected a letter, digit or `_`, then at most 127 of these, `.` and `-`")]
    Tag {
        /// What was parsed.
        text: String,
    },
    /// The digest is not a sha256.
    #[error("`{text}` has no valid digest")]
    Digest {
        /// What was parsed.
        text: String,
        /// What is wrong with the digest.
        source: content::DigestError,
    },
}

impl Reference {
    /// The name made of these parts.
    pub fn new(registry: Registry, repository: Repository, tag: Option<Tag>, digest: Option<Digest>) -> Self {
        Self { registry, repository, tag, digest }
    }

    /// Reads a name as Docker's users write it: without a registry it lies on Docker Hub, and there a name of one
    /// component lies in `library`. A missing tag stays missing.
    pub fn parse_familiar(text: &str) -> Result<Self, ReferenceError> {
        let (registry, rest) = match split_registry(text) {
            Some((DOCKER_HUB | DOCKER_HUB_INDEX, rest)) => (DOCKER_HUB, rest),
            Some(parts) => parts,
            None => (DOCKER_HUB, text),
        };
        if registry == DOCKER_HUB && !rest.contains('/') {
            return parse_parts(text, registry, &format!("{DOCKER_HUB_OFFICIAL}/{rest}"));
        }
        parse_parts(text, registry, rest)
    }

    /// Where the repository lives.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one is written.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What stands before the tag: `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image in another registry.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// The same registry, another repository.
    #[must_use]
    pub fn with_repository(mut self, repository: Repository) -> Self {
        self.repository = repository;
        self
    }

    /// The same repository, with this tag or none.
    #[must_use]
    pub fn with_tag(mut self, tag: Option<Tag>) -> Self {
        self.tag = tag;
        self
    }

    /// The same repository, with this digest or none.
    #[must_use]
    pub fn with_digest(mut self, digest: Option<Digest>) -> Self {
        self.digest = digest;
        self
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (registry, rest) =
            split_registry(text).ok_or_else(|| ReferenceError::NoRegistry { text: clipped(text) })?;
        parse_parts(text, registry, rest)
    }
}

/// Splits off the first component if it looks like a host: it holds a dot, a colon or an upper-case letter, or is
/// `localhost`. This is the rule by which every tool tells `example/redis` from `example.net/redis`.
fn split_registry(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once('/')?;
    let is_host = first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase());
    is_host.then_some((first, rest))
}

fn parse_parts(text: &str, registry: &str, rest: &str) -> Result<Reference, ReferenceError> {
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|source| ReferenceError::Digest { text: clipped(text), source })?;
            (rest, Some(digest))
        }
        None => (rest, None),
    };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.parse()?)),
        _ => (rest, None),
    };
    Ok(Reference { registry: registry.parse()?, repository: repository.parse()?, tag, digest })
}

/// The beginning of a text that may be anything, short enough for a message.
pub(crate) fn clipped(text: &str) -> String {
    text.chars().take(300).collect()
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_reads_what_it_prints() {
        let cases = [
            ("localhost:5100/redis:contrail-3.0-2668", "localhost:5100", "redis", Some("contrail-3.0-2668"), false),
            ("localhost/redis", "localhost", "redis", None, false),
            ("registry.example/a/b/c:V1", "registry.example", "a/b/c", Some("V1"), false),
            ("[::1]:5000/x", "[::1]:5000", "x", None, false),
            ("REGISTRY/x", "REGISTRY", "x", None, false),
        ];
        for (text, registry, repository, tag, _) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.registry().as_str(), registry, "{text}");
            assert_eq!(reference.repository().as_str(), repository, "{text}");
            assert_eq!(reference.tag().map(Tag::as_str), tag, "{text}");
            assert_eq!(reference.to_string(), text);
            let pinned = format!("{text}@{DIGEST}");
            let reference: Reference = pinned.parse().unwrap();
            assert_eq!(reference.digest(), Some(DIGEST.parse().unwrap()));
            assert_eq!(reference.to_string(), pinned);
        }
    }

    #[test]
    fn names_without_a_registry_are_refused_unless_the_familiar_reading_is_asked_for() {
        for text in ["debian", "debian:12", "library/debian"] {
            assert!(matches!(text.parse::<Reference>(), Err(ReferenceError::NoRegistry { .. })), "{text}");
        }
        let cases = [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/app", "docker.io/team/app"),
            ("docker.io/debian", "docker.io/library/debian"),
            ("index.docker.io/team/app", "docker.io/team/app"),
            ("localhost/debian", "localhost/debian"),
            ("host:1/debian", "host:1/debian"),
        ];
        for (text, expected) in cases {
            assert_eq!(Reference::parse_familiar(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        for text in [
            "",
            "localhost:5100/",
            "localhost:5100/Redis",
            "localhost:5100/redis:",
            "localhost:5100/redis:a:b",
            "localhost:5100/redis@sha256:00",
            "localhost:5100/../redis",
            "localhost:5100/redis:../x",
            "http://localhost/redis",
            "localhost:99999/redis",
            "user@localhost:1/redis",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
            assert!(Reference::parse_familiar(text).is_err(), "{text}");
        }
    }
}
