//! The OCI distribution API over a layout: push, pull, content discovery, content management.
//!
//! The server owns no data: blobs and names live in a [`store::Layout`], which other processes may read and write at
//! the same time. Two consequences are allowed by the specification and worth knowing:
//!
//! - Blobs are global. A blob in the layout can be pulled from, and need not be pushed to, any repository.
//! - The layout names images in full (`localhost:5100/redis:7`); lookups ignore the registry in that name, preferring
//!   the server's own where several match. What is pushed is named with the server's own.
//!
//! Because blobs are global, `DELETE` takes one away only if no image, build or push needs it; else garbage collection
//! does, later.
//!
//! Besides the API there are a page for people at `/`, `/metrics` and `/healthz`. Authentication is by name and password
//! ([`Htpasswd`]) or absent; who may come in may do everything that the server allows.

mod access;
mod api_error;
mod blobs;
mod htpasswd;
mod listing;
mod manifests;
mod metrics;
mod options;
mod page;
mod patient;
mod range;
mod receive;
mod respond;
mod route;
mod router;
mod serve;
mod tls;
mod uploads;
mod usage;

pub use htpasswd::{Htpasswd, HtpasswdError};
pub use options::{Access, AccessLog, Options};
pub use router::router;
pub use serve::{serve, serve_tls};
pub use tls::{Tls, TlsError};
