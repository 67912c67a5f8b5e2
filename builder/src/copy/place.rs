//! Where images are, in the words of skopeo's users: `registry.example/app:v1`, `docker://…`, `oci:DIR[:NAME]`,
//! `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci::{Descriptor, REF_NAME, Reference, ReferenceError, Tag};

use crate::archive::Format;

/// Where an image is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a registry.
    Registry(Reference),
    /// In an OCI image layout.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// The image's name there.
        name: Option<String>,
    },
    /// In a file.
    Archive {
        /// The file.
        file: PathBuf,
        /// The image's name there.
        name: Option<String>,
        /// Which kind of archive it is.
        format: Format,
    },
}

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Neither a transport with a path nor a reference.
    #[error(
        "`{text}` is no place for an image: expected `HOST[:PORT]/NAME[:TAG]`, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]` or `docker-archive:FILE[:NAME]`"
    )]
    Text {
        /// What was parsed.
        text: String,
        /// Why it is no reference either.
        source: ReferenceError,
    },
    /// A transport of skopeo's that is not known here, or one without a path.
    #[error("`{text}` is no place for an image: {reason}")]
    Transport {
        /// What was parsed.
        text: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing has the name.
    #[error("`{place}` has no image `{name}`; it has: {}", list(there))]
    Missing {
        /// The directory or file.
        place: PathBuf,
        /// What was looked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// No name was given, and there are several, or none.
    #[error("which image of `{place}`? it has: {}", list(there))]
    Several {
        /// The directory or file.
        place: PathBuf,
        /// What there is.
        there: Vec<String>,
    },
    /// The image has no name, and was given none.
    #[error("the image has no name where it comes from: give it one, as in `{place}:NAME`")]
    Unnamed {
        /// Where it goes.
        place: String,
    },
    /// The name cannot be that of an image.
    #[error("`{name}` cannot be the name of an image in an archive")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// An archive of Docker's has images and nothing else.
    #[error("`{}` cannot hold what is said about an image: an `oci-archive:` can", place.display())]
    Statements {
        /// The archive.
        place: PathBuf,
    },
    /// There is no image for the platform.
    #[error("`{place}` has no image for {platform}")]
    Platform {
        /// The place.
        place: String,
        /// What was asked for.
        platform: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let wrong = |reason| PlaceError::Transport { text: text.to_owned(), reason };
        let reference = |name: &str| {
            name.parse().map(Self::Registry).map_err(|source| PlaceError::Text { text: text.to_owned(), source })
        };
        if let Some(name) = text.strip_prefix("docker://") {
            return reference(name);
        }
        let Some((transport, rest)) = text.split_once(':') else { return reference(text) };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
            None => (rest, None),
        };
        match transport {
            "oci" | "oci-archive" | "docker-archive" if path.is_empty() => Err(wrong("a path has to follow")),
            "oci" => Ok(Self::Layout { directory: path.into(), name }),
            "oci-archive" => Ok(Self::Archive { file: path.into(), name, format: Format::Oci }),
            "docker-archive" => Ok(Self::Archive { file: path.into(), name, format: Format::Docker }),
            "dir" | "containers-storage" | "docker-daemon" | "ostree" | "sif" => {
                Err(wrong("known are `docker://`, `oci:`, `oci-archive:` and `docker-archive:`"))
            }
            _ => reference(text),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { directory, name } => ("oci", directory, name),
            Self::Archive { file, name, format: Format::Oci } => ("oci-archive", file, name),
            Self::Archive { file, name, format: Format::Docker } => ("docker-archive", file, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

/// The entry of a layout that a name means: exactly it, else the only one with this tag. Without a name, the only one
/// that is no artifact about another. With its whole name, if it has one.
pub(super) fn choose(
    entries: &[Descriptor],
    name: Option<&str>,
    place: &Path,
) -> Result<(Option<Reference>, Descriptor), PlaceError> {
    let named = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let whole = |entry: &Descriptor| named(entry).and_then(|name| name.parse::<Reference>().ok());
    let found: Vec<&Descriptor> = match name {
        Some(name) => {
            let exact = entries.iter().filter(|entry| named(entry).as_deref() == Some(name)).collect::<Vec<_>>();
            let tag = |entry: &&Descriptor| {
                whole(entry).and_then(|reference| reference.tag().map(Tag::to_string)).as_deref() == Some(name)
            };
            if exact.is_empty() { entries.iter().filter(tag).collect() } else { exact }
        }
        // Statements about images are named by digest.
        None => entries.iter().filter(|entry| whole(entry).is_none_or(|name| name.tag().is_some())).collect(),
    };
    let there = || entries.iter().filter_map(named).take(20).collect();
    match (found.as_slice(), name) {
        ([entry], _) => {
            let mut descriptor = (*entry).clone();
            let whole = whole(entry);
            descriptor.annotations.clear();
            Ok((whole, descriptor))
        }
        ([], Some(name)) => Err(PlaceError::Missing { place: place.into(), name: name.into(), there: there() }),
        _ => Err(PlaceError::Several { place: place.into(), there: there() }),
    }
}

/// The name that an image gets in an archive: what was said, by Docker's custom, else what it was called before.
pub(super) fn archive_name(
    name: Option<&str>,
    before: Option<&Reference>,
    file: &Path,
) -> Result<Reference, PlaceError> {
    let reference = match (name, before) {
        (Some(name), _) => {
            Reference::parse_familiar(name).map_err(|source| PlaceError::Name { name: name.to_owned(), source })?
        }
        (None, Some(before)) => before.clone(),
        (None, None) => return Err(PlaceError::Unnamed { place: file.display().to_string() }),
    };
    let tag = reference.tag().cloned().or_else(|| reference.digest().is_none().then(Tag::latest));
    Ok(reference.with_tag(tag))
}

#[cfg(test)]
mod tests {
    use oci::MediaType;

    use super::*;

    #[test]
    fn places_are_spelled_as_for_skopeo() {
        let archive = |format| Place::Archive { file: "a/b.tar".into(), name: None, format };
        let layout = |name: Option<&str>| Place::Layout { directory: "dir".into(), name: name.map(str::to_owned) };
        let registry = |text: &str| Place::Registry(text.parse().unwrap());
        let cases = [
            ("localhost:5100/redis:v1", registry("localhost:5100/redis:v1")),
            ("docker://localhost/redis", registry("localhost/redis")),
            ("oci:dir", layout(None)),
            ("oci:dir:localhost:5100/redis:v1", layout(Some("localhost:5100/redis:v1"))),
            ("oci-archive:a/b.tar", archive(Format::Oci)),
            ("docker-archive:a/b.tar:", archive(Format::Docker)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Place>().unwrap(), expected, "{text}");
        }
        for text in ["", "redis", "redis:v1", "oci:", "oci-archive::x", "dir:x", "docker-daemon:x", "docker://redis"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_image_is_found_by_its_name_its_tag_or_because_it_is_alone() {
        let entry =
            |name: &str| Descriptor::of(MediaType::ImageManifest, name.as_bytes()).with_annotation(REF_NAME, name);
        let about = format!("localhost/a@{}", content::Digest::of(b""));
        let one = [entry("localhost/a:v1"), entry(&about)];
        let two = [entry("localhost/a:v1"), entry("localhost/b:v2"), entry("v3")];
        let chosen =
            |entries: &[Descriptor], name| choose(entries, name, Path::new("x")).map(|(_, found)| found.digest);
        let digest = |name: &str| content::Digest::of(name.as_bytes());
        assert_eq!(chosen(&one, None).unwrap(), digest("localhost/a:v1"));
        assert_eq!(chosen(&two, Some("localhost/b:v2")).unwrap(), digest("localhost/b:v2"));
        assert_eq!(chosen(&two, Some("v2")).unwrap(), digest("localhost/b:v2"));
        assert_eq!(chosen(&two, Some("v3")).unwrap(), digest("v3"));
        assert!(matches!(chosen(&two, None), Err(PlaceError::Several { .. })));
        assert!(matches!(chosen(&two, Some("v9")), Err(PlaceError::Missing { .. })));
        assert!(matches!(chosen(&[], None), Err(PlaceError::Several { .. })));
    }
}
