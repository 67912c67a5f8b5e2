//! Blobs that came in part before whoever fetched them was ended, so that the next one need not fetch all of it again.
//!
//! ```text
//! .store/partial/<hex>     the first bytes of the blob of this sha256; locked by the process that writes it
//! ```
//!
//! Nothing says how much of a file is right: after a power cut its end may be wrong. So it counts only once the whole has
//! the digest of its name, and is thrown away if not. What has rested for too long goes with the next collection.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::{Algorithm, Digest, Hash, HashingWriter};

use crate::blob_writer::{hash_so_far, publish};
use crate::lease::LeaseFile;
use crate::{Layout, StoreError};

/// A blob whose beginning may be there from before, and which stays on disk, as far as it came, if this is dropped.
pub struct PartialBlob {
    file: HashingWriter<File>,
    digest: Digest,
    path: PathBuf,
    blobs: PathBuf,
    lease: Option<Arc<LeaseFile>>,
    /// Whether it could not be written: then what there is would only fill the disk.
    failed: bool,
}

impl PartialBlob {
    /// The hash and the number of the bytes that are there.
    pub fn so_far(&self) -> (Hash, u64) {
        (self.file.hash_so_far(), self.file.size())
    }

    /// Makes the blob durable and visible, if the bytes have its digest and this number; otherwise nothing is left of it.
    pub fn commit(mut self, size: u64) -> Result<(), StoreError> {
        let (digest, found) = (self.digest, self.file.size());
        let (hash, _) = self.so_far();
        let hashed = hash.finish();
        self.failed = true;
        if found != size {
            return Err(StoreError::WrongSize { digest, expected: size, found });
        }
        if hashed != digest {
            return Err(StoreError::Damaged { expected: digest, found: hashed });
        }
        self.lease.iter().for_each(|lease| lease.keep(digest));
        publish(self.file.get_ref(), &self.path, &self.blobs, digest)
    }

    /// Removes what is there.
    pub fn discard(mut self) {
        self.failed = true;
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.failed |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        // The lock is held until afterwards. Once published, what is at the path is somebody else's.
        if (self.failed || self.file.size() == 0) && is_at(self.file.get_ref(), &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Layout {
    /// Begins a blob of a known digest, or goes on with it: what an earlier process has left is read, since it was hashed
    /// by nobody. `None` if another process is at it, if it is no sha256, or if nothing can be kept here.
    pub fn partial_blob(&self, digest: Digest) -> Option<PartialBlob> {
        if digest.algorithm() != Algorithm::Sha256 {
            return None;
        }
        let directory = self.own("partial");
        fs::create_dir_all(&directory).ok()?;
        let path = directory.join(digest.hex());
        let mut file = open_alone(&path)?;
        let (hash, size) = hash_so_far(&mut file).ok()?;
        let file = HashingWriter::resumed(file, hash, size);
        let (blobs, lease) = (self.blobs(), self.current_lease());
        Some(PartialBlob { file, digest, path, blobs, lease, failed: false })
    }
}

/// Opens a file for this process alone, and makes it if need be; a link is not followed. `None` if another one has it, or
/// it cannot be had.
pub(crate) fn open_alone(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .ok()?;
    file.try_lock().ok()?;
    // Who had the lock before us may have removed it, or made it a blob, which nobody may write to.
    is_at(&file, path).then_some(file)
}

/// Whether an open file is still what lies at a path.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = file.metadata().ok().filter(fs::Metadata::is_file).map(inode);
    ours.is_some() && ours == fs::symlink_metadata(path).ok().map(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"one blob in two parts";

    fn layout() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
        (directory, layout)
    }

    #[test]
    fn what_came_before_an_end_is_gone_on_with_and_hashed() {
        let (_directory, layout) = layout();
        let digest = Digest::of(CONTENT);
        let mut first = layout.partial_blob(digest).unwrap();
        first.write_all(&CONTENT[..8]).unwrap();
        assert!(layout.partial_blob(digest).is_none(), "two write the same file");
        drop(first);
        let mut second = layout.partial_blob(digest).unwrap();
        assert_eq!(second.so_far().1, 8);
        second.write_all(&CONTENT[8..]).unwrap();
        second.commit(CONTENT.len() as u64).unwrap();
        assert_eq!(layout.read_small(digest, 100).unwrap(), CONTENT);
        assert!(fs::read_dir(layout.own("partial")).unwrap().next().is_none());
    }

    #[test]
    fn a_beginning_that_was_wrong_is_no_blob_and_is_not_kept() {
        let (_directory, layout) = layout();
        let digest = Digest::of(CONTENT);
        fs::create_dir_all(layout.own("partial")).unwrap();
        fs::write(layout.own("partial").join(digest.hex()), "one flaw").unwrap();
        let mut blob = layout.partial_blob(digest).unwrap();
        blob.write_all(&CONTENT[8..]).unwrap();
        assert!(matches!(blob.commit(CONTENT.len() as u64), Err(StoreError::Damaged { .. })));
        assert!(layout.blob_size(digest).is_none());
        assert_eq!(layout.partial_blob(digest).unwrap().so_far().1, 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_beginning_is_not_followed() {
        let (directory, layout) = layout();
        let digest = Digest::of(CONTENT);
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::create_dir_all(layout.own("partial")).unwrap();
        std::os::unix::fs::symlink(&victim, layout.own("partial").join(digest.hex())).unwrap();
        assert!(layout.partial_blob(digest).is_none());
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}
