//! A family in one file, for machines without a network: its images, its specs, and what it is built from.
//!
//! Goals: read by `tar` and, as an `oci-archive:`, by tools that know images; written and read as a stream; every byte
//! checked by digest; the same family gives the same bytes; a later bundle can leave out what an earlier one has.
//!
//! ```text
//! oci-layout  index.json     first, so that the file is an archive of images like any other
//! drystone/bundle.json       what is in it: every other file with its size and sha256
//! drystone/family/…          the family's directory, its lock included
//! drystone/keyrings/…        keyrings that the family names outside of its directory
//! drystone/mirror/SUITE/…    with sources: an archive for each suite, `dists` and `pool`, as apt reads it
//! drystone/sources/NAME/…    the same for each source that has an address of its own
//! drystone/files/…           files by address, by their sha256
//! blobs/sha256/…             manifests, configurations, layers, statements
//! ```
//!
//! Loaded, the images are in a layout, and everything below `drystone/` in the family's directory: the family itself,
//! and the rest in [`CARRIED`].

pub mod carried;
mod family;
mod load;
mod save;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use content::Digest;
use layer::entry::ImagePath;
use serde::{Deserialize, Serialize};
use store::StoreError;

use crate::archive::ArchiveError;
use crate::error::BuildError;

pub use load::{Destination, Loaded, load, read_head};
pub use save::{Contents, Prepared, Saved, prepare};

/// The directory of a loaded family that holds what the bundle brought besides the family.
pub const CARRIED: &str = ".drystone";
/// The list of what is in a bundle.
pub const LIST: &str = "drystone/bundle.json";
/// The only version there is.
const VERSION: u32 = 1;
/// The largest list that is read: some hundred thousand files.
const LARGEST_LIST: u64 = 64 << 20;

/// What is in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The version of the format.
    pub version: u32,
    /// The name of the family's directory.
    pub family: String,
    /// Whether the family can be built from it.
    pub with_sources: bool,
    /// The digest of `index.json`.
    pub index: Digest,
    /// The list of the earlier bundle that has to be loaded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Digest>,
    /// Files by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Everything else in the file, and what the earlier bundle has of it.
    pub files: Vec<Member>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its path in the tar.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// Whether it is in the earlier bundle, and not in this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier: bool,
}

/// A file by address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The address, as the spec has it.
    pub url: String,
    /// What it hashes to.
    pub digest: Digest,
}

/// Where a file of a bundle belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Into the layout.
    Blob,
    /// Into the family's directory, at this path.
    Family(ImagePath),
}

/// Why a bundle cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The images, or the file itself.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The layout.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The family, or what it is built from.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An image of the family was not built.
    #[error("{0} is not in the layout")]
    NotBuilt(Box<oci::Reference>),
    /// A file of the family cannot be part of a bundle.
    #[error("`{}` cannot be in a bundle: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A file of this machine failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no bundle, or a damaged one.
    #[error("this is not a bundle, or it is damaged: {0}")]
    Damaged(String),
    /// The file cannot be read as a tar.
    #[error("the bundle cannot be read")]
    Read(#[source] io::Error),
    /// What the bundle builds on is not here.
    #[error(
        "the bundle was saved with --since, and what it builds on is not here: {missing} files, `{first}` among them"
    )]
    Earlier {
        /// How many files are missing.
        missing: usize,
        /// One of them.
        first: String,
    },
    /// The directory holds something else.
    #[error("`{}` {why}", path.display())]
    Destination {
        /// The directory.
        path: PathBuf,
        /// Why nothing is put there.
        why: String,
    },
}

impl BundleError {
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Bundle {
    /// Reads a list, and refuses one that could lead anywhere else than it should.
    fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let malformed = |error: serde_json::Error| BundleError::Damaged(format!("`{LIST}`: {error}"));
        let Version { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(BundleError::Damaged(format!("its version is {version}, expected {VERSION}")));
        }
        let bundle: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        let name = ImagePath::parse(&bundle.family).ok();
        if name.is_none_or(|name| name.names().count() != 1 || name.as_bytes() != bundle.family.as_bytes()) {
            return Err(BundleError::Damaged("the family's name is not that of a directory".to_owned()));
        }
        let mut paths = BTreeSet::new();
        for member in &bundle.files {
            member.place()?;
            if !paths.insert(&member.path) {
                return Err(BundleError::Damaged(format!("`{}` is listed twice", member.path)));
            }
        }
        Ok(bundle)
    }

    fn to_bytes(&self) -> Vec<u8> {
        oci::canonical_bytes(self).expect("a list has only strings, whole numbers and truth values")
    }

    /// Names this bundle.
    pub fn id(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }
}

impl Member {
    fn place(&self) -> Result<Place, BundleError> {
        let refused = || BundleError::Damaged(format!("`{}` is no path of a bundle", self.path));
        if let Some(hex) = self.path.strip_prefix("blobs/sha256/") {
            return if hex == self.digest.hex() { Ok(Place::Blob) } else { Err(refused()) };
        }
        let rest = self.path.strip_prefix("drystone/").ok_or_else(refused)?;
        let path = ImagePath::parse(rest).map_err(|_| refused())?;
        // Nothing may have two names.
        if path.as_bytes() != rest.as_bytes() {
            return Err(refused());
        }
        let (area, below) = rest.split_once('/').ok_or_else(refused)?;
        match area {
            "family" if below.split('/').next() == Some(CARRIED) => Err(refused()),
            "family" => Ok(Place::Family(ImagePath::parse(below).map_err(|_| refused())?)),
            "keyrings" | "mirror" | "sources" | "files" => {
                let carried = ImagePath::parse(format!("{CARRIED}/{rest}")).map_err(|_| refused())?;
                Ok(Place::Family(carried))
            }
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests;
