//! Where the content of a pull goes.

use std::io::{self, Write};

use content::Hash;
use oci::Descriptor;

/// A place for blobs and manifests. Called on threads that may wait.
pub trait Sink: Send + Sync {
    /// Whether this content is here already, whole. Then it is not fetched.
    fn has(&self, descriptor: &Descriptor) -> bool;

    /// Starts a blob or manifest, or goes on with one whose beginning an earlier transfer has left here.
    fn begin(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Incoming>>;
}

/// Content on its way into a [`Sink`]. Dropped without a commit, it leaves nothing behind but what a later transfer of the
/// same content can go on with.
pub trait Incoming: Write + Send {
    /// What is here from before: its hash, by the algorithm of the digest, and the number of its bytes. What is written
    /// comes after them.
    fn so_far(&self) -> Option<(Hash, u64)> {
        None
    }

    /// Keeps what was written. Called once, after the last byte, and only if size and digest were right.
    fn commit(self: Box<Self>) -> io::Result<()>;

    /// Throws away what was written, and what was here from before: size or digest were wrong.
    fn discard(self: Box<Self>) {}
}
