//! The words of OCI images: reference, platform, descriptor, manifest, index, config, and the one way in which they
//! become bytes.
//!
//! Media types come from `oci-spec`; the documents are structs of our own, because `oci-spec` keeps its maps in hash
//! order and equal documents would serialise differently. Everything here is read leniently (unknown keys, `null` for
//! an empty list, Docker's media types) and written strictly: [`canonical_bytes`]. No module here does any I/O; who
//! reads a foreign document and wants to pass it on keeps its bytes.

mod canonical;
mod config;
mod descriptor;
mod document;
mod index;
mod lenient;
mod manifest;
mod media_type;
mod platform;
mod reference;
mod registry;
mod repository;
mod tag;

pub use canonical::{CanonicalError, canonical_bytes};
pub use config::{Config, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use document::{Document, DocumentError, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE};
pub use index::Index;
pub use manifest::Manifest;
pub use media_type::{Compression, MediaType, MediaTypeExt, docker};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use registry::Registry;
pub use repository::Repository;
pub use tag::Tag;

/// The annotation that names an image in a layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
