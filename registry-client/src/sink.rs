//! Where the content of a pull goes.

use std::io::{self, Write};

use oci::Descriptor;

/// A place for blobs and manifests. Called on threads that may wait.
pub trait Sink: Send + Sync {
    /// Whether this content is here already, whole. Then it is not fetched.
    fn has(&self, descriptor: &Descriptor) -> bool;

    /// Starts a blob or manifest.
    fn begin(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Incoming>>;
}

/// Content on its way into a [`Sink`]. Dropped without a commit, it must leave nothing behind.
pub trait Incoming: Write + Send {
    /// Keeps what was written. Called once, after the last byte, and only if size and digest were right.
    fn commit(self: Box<Self>) -> io::Result<()>;
}
