//! A blob on its way into a layout: hashed while it is written, visible only when it is whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use content::{Digest, HashingWriter};

use crate::StoreError;
use crate::scratch::ScratchFile;

/// Blobs are never changed, and some share their inode with the cache.
const BLOB_MODE: u32 = 0o444;

/// Writes one blob. Dropped without a commit, it leaves nothing.
///
/// Every write goes to the file at once: write large pieces, or wrap this in a [`std::io::BufWriter`].
pub struct BlobWriter {
    file: HashingWriter<File>,
    scratch: ScratchFile,
    blobs: PathBuf,
}

impl BlobWriter {
    pub(crate) fn new(scratch: ScratchFile, file: File, blobs: PathBuf) -> Self {
        Self { file: HashingWriter::new(file), scratch, blobs }
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Makes the blob durable and visible under the digest of what was written.
    pub fn commit(self) -> Result<(Digest, u64), StoreError> {
        let (file, digest, size) = self.file.finish();
        publish(&file, self.scratch, &self.blobs, digest)?;
        Ok((digest, size))
    }

    /// Commits only if the bytes have this digest; returns their number.
    pub fn commit_named(self, expected: Digest) -> Result<u64, StoreError> {
        let (file, found, size) = self.file.finish();
        if found != expected {
            return Err(StoreError::Damaged { expected, found });
        }
        publish(&file, self.scratch, &self.blobs, found)?;
        Ok(size)
    }

    /// Commits only if the bytes have this digest and number.
    pub fn commit_expecting(self, digest: Digest, size: u64) -> Result<(), StoreError> {
        if self.size() != size {
            return Err(StoreError::WrongSize { digest, expected: size, found: self.size() });
        }
        self.commit_named(digest).map(drop)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Gives a whole file its name. The bytes are on disk before the name is, and the name before we return. A blob of
/// that name is replaced: ours was just hashed, and the old one may be damaged.
pub(crate) fn publish(file: &File, scratch: ScratchFile, blobs: &Path, digest: Digest) -> Result<(), StoreError> {
    let path = blobs.join(digest.hex());
    file.set_permissions(Permissions::from_mode(BLOB_MODE))
        .map_err(StoreError::io("set the mode of", scratch.path()))?;
    file.sync_all().map_err(StoreError::io("write", scratch.path()))?;
    fs::rename(scratch.path(), &path).map_err(StoreError::io("create", &path))?;
    sync_directory(blobs)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(StoreError::io("write", directory))
}
