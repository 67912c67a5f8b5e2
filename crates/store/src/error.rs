//! Why something could not be stored or read.

use std::io;
use std::path::{Path, PathBuf};

use content::Digest;
use oci::DocumentError;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, …
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The directory is something else than an OCI image layout.
    #[error("`{}` is not an OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// The layout's index cannot be read.
    #[error("`{}` is not a valid index", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// Nothing has this name.
    #[error("blob {digest} is not in the layout")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// The blob is longer or shorter than announced.
    #[error("blob {digest} has {found} bytes, expected {expected}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// The announced size.
        expected: u64,
        /// The size on disk.
        found: u64,
    },
    /// The bytes are not the ones that were named.
    #[error("blob {expected} is damaged: its bytes hash to {found}")]
    Damaged {
        /// The name.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The blob is larger than what may be read into memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} that may be read at once")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The blob is not the document that its descriptor announces.
    #[error("blob {digest} cannot be read as a document")]
    Document {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// What a name leads to cannot be read, so that nobody knows what it needs.
    #[error("`{name}` cannot be read, so that nobody knows which blobs it needs")]
    Unreadable {
        /// The image.
        name: String,
        /// Why it cannot be read.
        source: Box<StoreError>,
    },
    /// A record for the cache that JSON cannot express.
    #[error("record for `{}` cannot be written as JSON", path.display())]
    Record {
        /// Where it would have gone.
        path: PathBuf,
        /// What is wrong with it.
        source: oci::CanonicalError,
    },
}

impl StoreError {
    /// Names the path and what was tried on it; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether this is an absence, not a failure.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}
