//! Keeps a cache below a size: what was used least recently goes first.
//!
//! When an entry was last used is the time of its file or directory, which every access makes new. A process that has
//! the cache open holds a locked file in `incoming/` that is as old as the process (see `scratch`). So an entry that
//! was used after the oldest living process has started may be in use, and stays; no process has to list what it needs.
//! The lock `sweep` makes "make its time new, and look whether it is there" one step against the removal.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::lease::touch;
use crate::tree::entries;
use crate::{Area, Cache, StoreError, remove_tree};

const AREAS: [Area; 7] =
    [Area::Debs, Area::Indexes, Area::Segments, Area::Layers, Area::Steps, Area::Trees, Area::Mounts];
/// The directory of logs, which whoever opened the cache keeps there.
const LOGS: &str = "logs";

/// Something in a cache that can be removed by itself.
#[derive(Clone, Debug)]
struct Entry {
    part: &'static str,
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

/// What one part of a cache holds, or lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartSize {
    /// Its directory: `debs`, `layers`, …
    pub part: &'static str,
    /// How many entries.
    pub entries: usize,
    /// Their bytes on the disk.
    pub bytes: u64,
}

/// What became of a cache that was to shrink.
#[derive(Clone, Debug, Default)]
pub struct Shrunk {
    /// What was removed, or would be, by part.
    pub removed: Vec<PartSize>,
    /// What is there now, or would be, by part.
    pub kept: Vec<PartSize>,
    /// How many entries stay only because a process that has the cache open may be using them.
    pub in_use: usize,
}

impl Shrunk {
    /// The bytes of everything that was removed.
    pub fn removed_bytes(&self) -> u64 {
        self.removed.iter().map(|part| part.bytes).sum()
    }

    /// The bytes of everything that is there.
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|part| part.bytes).sum()
    }
}

impl Cache {
    /// Removes what was used least recently until the rest has at most `limit` bytes. Nothing is removed that a living
    /// process may be using, so more may stay.
    pub fn shrink(&self, limit: u64, dry_run: bool) -> Result<Shrunk, StoreError> {
        let mut all = self.everything()?;
        all.sort_by(|left, right| (left.used, &left.path).cmp(&(right.used, &right.path)));
        let mut total: u64 = all.iter().map(|entry| entry.size).sum();
        let (mut shrunk, mut trash) = (Shrunk::default(), Vec::new());
        {
            let _sweep = self.sweep_lock(!dry_run)?;
            let in_use_since = self.oldest_other_process()?;
            for entry in all {
                let used = modified(&entry.path).unwrap_or(entry.used);
                let is_in_use = in_use_since.is_some_and(|since| used >= since);
                if total <= limit || is_in_use {
                    shrunk.in_use += usize::from(total > limit);
                    add(&mut shrunk.kept, &entry);
                    continue;
                }
                if !dry_run {
                    let scratch = self.scratch_dir()?;
                    let aside = scratch.path().join("entry");
                    fs::rename(&entry.path, &aside).map_err(StoreError::io("remove", &entry.path))?;
                    trash.push((scratch, aside));
                }
                total -= entry.size;
                add(&mut shrunk.removed, &entry);
            }
        }
        // The disk gets its room back when nobody waits for the lock any more.
        for (_scratch, aside) in &trash {
            if fs::symlink_metadata(aside).is_ok_and(|metadata| metadata.is_dir()) {
                remove_tree(aside).map_err(StoreError::io("remove", aside))?;
            }
        }
        Ok(shrunk)
    }

    /// Makes an entry's time new. Whether it is there; if so, it stays while this process lives.
    pub(crate) fn use_entry(&self, path: &Path) -> bool {
        // Where the lock cannot be had, for example on a full disk, reading must go on all the same.
        let _sweep = self.sweep_lock(false);
        touch(path).is_ok() || fs::symlink_metadata(path).is_ok()
    }

    fn sweep_lock(&self, alone: bool) -> Result<File, StoreError> {
        let path = self.root().join("locks/sweep");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options.map_err(StoreError::io("open", &path))?;
        let locked = if alone { file.lock() } else { file.lock_shared() };
        locked.map_err(StoreError::io("lock", &path))?;
        Ok(file)
    }

    fn everything(&self) -> Result<Vec<Entry>, StoreError> {
        let mut all = Vec::new();
        for area in AREAS {
            for prefix in entries(&self.root().join(area.directory()))? {
                for path in entries(&prefix)? {
                    all.extend(entry(area.directory(), path));
                }
            }
        }
        let mut directories = vec![self.root().join(LOGS)];
        while let Some(directory) = directories.pop() {
            for path in entries(&directory)? {
                if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    directories.push(path);
                } else {
                    all.extend(entry(LOGS, path));
                }
            }
        }
        Ok(all)
    }

    /// When the oldest other process that has this cache open has opened it.
    fn oldest_other_process(&self) -> Result<Option<SystemTime>, StoreError> {
        let mut oldest: Option<SystemTime> = None;
        for path in entries(&self.root().join("incoming"))? {
            if path.extension().is_none_or(|extension| extension != "lock") || path == self.own_lock() {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            let lives = file.try_lock_shared().is_err();
            if lives && let Some(started) = modified(&path) {
                oldest = Some(oldest.map_or(started, |oldest| oldest.min(started)));
            }
        }
        Ok(oldest)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).ok()?.modified().ok()
}

fn entry(part: &'static str, path: PathBuf) -> Option<Entry> {
    let used = modified(&path)?;
    let size = size_on_disk(&path, &mut BTreeSet::new());
    Some(Entry { part, path, size, used })
}

fn add(parts: &mut Vec<PartSize>, entry: &Entry) {
    let found = parts.iter_mut().find(|part| part.part == entry.part);
    let part = match found {
        Some(part) => part,
        None => {
            parts.push(PartSize { part: entry.part, ..PartSize::default() });
            parts.last_mut().expect("it was just pushed")
        }
    };
    part.entries += 1;
    part.bytes += entry.size;
}

/// What a file, or a directory with everything in it, takes on the disk. Several names of one file count once; what may
/// not be read counts nothing.
fn size_on_disk(path: &Path, counted: &mut BTreeSet<(u64, u64)>) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        let is_new = metadata.nlink() == 1 || counted.insert((metadata.dev(), metadata.ino()));
        return if is_new { metadata.blocks() * 512 } else { 0 };
    }
    let inside = entries(path).unwrap_or_default();
    metadata.blocks() * 512 + inside.iter().map(|path| size_on_disk(path, counted)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::CacheKey;

    fn key(name: &str) -> CacheKey {
        CacheKey::of(name.as_bytes())
    }

    fn put(cache: &Cache, name: &str, minutes_ago: u64) {
        cache.put_bytes(Area::Segments, key(name), &[7; 4096]).unwrap();
        age(&cache.path(Area::Segments, key(name)), minutes_ago);
    }

    fn age(path: &Path, minutes: u64) {
        let time = modified(path).unwrap() - Duration::from_secs(minutes * 60);
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    fn is_there(cache: &Cache, name: &str) -> bool {
        cache.path(Area::Segments, key(name)).exists()
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        put(&cache, "old", 30);
        put(&cache, "older but used", 40);
        put(&cache, "new", 10);
        assert!(cache.file(Area::Segments, key("older but used")).is_some());
        let would = cache.shrink(8192, true).unwrap();
        assert_eq!((would.removed_bytes(), would.kept_bytes()), (4096, 8192));
        assert!(is_there(&cache, "old"), "a dry run");
        let shrunk = cache.shrink(8192, false).unwrap();
        assert_eq!(shrunk.removed, [PartSize { part: "segments", entries: 1, bytes: 4096 }]);
        assert!(!is_there(&cache, "old") && is_there(&cache, "older but used") && is_there(&cache, "new"));
        assert_eq!(cache.shrink(0, false).unwrap().kept_bytes(), 0);
        assert!(cache.shrink(0, false).unwrap().removed.is_empty());
    }

    #[test]
    fn what_a_living_process_has_used_stays_whatever_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        put(&cache, "used", 30);
        put(&cache, "unused", 30);
        let build = Cache::open(directory.path()).unwrap();
        assert!(build.file(Area::Segments, key("used")).is_some());
        build.put_bytes(Area::Segments, key("made"), b"just now").unwrap();
        let shrunk = cache.shrink(0, false).unwrap();
        assert_eq!((shrunk.removed.len(), shrunk.in_use), (1, 2));
        assert!(is_there(&cache, "used") && is_there(&cache, "made") && !is_there(&cache, "unused"));
        drop(build);
        assert_eq!(cache.shrink(0, false).unwrap().kept_bytes(), 0);
    }

    #[test]
    fn trees_and_logs_count_and_go_whole() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let tree = cache.new_tree().unwrap();
        fs::create_dir(tree.path().join("closed")).unwrap();
        fs::write(tree.path().join("closed/file"), [1; 100_000]).unwrap();
        fs::hard_link(tree.path().join("closed/file"), tree.path().join("again")).unwrap();
        tree.commit(key("tree")).unwrap();
        fs::create_dir_all(directory.path().join("logs/localhost:5100")).unwrap();
        fs::write(directory.path().join("logs/localhost:5100/a:t.log"), "log").unwrap();
        let all = cache.shrink(u64::MAX, false).unwrap();
        let tree = all.kept.iter().find(|part| part.part == "trees").unwrap();
        assert!((100_000..200_000).contains(&tree.bytes), "hard links count once: {tree:?}");
        assert!(all.kept.iter().any(|part| part.part == "logs"));
        assert_eq!(cache.shrink(0, false).unwrap().kept_bytes(), 0);
        assert!(!cache.path(Area::Trees, key("tree")).exists());
    }
}
