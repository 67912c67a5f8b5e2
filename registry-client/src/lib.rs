//! A client for OCI registries: push, pull, mount, list, delete.
//!
//! Every byte is verified in both directions; everything that may go wrong for a moment (429, 5xx, a broken
//! connection) is tried again, with growing random pauses or after the pause that the registry asks for; an upload
//! goes on where the registry says it stopped. Plain HTTP is spoken to loopback addresses and to hosts that were
//! named; credentials come from a [`Credentials`] of the caller's, go to the host they are for and nowhere else, and
//! are in no log.
//!
//! [`CredentialFiles`] reads the files of other tools, if a caller names them.
//!
//! The client reads no files but those it is asked to send, no environment (but for `PATH`, where programs are that
//! keep credentials) and no clock. It runs on a tokio runtime of the caller's.

mod auth;
mod backoff;
mod challenge;
mod client;
mod clients;
mod credentials;
mod download;
mod error;
mod events;
mod files;
mod listing;
mod manifests;
mod notes;
mod options;
mod proxies;
mod pull;
mod push;
mod referrers;
mod remote_source;
mod reply;
mod resolve;
mod sink;
mod source;
mod transport;
mod upload;

pub use backoff::RetryPolicy;
pub use client::{Client, Remote};
pub use credentials::{Anonymous, Credential, Credentials, CredentialsError, Secret};
pub use error::{Error, RegistryError, RequestName};
pub use events::{Event, Events, Silent};
pub use files::{CredentialFiles, Kept, LoginScope, forget_login, keep_login};
pub use manifests::{FetchedManifest, ManifestName};
pub use notes::{UploadNote, UploadNotes};
pub use options::Options;
pub use proxies::Proxies;
pub use pull::{PullReport, Pulled};
pub use push::{ImagePush, PushReport, Pusher};
pub use remote_source::RemoteSource;
pub use resolve::{PlatformList, Platforms, Resolved};
pub use sink::{Incoming, Sink};
pub use source::{BlobReader, BlobSource, BytesSource, FileSource, Opening};
pub use upload::Pushed;
