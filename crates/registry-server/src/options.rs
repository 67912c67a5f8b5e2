//! What a registry allows.

use std::time::Duration;

use oci::Registry;

/// What a registry allows, and what it calls itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// The registry's public name, under which pushed images are stored.
    pub name: Registry,
    /// Whether pushing and deleting are refused.
    pub read_only: bool,
    /// The largest blob that is taken, in bytes.
    pub max_blob_size: u64,
    /// How many uploads may be open at once.
    pub max_uploads: usize,
    /// How long an upload may rest before it is thrown away.
    pub upload_idle: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_idle: Duration,
}

impl Options {
    /// Generous limits, writable.
    pub fn new(name: Registry) -> Self {
        Self {
            name,
            read_only: false,
            max_blob_size: 1 << 40,
            max_uploads: 256,
            upload_idle: Duration::from_secs(60 * 60),
            body_idle: Duration::from_secs(60),
        }
    }
}
