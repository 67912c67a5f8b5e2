//! What is remembered of uploads, so that a push that was ended goes on where the registry has stopped taking.

use content::Digest;

use crate::Remote;

/// Keeps notes about uploads under way, for whoever pushes next. The address of an upload may let others write to it: keep
/// it as one keeps a password.
pub trait UploadNotes: Send + Sync {
    /// The note about one blob on its way into one repository, which nobody else gets while it is held. `None` if somebody
    /// holds it, or nothing can be kept. Called on threads that may wait, and so are the methods of the note.
    fn take(&self, remote: &Remote, digest: Digest) -> Option<Box<dyn UploadNote>>;
}

/// One note. What cannot be written is not remembered, which costs sending the blob again.
pub trait UploadNote: Send + Sync {
    /// The address that was written, by this process or another one.
    fn read(&self) -> Option<String>;

    /// Replaces the address.
    fn write(&self, address: &str);

    /// Forgets it: the upload has ended.
    fn remove(&self);
}
