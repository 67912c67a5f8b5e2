//! What can be made again: files and trees by key, in areas.
//!
//! ```text
//! <cache>/              mode 0700
//!   debs/ indexes/ segments/ layers/ steps/
//!     ab/abcdef…        one file an entry, mode 0444
//!   trees/ab/abcdef…/   one directory an entry (see `tree`)
//!   mounts/ab/abcdef…/  one directory an entry, which commands change as they like
//!   locks/              one file a key that somebody is working on
//!   incoming/           what is not finished (see `scratch`)
//! ```
//!
//! When an entry was last used is the time of its file (see `evict`).
//!
//! An entry is whole or absent. After the machine went down that holds for those whose writer waited for the disk;
//! others are checked when they are read: packages and indexes by the digest that is their name, records by being JSON,
//! layers when a layout takes them, and segments once after each start of the machine. Removing any part of the cache
//! while nobody uses it is safe.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use content::{Digest, HashingWriter, VerifyingReader};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::scratch::{self, Scratch, ScratchFile};
use crate::{CacheKey, KeyLock, ScratchDir, StoreError, tree};

/// The largest JSON record that is read.
const MAX_RECORD_SIZE: u64 = 64 << 20;

/// A part of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// Packages as downloaded, named by their own digest.
    Debs,
    /// Package indexes as downloaded, named by their own digest.
    Indexes,
    /// Pieces of layers.
    Segments,
    /// Whole layers.
    Layers,
    /// Records of what steps made.
    Steps,
    /// Unpacked images.
    Trees,
    /// Directories that commands keep between builds.
    Mounts,
}

impl Area {
    /// Its directory's name.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Debs => "debs",
            Self::Indexes => "indexes",
            Self::Segments => "segments",
            Self::Layers => "layers",
            Self::Steps => "steps",
            Self::Trees => "trees",
            Self::Mounts => "mounts",
        }
    }
}

/// A cache directory. Any number of processes may use it at once.
pub struct Cache {
    root: PathBuf,
    scratch: Arc<Scratch>,
    pub(crate) boot: Option<String>,
}

impl Cache {
    /// The file that is locked while this process has the cache open.
    pub(crate) fn own_lock(&self) -> &Path {
        self.scratch.lock_path()
    }

    /// Opens a cache, making the directory if it is absent, and removes what killed processes left in it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        create_private(&root)?;
        for directory in ["incoming", "locks"] {
            create_private(&root.join(directory))?;
        }
        let incoming = root.join("incoming");
        scratch::sweep(&incoming).map_err(StoreError::io("read", &incoming))?;
        let scratch = Scratch::create(&incoming).map_err(StoreError::io("create a file in", &incoming))?;
        Ok(Self { root, scratch: Arc::new(scratch), boot: tree::boot_id() })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names the time since the machine was started last, in which nothing that was written is lost; nothing where the
    /// kernel does not say.
    pub fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// Where an entry is, or would be.
    pub fn path(&self, area: Area, key: CacheKey) -> PathBuf {
        let name = key.hex();
        self.root.join(area.directory()).join(&name[..2]).join(name)
    }

    /// The path of a file entry, if it is there.
    pub fn file(&self, area: Area, key: CacheKey) -> Option<PathBuf> {
        let path = self.path(area, key);
        let is_there = self.use_entry(&path) && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        is_there.then_some(path)
    }

    /// Opens a file entry, if it is there.
    pub fn open_file(&self, area: Area, key: CacheKey) -> Result<Option<File>, StoreError> {
        let path = self.path(area, key);
        self.use_entry(&path);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(StoreError::io("read", &path)),
        }
    }

    /// Opens an entry named by its own digest; reading it to the end fails unless it has the right bytes. An entry
    /// of the wrong size is removed and counts as absent; on a failed read, remove it with [`Cache::remove`].
    pub fn open_content(
        &self,
        area: Area,
        digest: Digest,
        size: u64,
    ) -> Result<Option<VerifyingReader<File>>, StoreError> {
        let Some(file) = self.open_file(area, digest)? else { return Ok(None) };
        let found = file.metadata().map_err(StoreError::io("read", &self.path(area, digest)))?.len();
        if found != size {
            self.remove(area, digest)?;
            return Ok(None);
        }
        Ok(Some(VerifyingReader::new(file, digest, size)))
    }

    /// Starts a file entry.
    pub fn writer(&self, area: Area, key: CacheKey) -> Result<CacheWriter<'_>, StoreError> {
        let (scratch, file) = ScratchFile::create(&self.scratch)
            .map_err(StoreError::io("create a file in", &self.root.join("incoming")))?;
        Ok(CacheWriter { cache: self, area, key, scratch, file: HashingWriter::new(file) })
    }

    /// Stores bytes that are at hand.
    pub fn put_bytes(&self, area: Area, key: CacheKey, bytes: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.writer(area, key)?;
        writer.write_all(bytes).map_err(StoreError::io("write", &self.path(area, key)))?;
        writer.commit().map(drop)
    }

    /// Reads a file entry of at most `limit` bytes, if it is there.
    pub fn read_bytes(&self, area: Area, key: CacheKey, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_file(area, key)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &self.path(area, key)))?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { digest: key, size: bytes.len() as u64, limit });
        }
        Ok(Some(bytes))
    }

    /// Stores a small record as canonical JSON. Nothing waits for the disk: a record that a crash has cut cannot be read,
    /// and counts as absent.
    pub fn put_json<T: Serialize + ?Sized>(&self, area: Area, key: CacheKey, record: &T) -> Result<(), StoreError> {
        let path = self.path(area, key);
        let bytes = oci::canonical_bytes(record).map_err(|source| StoreError::Record { path: path.clone(), source })?;
        let mut writer = self.writer(area, key)?;
        writer.write_all(&bytes).map_err(StoreError::io("write", &path))?;
        writer.commit_unsynced().map(drop)
    }

    /// Reads a record. One that cannot be read, because another version wrote it or the disk lost it, is removed and
    /// counts as absent: it can be made again.
    pub fn get_json<T: DeserializeOwned>(&self, area: Area, key: CacheKey) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.read_bytes(area, key, MAX_RECORD_SIZE)? else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(_) => self.remove(area, key).map(|()| None),
        }
    }

    /// Removes an entry; an absent one is not an error.
    pub fn remove(&self, area: Area, key: CacheKey) -> Result<(), StoreError> {
        let path = self.path(area, key);
        if matches!(area, Area::Trees | Area::Mounts) {
            return self.discard_tree(&path);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn lock_path(&self, area: Area, key: CacheKey) -> PathBuf {
        self.root.join("locks").join(format!("{}-{}", area.directory(), key.hex()))
    }

    /// Waits until nobody else works on this entry. `on_wait` is called once, if there is somebody. Look for the entry
    /// again afterwards: the other one has probably made it.
    pub fn lock(&self, area: Area, key: CacheKey, on_wait: &mut dyn FnMut()) -> Result<KeyLock, StoreError> {
        let path = self.lock_path(area, key);
        KeyLock::acquire(path.clone(), on_wait).map_err(StoreError::io("lock", &path))
    }

    /// Takes the lock of this entry if nobody has it.
    pub fn try_lock(&self, area: Area, key: CacheKey) -> Result<Option<KeyLock>, StoreError> {
        let path = self.lock_path(area, key);
        KeyLock::try_acquire(path.clone()).map_err(StoreError::io("lock", &path))
    }

    /// Waits until nobody has this entry alone, and keeps away whoever wants to.
    pub fn lock_together(&self, area: Area, key: CacheKey) -> Result<KeyLock, StoreError> {
        let path = self.lock_path(area, key);
        KeyLock::acquire_together(path.clone()).map_err(StoreError::io("lock", &path))
    }

    /// The directory that commands keep under this key. If it is not there it is made: `fill` is called with a place
    /// where it makes it. Whoever calls this holds the lock of the key.
    pub fn kept_directory(
        &self,
        key: CacheKey,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<PathBuf, StoreError> {
        let path = self.path(Area::Mounts, key);
        if self.use_entry(&path) {
            return Ok(path);
        }
        let scratch = self.scratch_dir()?;
        let new = scratch.path().join("kept");
        fill(&new).map_err(StoreError::io("create", &new))?;
        create_parent(&path)?;
        fs::rename(&new, &path).map_err(StoreError::io("create", &path))?;
        Ok(path)
    }

    /// A directory for work in progress, on the same filesystem as the cache.
    pub fn scratch_dir(&self) -> Result<ScratchDir, StoreError> {
        ScratchDir::create(&self.scratch).map_err(StoreError::io("create a directory in", &self.root.join("incoming")))
    }
}

/// Writes one file entry. Dropped without a commit, it leaves nothing.
pub struct CacheWriter<'cache> {
    cache: &'cache Cache,
    area: Area,
    key: CacheKey,
    scratch: ScratchFile,
    file: HashingWriter<File>,
}

impl CacheWriter<'_> {
    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Waits for the disk, then makes the entry visible. Returns where it is, and the digest and number of its bytes.
    pub fn commit(self) -> Result<(PathBuf, Digest, u64), StoreError> {
        self.publish(|file| file.sync_data())
    }

    /// Makes the entry visible, and does not wait for the disk. If the machine goes down, bytes may be lost: whoever reads
    /// it must check them, at least once after each [`Cache::boot`].
    pub fn commit_unsynced(self) -> Result<(PathBuf, Digest, u64), StoreError> {
        self.publish(|_| Ok(()))
    }

    fn publish(self, settle: impl FnOnce(&File) -> io::Result<()>) -> Result<(PathBuf, Digest, u64), StoreError> {
        let (file, digest, size) = self.file.finish();
        settle(&file).map_err(StoreError::io("write", self.scratch.path()))?;
        let path = self.cache.path(self.area, self.key);
        publish(&file, &self.scratch, &path)?;
        Ok((path, digest, size))
    }

    /// Makes an entry visible that is named by its own digest, if the bytes have it. Nothing waits for the disk:
    /// [`Cache::open_content`] notices what a crash lost.
    pub fn commit_content(self, size: u64) -> Result<PathBuf, StoreError> {
        let expected = self.key;
        let (file, found, found_size) = self.file.finish();
        if found_size != size {
            return Err(StoreError::WrongSize { digest: expected, expected: size, found: found_size });
        }
        if found != expected {
            return Err(StoreError::Damaged { expected, found });
        }
        let path = self.cache.path(self.area, self.key);
        publish(&file, &self.scratch, &path)?;
        Ok(path)
    }
}

impl Write for CacheWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn publish(file: &File, scratch: &ScratchFile, path: &Path) -> Result<(), StoreError> {
    file.set_permissions(Permissions::from_mode(0o444)).map_err(StoreError::io("set the mode of", scratch.path()))?;
    create_parent(path)?;
    fs::rename(scratch.path(), path).map_err(StoreError::io("create", path))
}

/// Makes the directory that an entry goes into.
pub(crate) fn create_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(StoreError::io("create", parent))
}

/// Makes a directory that only we may enter, or makes an existing one so.
fn create_private(directory: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(StoreError::io("create", directory))?;
    let metadata = fs::metadata(directory).map_err(StoreError::io("read", directory))?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(StoreError::io("set the mode of", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().join("cache")).unwrap();
        (directory, cache)
    }

    fn key(name: &str) -> CacheKey {
        CacheKey::of(name.as_bytes())
    }

    #[test]
    fn an_entry_is_there_when_it_is_committed_and_not_before() {
        let (_directory, cache) = bench();
        let mut writer = cache.writer(Area::Segments, key("a")).unwrap();
        writer.write_all(b"content").unwrap();
        assert_eq!(cache.file(Area::Segments, key("a")), None);
        let (path, digest, size) = writer.commit().unwrap();
        assert_eq!((digest, size), (Digest::of(b"content"), 7));
        assert_eq!(cache.file(Area::Segments, key("a")), Some(path));
        assert_eq!(cache.file(Area::Layers, key("a")), None);
        assert_eq!(cache.read_bytes(Area::Segments, key("a"), 7).unwrap().unwrap(), b"content");
        assert!(cache.read_bytes(Area::Segments, key("a"), 6).is_err());
        drop(cache.writer(Area::Segments, key("b")).unwrap());
        assert_eq!(cache.file(Area::Segments, key("b")), None);
        cache.remove(Area::Segments, key("a")).unwrap();
        cache.remove(Area::Segments, key("a")).unwrap();
        assert_eq!(cache.read_bytes(Area::Segments, key("a"), 7).unwrap(), None);
    }

    #[test]
    fn content_is_checked_when_it_comes_and_when_it_is_read() {
        let (_directory, cache) = bench();
        let digest = key("package");
        let put = |bytes: &[u8], size| {
            let mut writer = cache.writer(Area::Debs, digest).unwrap();
            writer.write_all(bytes).unwrap();
            writer.commit_content(size)
        };
        assert!(matches!(put(b"wrong!!", 7), Err(StoreError::Damaged { .. })));
        assert!(matches!(put(b"package", 8), Err(StoreError::WrongSize { .. })));
        let path = put(b"package", 7).unwrap();
        let read = || cache.open_content(Area::Debs, digest, 7).unwrap();
        io::copy(&mut read().unwrap(), &mut io::sink()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"pack\0\0\0").unwrap();
        assert!(io::copy(&mut read().unwrap(), &mut io::sink()).is_err());
        fs::write(&path, b"pack").unwrap();
        assert!(read().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn a_record_that_cannot_be_read_counts_as_absent() {
        let (_directory, cache) = bench();
        cache.put_json(Area::Steps, key("s"), &vec![1, 2]).unwrap();
        assert_eq!(cache.get_json::<Vec<u32>>(Area::Steps, key("s")).unwrap(), Some(vec![1, 2]));
        assert_eq!(cache.get_json::<String>(Area::Steps, key("s")).unwrap(), None);
        assert_eq!(cache.get_json::<Vec<u32>>(Area::Steps, key("s")).unwrap(), None);
    }

    #[test]
    fn a_cache_that_others_could_enter_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let _cache = Cache::open(directory.path()).unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn work_in_progress_of_a_dead_process_goes_and_of_a_living_one_stays() {
        let (_directory, cache) = bench();
        let dead = cache.root().join("incoming/dead");
        fs::create_dir_all(dead.join("0/closed")).unwrap();
        fs::set_permissions(dead.join("0/closed"), Permissions::from_mode(0o000)).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        let work = cache.scratch_dir().unwrap();
        let _second = Cache::open(cache.root()).unwrap();
        assert!(!dead.exists());
        assert!(work.path().exists());
    }

    #[test]
    fn a_lock_lets_one_work_and_the_others_find_the_result() {
        let (_directory, cache) = bench();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _lock = cache.lock(Area::Layers, key("l"), &mut || {}).unwrap();
                    if cache.file(Area::Layers, key("l")).is_none() {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        cache.put_bytes(Area::Layers, key("l"), b"layer").unwrap();
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn a_kept_directory_is_made_once_and_keeps_what_is_put_into_it() {
        let (_directory, cache) = bench();
        let path = cache.kept_directory(key("pip"), |path| fs::create_dir(path)).unwrap();
        fs::write(path.join("wheel"), "x").unwrap();
        let again = cache.kept_directory(key("pip"), |_| panic!("it is there")).unwrap();
        assert_eq!(fs::read_to_string(again.join("wheel")).unwrap(), "x");
        cache.remove(Area::Mounts, key("pip")).unwrap();
        assert!(!path.exists());
    }
}
