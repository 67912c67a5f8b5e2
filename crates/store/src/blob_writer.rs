//! A blob on its way into a layout: hashed while it is written, visible only when it is whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::{Algorithm, Digest, Hash, HashingReader, HashingWriter};

use crate::StoreError;
use crate::lease::LeaseFile;
use crate::scratch::ScratchFile;

/// Blobs are never changed, and some share their inode with the cache.
const BLOB_MODE: u32 = 0o444;

/// Writes one blob. Dropped without a commit, it leaves nothing.
///
/// Every write goes to the file at once: write large pieces, or wrap this in a [`std::io::BufWriter`].
pub struct BlobWriter {
    file: HashingWriter<File>,
    scratch: ScratchFile,
    /// The layout's `blobs`.
    blobs: PathBuf,
    /// Who keeps the blob until something names it.
    lease: Option<Arc<LeaseFile>>,
}

impl BlobWriter {
    pub(crate) fn new(scratch: ScratchFile, file: File, blobs: PathBuf, lease: Option<Arc<LeaseFile>>) -> Self {
        Self { file: HashingWriter::new(file), scratch, blobs, lease }
    }

    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Makes the blob durable and visible under the digest of what was written.
    pub fn commit(self) -> Result<(Digest, u64), StoreError> {
        let (file, digest, size) = self.file.finish();
        self.lease.iter().for_each(|lease| lease.keep(digest));
        publish(&file, self.scratch.path(), &self.blobs, digest)?;
        Ok((digest, size))
    }

    /// Commits only if the bytes have this digest; returns their number.
    pub fn commit_named(self, expected: Digest) -> Result<u64, StoreError> {
        let (file, found, size) = self.file.finish();
        check_name(self.scratch.path(), found, expected)?;
        self.lease.iter().for_each(|lease| lease.keep(expected));
        publish(&file, self.scratch.path(), &self.blobs, expected)?;
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

/// Whether a file whose sha256 is `found` has the name that somebody gives it. A sha512 is seldom asked for, so nothing
/// computes it while bytes come: the file is read again.
pub(crate) fn check_name(path: &Path, found: Digest, expected: Digest) -> Result<(), StoreError> {
    let found = match expected.algorithm() {
        Algorithm::Sha256 => found,
        Algorithm::Sha512 => {
            let file = File::open(path).map_err(StoreError::io("read", path))?;
            hash_file(&file, Algorithm::Sha512).map_err(StoreError::io("read", path))?.0
        }
    };
    if found == expected { Ok(()) } else { Err(StoreError::Damaged { expected, found }) }
}

/// The digest and the number of a file's bytes, from where it stands.
pub(crate) fn hash_file(file: &File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let mut reader = HashingReader::with(algorithm, file);
    let mut buffer = vec![0; 256 << 10];
    while reader.read(&mut buffer)? > 0 {}
    let (_, digest, size) = reader.finish();
    Ok((digest, size))
}

/// The hash of a file from where it stands, to go on with, and the number of bytes. It stands at its end afterwards.
pub(crate) fn hash_so_far(file: &mut File) -> io::Result<(Hash, u64)> {
    let (mut hash, mut size) = (Hash::new(Algorithm::Sha256), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hash, size)),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

/// Gives a whole file its name. The bytes are on disk before the name is, and the name before we return. A blob of
/// that name is replaced: ours was just hashed, and the old one may be damaged.
pub(crate) fn publish(file: &File, from: &Path, blobs: &Path, digest: Digest) -> Result<(), StoreError> {
    let directory = blobs.join(digest.algorithm().name());
    let path = directory.join(digest.hex());
    file.set_permissions(Permissions::from_mode(BLOB_MODE)).map_err(StoreError::io("set the mode of", from))?;
    file.sync_all().map_err(StoreError::io("write", from))?;
    match fs::rename(from, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
            sync_directory(blobs)?;
            fs::rename(from, &path).map_err(StoreError::io("create", &path))?;
        }
        other => other.map_err(StoreError::io("create", &path))?,
    }
    sync_directory(&directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(StoreError::io("write", directory))
}
