//! The OCI distribution API over a layout: push, pull, content discovery, content management.
//!
//! The server owns no data: blobs and names live in a [`store::Layout`], which other processes may read and write at
//! the same time. Two consequences are allowed by the specification and worth knowing:
//!
//! - Blobs are global. A blob in the layout can be pulled from, and need not be pushed to, any repository.
//! - The layout names images in full (`localhost:5100/redis:7`); lookups ignore the registry in that name, preferring
//!   the server's own where several match. What is pushed is named with the server's own.
//!
//! Blobs are not deleted over HTTP: another process may be about to name them. Garbage collection removes them.
//! There is no authentication here: listen on loopback, or behind something that has it.

mod api_error;
mod blobs;
mod listing;
mod manifests;
mod options;
mod range;
mod receive;
mod respond;
mod route;
mod router;
mod serve;
mod uploads;

pub use options::Options;
pub use router::router;
pub use serve::serve;
