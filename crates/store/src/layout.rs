//! An OCI image layout 1.1: images by name, blobs by digest.
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            every image: its descriptor, annotated with its full reference
//! blobs/sha256/<hex>    manifests, configs, layers; mode 0444; blobs/sha512/<hex> if somebody else named them so
//! .store/lock           held while index.json changes
//! .store/incoming/      unfinished blobs (see `scratch`)
//! .store/partial/       the beginnings of blobs that were fetched (see `partial`)
//! .store/sending/       what is known of pushes under way (see `note`)
//! .store/uploads/       blobs that come in several requests (see `upload`)
//! .store/leases/ .store/pending/ .store/sweep
//!                       what must not be removed although nothing names it yet (see `lease`)
//! ```
//!
//! A layout made by another tool is read as it is; `.store` appears with the first write. Manifests that were stored
//! by digest alone are named `registry/repository@digest`.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use content::{Algorithm, Digest, VerifyingReader};
use oci::{Descriptor, Document, ImageConfig, Index, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, REF_NAME, Reference};
use serde::Deserialize;

use crate::blob_writer::{self, hash_file, sync_directory};
use crate::lease::LeaseFile;
use crate::scratch::{self, Scratch, ScratchFile};
use crate::{BlobWriter, StoreError};

/// What the file `oci-layout` says.
pub const LAYOUT_MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The largest `index.json` that is read: some hundred thousand images.
const MAX_INDEX_SIZE: u64 = 256 << 20;

/// A directory that holds images. Any number of processes may use it at once.
pub struct Layout {
    root: PathBuf,
    scratch: Mutex<Option<Arc<Scratch>>>,
    index: Mutex<Option<Arc<KnownIndex>>>,
    /// What this process relies on, while somebody holds it.
    pub(crate) lease: Mutex<Weak<LeaseFile>>,
}

/// `index.json` as it was read. An index is only ever replaced, and while we hold this one open no other file can have
/// its number; tools that write in place change its time or size.
struct KnownIndex {
    index: Index,
    /// The entry of each name.
    names: HashMap<String, usize>,
    /// What the file was when it was read.
    stamp: Option<Stamp>,
    /// Held, so that no other file gets its number.
    _file: File,
}

/// Device, inode, size, and the times of the last change of content and of anything, with their nanoseconds.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

fn stamp(of: &fs::Metadata) -> Stamp {
    (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
}

impl KnownIndex {
    fn new(index: Index, file: File, stamp: Option<Stamp>) -> Self {
        let name = |(place, entry): (usize, &Descriptor)| Some((entry.annotations.get(REF_NAME)?.clone(), place));
        // The first of several counts.
        let names = index.manifests.iter().enumerate().rev().filter_map(name).collect();
        Self { index, names, stamp, _file: file }
    }

    fn is_at(&self, path: &Path) -> bool {
        let found = fs::symlink_metadata(path).ok().map(|metadata| stamp(&metadata));
        found.is_some() && found == self.stamp
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// Opens a layout, or makes an empty one in a directory that is absent or empty.
    pub fn open_or_create(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        if !root.join("oci-layout").exists() {
            refuse_foreign_directory(&root)?;
        }
        let layout = Self::unopened(root);
        layout.create_missing()?;
        layout.check_marker()?;
        layout.sweep();
        Ok(layout)
    }

    /// Opens a layout that must be there. Nothing is written, so this works where only reading is allowed.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let layout = Self::unopened(root.into());
        layout.check_marker()?;
        layout.sweep();
        Ok(layout)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether a blob of this digest and size is there. Its bytes are checked by whoever reads them.
    pub fn has_blob(&self, digest: Digest, size: u64) -> bool {
        self.blob_size(digest) == Some(size)
    }

    /// The size of a blob, if it is there.
    pub fn blob_size(&self, digest: Digest) -> Option<u64> {
        self.rely_on(digest);
        let metadata = fs::symlink_metadata(self.blob_path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Starts a blob.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let (file, opened) = self.scratch_file()?;
        Ok(BlobWriter::new(file, opened, self.blobs(), self.current_lease()))
    }

    /// Stores bytes that are at hand.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        self.put_bytes_as(Digest::of(bytes), bytes)
    }

    /// Stores bytes that are at hand under a name which somebody else gave them, and which is checked.
    pub fn put_bytes_as(&self, digest: Digest, bytes: &[u8]) -> Result<(Digest, u64), StoreError> {
        let size = bytes.len() as u64;
        self.rely_on(digest);
        if self.read_small(digest, size).is_ok() {
            return Ok((digest, size));
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(StoreError::io("write", &self.blob_path(digest)))?;
        Ok((digest, writer.commit_named(digest)?))
    }

    /// Stores a finished file under its digest, sharing its inode where the filesystem allows. The file is read and
    /// checked; afterwards it must not change, and its mode becomes 0444. A blob of the right size that is already
    /// there is left alone.
    pub fn put_file_link(&self, path: &Path, digest: Digest, size: u64) -> Result<(), StoreError> {
        if self.has_blob(digest, size) {
            return Ok(());
        }
        let scratch = self.scratch()?;
        match ScratchFile::link(&scratch, path) {
            Ok(link) => {
                let file = File::open(link.path()).map_err(StoreError::io("read", path))?;
                check_file(&file, path, digest, size)?;
                blob_writer::publish(&file, link.path(), &self.blobs(), digest)
            }
            // Another filesystem, too many links, or a file of another user: all of them can still be copied.
            Err(_) => self.put_file_copy(path, digest, size),
        }
    }

    fn put_file_copy(&self, path: &Path, digest: Digest, size: u64) -> Result<(), StoreError> {
        let mut file = File::open(path).map_err(StoreError::io("read", path))?;
        let mut writer = self.blob_writer()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
            if read == 0 {
                return writer.commit_expecting(digest, size);
            }
            writer.write_all(&buffer[..read]).map_err(StoreError::io("write", &self.blob_path(digest)))?;
        }
    }

    /// Opens a blob; reading it to the end fails unless it has the right bytes.
    pub fn open_blob(&self, digest: Digest, size: u64) -> Result<VerifyingReader<File>, StoreError> {
        let (file, found) = self.open_blob_file(digest)?;
        if found != size {
            return Err(StoreError::WrongSize { digest, expected: size, found });
        }
        Ok(VerifyingReader::new(file, digest, size))
    }

    /// Opens a blob whose bytes the caller does not check, because whoever gets them does. With its size.
    pub fn open_blob_file(&self, digest: Digest) -> Result<(File, u64), StoreError> {
        self.rely_on(digest);
        let path = self.blob_path(digest);
        // A layout from elsewhere may hold a symlink out of it, or a pipe that blocks whoever opens it.
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { digest }),
            other => other.map_err(StoreError::io("read", &path))?,
        };
        let metadata = file.metadata().map_err(StoreError::io("read", &path))?;
        if !metadata.is_file() {
            return Err(StoreError::Missing { digest });
        }
        Ok((file, metadata.len()))
    }

    /// Reads a blob of at most `limit` bytes, checked.
    pub fn read_small(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open_blob_file(digest)?;
        if size > limit {
            return Err(StoreError::TooLarge { digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &self.blob_path(digest)))?;
        let found = Digest::with(digest.algorithm(), &bytes);
        if found != digest {
            return Err(StoreError::Damaged { expected: digest, found });
        }
        Ok(bytes)
    }

    /// Reads the manifest or index that a descriptor names.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Document, StoreError> {
        let digest = descriptor.digest;
        let bytes = self.read_small(digest, MAX_MANIFEST_SIZE)?;
        Document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| StoreError::Document { digest, source })
    }

    /// Reads the image configuration that a descriptor names.
    pub fn read_config(&self, descriptor: &Descriptor) -> Result<ImageConfig, StoreError> {
        let digest = descriptor.digest;
        let bytes = self.read_small(digest, MAX_CONFIG_SIZE)?;
        ImageConfig::parse(&bytes).map_err(|source| StoreError::Document { digest, source })
    }

    /// Every named manifest, sorted by name; those stored by digest alone are among them. Entries of other tools that
    /// are not named by a full reference are passed over.
    pub fn references(&self) -> Result<Vec<(Reference, Descriptor)>, StoreError> {
        let known = self.known_index()?;
        let named = |entry: &Descriptor| Some((entry.annotations.get(REF_NAME)?.parse().ok()?, entry.clone()));
        let mut references: Vec<_> = known.index.manifests.iter().filter_map(named).collect();
        references.sort_by(|(left, _): &(Reference, _), (right, _)| left.cmp(right));
        Ok(references)
    }

    /// Every entry of the index, as it is written: also those that other tools gave a bare tag, or no name.
    pub fn entries(&self) -> Result<Vec<Descriptor>, StoreError> {
        Ok(self.known_index()?.index.manifests.clone())
    }

    /// What a reference names: the entry of exactly this name.
    pub fn find(&self, reference: &Reference) -> Result<Option<Descriptor>, StoreError> {
        let known = self.known_index()?;
        let place = known.names.get(&reference.to_string());
        Ok(place.map(|place| known.index.manifests[*place].clone()))
    }

    /// Names manifests, all of them or (on an error) none. A name that was there before moves to its new manifest.
    /// The manifests must have been stored.
    pub fn set_references(&self, references: &[(Reference, Descriptor)]) -> Result<(), StoreError> {
        for (_, descriptor) in references {
            if self.blob_size(descriptor.digest).is_none() {
                return Err(StoreError::Missing { digest: descriptor.digest });
            }
        }
        let named: Vec<(String, Descriptor)> = references
            .iter()
            .map(|(reference, descriptor)| {
                let name = reference.to_string();
                let entry = descriptor.clone().with_annotation(REF_NAME, &name);
                (name, entry)
            })
            .collect();
        self.update_index(|manifests| {
            let new: HashMap<&String, &Descriptor> = named.iter().map(|(name, entry)| (name, entry)).collect();
            manifests.retain(|old| old.annotations.get(REF_NAME).is_none_or(|name| !new.contains_key(name)));
            manifests.extend(new.into_values().cloned());
        })
    }

    /// Takes a name away; the blobs stay. Whether the name was there.
    pub fn remove_reference(&self, reference: &Reference) -> Result<bool, StoreError> {
        self.remove_references(|name, _| name == reference).map(|removed| removed > 0)
    }

    /// Takes away every name that `unwanted` picks, in one step; the blobs stay. How many there were.
    pub fn remove_references(&self, unwanted: impl Fn(&Reference, &Descriptor) -> bool) -> Result<usize, StoreError> {
        let mut removed = 0;
        self.update_index(|manifests| {
            let before = manifests.len();
            manifests.retain(|entry| {
                let reference = entry.annotations.get(REF_NAME).and_then(|name| name.parse().ok());
                !reference.is_some_and(|reference| unwanted(&reference, entry))
            });
            removed = before - manifests.len();
        })?;
        Ok(removed)
    }

    /// The index, read again only if it is another one than before.
    fn known_index(&self) -> Result<Arc<KnownIndex>, StoreError> {
        let mut held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = held.as_ref().filter(|known| known.is_at(&self.index_path())) {
            return Ok(Arc::clone(known));
        }
        // Before it is read: what is written while we read must not count as what we read.
        let before = fs::symlink_metadata(self.index_path()).ok().map(|metadata| stamp(&metadata));
        let (index, file) = self.read_index()?;
        let after = file.metadata().ok().map(|metadata| stamp(&metadata));
        let known = Arc::new(KnownIndex::new(index, file, before.filter(|stamp| Some(*stamp) == after)));
        *held = Some(Arc::clone(&known));
        Ok(known)
    }

    pub(crate) fn read_index(&self) -> Result<(Index, File), StoreError> {
        let path = self.index_path();
        let file = File::open(&path).map_err(StoreError::io("read", &path))?;
        let mut bytes = Vec::new();
        (&file).take(MAX_INDEX_SIZE + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        if bytes.len() as u64 > MAX_INDEX_SIZE {
            let source = oci::DocumentError::TooLarge { size: bytes.len() as u64, limit: MAX_INDEX_SIZE };
            return Err(StoreError::Index { path, source });
        }
        let index = serde_json::from_slice(&bytes).map_err(|source| StoreError::Index {
            path,
            source: oci::DocumentError::Malformed { kind: "image index", source },
        })?;
        Ok((index, file))
    }

    /// Changes the list of manifests while no other process does.
    pub(crate) fn update_index(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let (mut index, _) = self.read_index()?;
        let before = index.clone();
        change(&mut index.manifests);
        if index == before { Ok(()) } else { self.write_index(index) }
    }

    fn write_index(&self, mut index: Index) -> Result<(), StoreError> {
        index.manifests.sort_by(|left, right| {
            let key = |entry: &Descriptor| (entry.annotations.get(REF_NAME).cloned(), entry.digest);
            key(left).cmp(&key(right))
        });
        self.write_file(&self.index_path(), &index.to_bytes())
    }

    /// Replaces a file of the layout's own: the old bytes or the new ones are there, never anything else.
    fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let (scratch, mut file) = self.scratch_file()?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", scratch.path()))?;
        fs::rename(scratch.path(), path).map_err(StoreError::io("write", path))?;
        sync_directory(&self.root)
    }

    fn unopened(root: PathBuf) -> Self {
        Self { root, scratch: Mutex::new(None), index: Mutex::new(None), lease: Mutex::new(Weak::new()) }
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// A place of our own in the layout.
    pub(crate) fn own(&self, name: &str) -> PathBuf {
        self.root.join(".store").join(name)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    fn incoming(&self) -> PathBuf {
        self.own("incoming")
    }

    fn create_missing(&self) -> Result<(), StoreError> {
        self.create_directories()?;
        let _lock = self.lock()?;
        if !self.index_path().exists() {
            self.write_index(Index::new(Vec::new()))?;
        }
        // Last: a directory with this file is a whole layout.
        let marker = self.root.join("oci-layout");
        if marker.exists() { Ok(()) } else { self.write_file(&marker, LAYOUT_MARKER.as_bytes()) }
    }

    pub(crate) fn create_directories(&self) -> Result<(), StoreError> {
        for directory in [self.blobs().join(Algorithm::Sha256.name()), self.incoming()] {
            fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        }
        Ok(())
    }

    fn check_marker(&self) -> Result<(), StoreError> {
        let path = self.root.join("oci-layout");
        let foreign = |reason: String| StoreError::NotALayout { path: self.root.clone(), reason };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(foreign("it has no file `oci-layout`".to_owned()));
            }
            other => other.map_err(StoreError::io("read", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        let marker: Marker = serde_json::from_slice(&bytes)
            .map_err(|error| foreign(format!("its file `oci-layout` cannot be read: {error}")))?;
        if marker.image_layout_version.starts_with("1.") {
            return Ok(());
        }
        Err(foreign(format!("its version is `{}`, expected 1", marker.image_layout_version)))
    }

    fn sweep(&self) {
        // Where we may not write there is nothing of ours to sweep.
        let _ = scratch::sweep(&self.incoming());
    }

    fn lock(&self) -> Result<File, StoreError> {
        self.create_directories()?;
        let path = self.own("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(StoreError::io("open", &path))?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(file)
    }

    pub(crate) fn scratch(&self) -> Result<Arc<Scratch>, StoreError> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scratch) = &*scratch {
            return Ok(Arc::clone(scratch));
        }
        self.create_directories()?;
        let incoming = self.incoming();
        let created = Arc::new(Scratch::create(&incoming).map_err(StoreError::io("create a file in", &incoming))?);
        *scratch = Some(Arc::clone(&created));
        Ok(created)
    }

    fn scratch_file(&self) -> Result<(ScratchFile, File), StoreError> {
        ScratchFile::create(&self.scratch()?).map_err(StoreError::io("create a file in", &self.incoming()))
    }
}

/// A directory that holds anything else than an unfinished layout is somebody's, and not ours to fill.
fn refuse_foreign_directory(root: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(StoreError::io("read", root))?,
    };
    for entry in entries {
        let name = entry.map_err(StoreError::io("read", root))?.file_name();
        if !["blobs", "index.json", ".store"].iter().any(|ours| name == *ours) {
            let reason = format!("it has no file `oci-layout`, but a file `{}`", name.to_string_lossy());
            return Err(StoreError::NotALayout { path: root.to_owned(), reason });
        }
    }
    Ok(())
}

fn check_file(file: &File, path: &Path, digest: Digest, size: u64) -> Result<(), StoreError> {
    let (found, found_size) = hash_file(file, digest.algorithm()).map_err(StoreError::io("read", path))?;
    if found_size != size {
        return Err(StoreError::WrongSize { digest, expected: size, found: found_size });
    }
    if found != digest {
        return Err(StoreError::Damaged { expected: digest, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use oci::MediaType;

    use super::*;

    fn bench() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path().join("oci")).unwrap();
        (directory, layout)
    }

    fn incoming(layout: &Layout) -> usize {
        fs::read_dir(layout.incoming()).unwrap().count()
    }

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn a_blob_is_there_when_it_is_committed_and_not_before() {
        let (_directory, layout) = bench();
        let mut writer = layout.blob_writer().unwrap();
        writer.write_all(b"hello").unwrap();
        assert!(!layout.has_blob(Digest::of(b"hello"), 5));
        let (digest, size) = writer.commit().unwrap();
        assert_eq!((digest, size), (Digest::of(b"hello"), 5));
        assert!(layout.has_blob(digest, size));
        assert!(!layout.has_blob(digest, 4));
        let mut read = String::new();
        layout.open_blob(digest, size).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello");
        assert_eq!(fs::metadata(layout.blob_path(digest)).unwrap().permissions().mode() & 0o777, 0o444);
    }

    #[test]
    fn a_writer_that_is_dropped_or_has_the_wrong_bytes_leaves_nothing() {
        let (_directory, layout) = bench();
        let mut dropped = layout.blob_writer().unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        let expected = Digest::of(b"right");
        let mut wrong = layout.blob_writer().unwrap();
        wrong.write_all(b"wrong").unwrap();
        assert!(matches!(wrong.commit_expecting(expected, 5), Err(StoreError::Damaged { .. })));
        let mut long = layout.blob_writer().unwrap();
        long.write_all(b"right and more").unwrap();
        assert!(matches!(long.commit_expecting(expected, 5), Err(StoreError::WrongSize { .. })));
        assert_eq!(fs::read_dir(layout.blobs().join("sha256")).unwrap().count(), 0);
        let root = layout.root().to_owned();
        drop(layout);
        assert_eq!(incoming(&Layout::open(root).unwrap()), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_open() {
        let (_directory, layout) = bench();
        let mut writer = layout.blob_writer().unwrap();
        writer.write_all(b"half").unwrap();
        // A killed process runs no destructors, but its locks end; forgetting the writer keeps the lock's file open,
        // so the leftovers are made by hand.
        let dead = layout.incoming().join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("0"), "half").unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        let other = Layout::open(layout.root()).unwrap();
        assert!(!dead.exists());
        assert_eq!(incoming(&other), 2, "the living writer's lock and directory");
        writer.commit().unwrap();
    }

    #[test]
    fn two_writers_of_the_same_blob_both_succeed() {
        let (_directory, layout) = bench();
        let other = Layout::open(layout.root()).unwrap();
        let (mut first, mut second) = (layout.blob_writer().unwrap(), other.blob_writer().unwrap());
        first.write_all(b"same").unwrap();
        second.write_all(b"same").unwrap();
        assert_eq!(first.commit().unwrap(), second.commit().unwrap());
        assert_eq!(layout.read_small(Digest::of(b"same"), 10).unwrap(), b"same");
    }

    #[test]
    fn a_damaged_blob_is_an_error_when_it_is_read_and_is_healed_by_the_next_put() {
        let (_directory, layout) = bench();
        let (digest, size) = layout.put_bytes(b"precious").unwrap();
        let path = layout.blob_path(digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"precioux").unwrap();
        let error = layout.open_blob(digest, size).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(matches!(layout.read_small(digest, 100), Err(StoreError::Damaged { .. })));
        assert!(matches!(layout.read_small(digest, 3), Err(StoreError::TooLarge { .. })));
        fs::write(&path, b"short").unwrap();
        assert!(matches!(layout.open_blob(digest, size), Err(StoreError::WrongSize { .. })));
        layout.put_bytes(b"precious").unwrap();
        assert_eq!(layout.read_small(digest, 100).unwrap(), b"precious");
    }

    #[test]
    fn a_blob_that_is_a_link_out_of_the_layout_is_not_read() {
        let (directory, layout) = bench();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let digest = Digest::of(b"secret");
        symlink(&secret, layout.blob_path(digest)).unwrap();
        assert!(!layout.has_blob(digest, 6));
        assert!(layout.open_blob(digest, 6).is_err());
    }

    #[test]
    fn a_file_from_the_cache_is_linked_not_copied_and_checked() {
        let (directory, layout) = bench();
        let file = directory.path().join("layer");
        fs::write(&file, "layer").unwrap();
        let digest = Digest::of(b"layer");
        assert!(matches!(layout.put_file_link(&file, Digest::of(b"other"), 5), Err(StoreError::Damaged { .. })));
        layout.put_file_link(&file, digest, 5).unwrap();
        layout.put_file_link(&file, digest, 5).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&layout.blob_path(digest)), inode(&file));
        layout.put_file_copy(&file, digest, 5).unwrap();
        assert_ne!(inode(&layout.blob_path(digest)), inode(&file));
        assert_eq!(fs::metadata(&file).unwrap().nlink(), 1);
    }

    #[test]
    fn names_move_to_their_new_manifest_and_the_index_does_not_depend_on_the_order() {
        let (_directory, layout) = bench();
        let put = |bytes: &[u8]| {
            layout.put_bytes(bytes).unwrap();
            Descriptor::of(MediaType::ImageManifest, bytes)
        };
        let (one, two) = (put(b"1"), put(b"2"));
        let (a, b) = (reference("localhost:5100/a:t"), reference("localhost:5100/b:t"));
        layout.set_references(&[(b.clone(), two.clone()), (a.clone(), one.clone())]).unwrap();
        let bytes = fs::read(layout.index_path()).unwrap();
        layout.set_references(&[(a.clone(), two.clone())]).unwrap();
        assert_eq!(layout.find(&a).unwrap().unwrap().digest, two.digest);
        layout.set_references(&[(a.clone(), one.clone()), (b.clone(), two)]).unwrap();
        assert_eq!(fs::read(layout.index_path()).unwrap(), bytes);
        let names: Vec<_> = layout.references().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [a.clone(), b.clone()]);
        assert!(layout.remove_reference(&a).unwrap());
        assert!(!layout.remove_reference(&a).unwrap());
        assert_eq!(layout.references().unwrap().len(), 1);
        let absent = Descriptor::of(MediaType::ImageManifest, b"never stored");
        assert!(layout.set_references(&[(a, absent)]).unwrap_err().is_missing());
    }

    #[test]
    fn many_processes_naming_at_once_lose_no_name() {
        let (_directory, layout) = bench();
        layout.put_bytes(b"m").unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let other = Layout::open(layout.root()).unwrap();
                scope.spawn(move || {
                    for n in 0..10 {
                        let name = reference(&format!("localhost:5100/r{writer}:{n}"));
                        let descriptor = Descriptor::of(MediaType::ImageManifest, b"m");
                        other.set_references(&[(name, descriptor)]).unwrap();
                    }
                });
            }
        });
        assert_eq!(layout.references().unwrap().len(), 40);
    }

    #[test]
    fn a_layout_of_another_tool_keeps_its_other_entries() {
        let (_directory, layout) = bench();
        let foreign = Descriptor::of(MediaType::ImageManifest, b"f").with_annotation(REF_NAME, "latest");
        let unnamed = Descriptor::of(MediaType::ImageManifest, b"u");
        layout.write_index(Index::new(vec![foreign, unnamed])).unwrap();
        layout.put_bytes(b"m").unwrap();
        let name = reference("localhost:5100/a:t");
        layout.set_references(&[(name, Descriptor::of(MediaType::ImageManifest, b"m"))]).unwrap();
        assert_eq!(layout.read_index().unwrap().0.manifests.len(), 3);
        assert_eq!(layout.references().unwrap().len(), 1);
    }

    #[test]
    fn directories_that_are_something_else_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let message = |result: Result<Layout, StoreError>| result.err().unwrap().to_string();
        assert!(message(Layout::open(root)).contains("no file `oci-layout`"));
        fs::write(root.join("homework.txt"), "").unwrap();
        assert!(message(Layout::open_or_create(root)).contains("homework.txt"));
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
        assert!(message(Layout::open(root)).contains("its version is `2.0.0`"));
        fs::write(root.join("oci-layout"), "no").unwrap();
        assert!(message(Layout::open(root)).contains("cannot be read"));
    }

    #[test]
    fn what_others_do_to_the_index_is_seen() {
        let (_directory, layout) = bench();
        let (digest, _) = layout.put_bytes(b"m").unwrap();
        let names = [reference("localhost:5100/a:t"), reference("localhost:5100/b:t")];
        assert!(layout.find(&names[0]).unwrap().is_none());
        let other = Layout::open(layout.root()).unwrap();
        for name in &names {
            other.set_references(&[(name.clone(), Descriptor::of(MediaType::ImageManifest, b"m"))]).unwrap();
            assert_eq!(layout.find(name).unwrap().unwrap().digest, digest);
        }
        let text = fs::read_to_string(layout.index_path()).unwrap();
        fs::write(layout.index_path(), text.replace("localhost:5100/b:t", "localhost:5100/c:t")).unwrap();
        assert!(layout.find(&names[1]).unwrap().is_none());
        assert!(layout.find(&reference("localhost:5100/c:t")).unwrap().is_some());
    }

    #[test]
    fn a_broken_index_is_an_error_that_names_the_file() {
        let (_directory, layout) = bench();
        fs::write(layout.index_path(), "{").unwrap();
        assert!(layout.references().unwrap_err().to_string().contains("index.json"));
    }
}
