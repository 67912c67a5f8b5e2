//! What this project keeps on disk: images in an OCI image layout ([`Layout`]), and everything that can be made again
//! in a cache ([`Cache`]).
//!
//! Both promise the same: a file is under its name whole or not at all, several processes may work at once, and what
//! a killed process leaves behind is removed by the next one, or gone on with. Neither knows how layers or packages are made.

mod blob_writer;
mod cache;
mod collect;
mod error;
mod evict;
mod image;
mod key_lock;
mod layout;
mod lease;
mod names;
mod note;
mod partial;
mod reach;
mod remove_tree;
mod scratch;
mod tree;
mod upload;
mod verify;
mod walk;

pub use blob_writer::BlobWriter;
pub use cache::{Area, Cache, CacheWriter};
pub use collect::{Collect, Collected, Removal, RemovedBlob};
pub use error::StoreError;
pub use evict::{PartSize, Shrunk};
pub use image::{NamedImage, StoredImage};
pub use key_lock::KeyLock;
pub use layout::{LAYOUT_MARKER, Layout};
pub use lease::{Lease, PENDING};
pub use note::Note;
pub use partial::PartialBlob;
pub use remove_tree::remove_tree;
pub use scratch::ScratchDir;
pub use tree::NewTree;
pub use upload::{Resumed, Upload};
pub use verify::{Checked, Damage, Problem};

/// The name of an entry in the cache. Make one with [`content::FramedHasher`], or use the content's own digest.
pub type CacheKey = content::Digest;
