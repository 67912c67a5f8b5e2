//! What a registry allows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci::{MAX_MANIFEST_SIZE, Registry};

use crate::Htpasswd;

/// What a registry allows, and what it calls itself.
#[derive(Clone)]
pub struct Options {
    /// The registry's public name, under which pushed images are stored.
    pub name: Registry,
    /// Whether pushing and deleting are refused.
    pub read_only: bool,
    /// The largest blob that is taken, in bytes.
    pub max_blob_size: u64,
    /// The largest manifest that is taken, in bytes; at most [`MAX_MANIFEST_SIZE`].
    pub max_manifest_size: u64,
    /// How many bytes the whole layout may hold, with what is on its way.
    pub max_total_size: Option<u64>,
    /// How many uploads may be open at once.
    pub max_uploads: usize,
    /// How long an upload may rest before it is thrown away.
    pub upload_idle: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_idle: Duration,
    /// Who may come in; everybody if nobody is named.
    pub users: Option<Arc<Htpasswd>>,
    /// Who is told of every request.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// Is told of every request when its answer has ended.
pub trait AccessLog: Send + Sync {
    /// One request. Called from the threads of the server: it should not wait.
    fn request(&self, access: &Access<'_>);
}

/// A request and its answer. Neither the query nor any header with a credential is among it.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// From where, if that is known.
    pub peer: Option<std::net::SocketAddr>,
    /// The user whose password was right.
    pub user: Option<&'a str>,
    /// The method, as the client wrote it.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body that were handed on.
    pub bytes: u64,
    /// How long it took until the last of them.
    pub duration: Duration,
    /// What the client calls itself.
    pub agent: Option<&'a str>,
    /// Whether the answer ended before its end: the client went away.
    pub broken: bool,
}

impl Options {
    /// Generous limits, writable, open to everybody.
    pub fn new(name: Registry) -> Self {
        Self {
            name,
            read_only: false,
            max_blob_size: 1 << 40,
            max_manifest_size: MAX_MANIFEST_SIZE,
            max_total_size: None,
            max_uploads: 256,
            upload_idle: Duration::from_secs(60 * 60),
            body_idle: Duration::from_secs(60),
            users: None,
            log: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).field("read_only", &self.read_only).finish_non_exhaustive()
    }
}
