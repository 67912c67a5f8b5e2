//! Whole directories in the cache: unpacked images.
//!
//! ```text
//! trees/ab/<key>/           mode 0700: trees hold setuid files that belong to whoever builds
//!   root/                   the tree, with whatever modes it has
//!   unsettled               the id of the boot in which the tree was made, until it is known to be on disk
//! ```
//!
//! Writing gigabytes through to the disk before a tree may be used would cost more than making it again. So a tree
//! counts at once for as long as the machine stays up, and after a reboot only if [`Cache::settle`] was called.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::cache::create_parent;
use crate::{Area, Cache, CacheKey, ScratchDir, StoreError, remove_tree};

const ROOT: &str = "root";
const UNSETTLED: &str = "unsettled";
/// What the kernel says of this boot; it differs after each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A tree that is being filled. Dropped without a commit, it leaves nothing.
pub struct NewTree<'cache> {
    cache: &'cache Cache,
    directory: ScratchDir,
    root: PathBuf,
}

impl NewTree<'_> {
    /// The directory to fill; its own mode may be changed too.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Gives the tree its key and returns where it is now. If a tree of that key came first, that one stays.
    pub fn commit(self, key: CacheKey) -> Result<PathBuf, StoreError> {
        let target = self.cache.path(Area::Trees, key);
        match &self.cache.boot {
            Some(boot) => {
                let marker = self.directory.path().join(UNSETTLED);
                fs::write(&marker, boot).map_err(StoreError::io("write", &marker))?;
            }
            None => self.cache.sync_filesystem()?,
        }
        create_parent(&target)?;
        match fs::rename(self.directory.path(), &target) {
            Err(error) if !is_occupied(&error) => Err(StoreError::io("create", &target)(error)),
            _ => Ok(target.join(ROOT)),
        }
    }
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

impl Cache {
    /// The tree of this key, if it is there and whole.
    pub fn tree(&self, key: CacheKey) -> Result<Option<PathBuf>, StoreError> {
        let directory = self.path(Area::Trees, key);
        let root = directory.join(ROOT);
        if !self.use_entry(&directory) || fs::symlink_metadata(&root).is_err() {
            return Ok(None);
        }
        match fs::read_to_string(directory.join(UNSETTLED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(root)),
            Ok(boot) if self.boot.as_ref() == Some(&boot) => Ok(Some(root)),
            // The machine went down since, perhaps before the tree reached the disk.
            _ => self.discard_tree(&directory).map(|()| None),
        }
    }

    /// Starts a tree.
    pub fn new_tree(&self) -> Result<NewTree<'_>, StoreError> {
        let directory = self.scratch_dir()?;
        let root = directory.path().join(ROOT);
        fs::DirBuilder::new().mode(0o755).create(&root).map_err(StoreError::io("create", &root))?;
        Ok(NewTree { cache: self, directory, root })
    }

    /// Waits until every tree is on disk, so that they count after a reboot too. Call it when nobody waits.
    pub fn settle(&self) -> Result<(), StoreError> {
        let markers = self.unsettled()?;
        if markers.is_empty() {
            return Ok(());
        }
        self.sync_filesystem()?;
        for marker in markers {
            match fs::remove_file(&marker) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &marker)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unsettled(&self) -> Result<Vec<PathBuf>, StoreError> {
        let trees = self.root().join(Area::Trees.directory());
        let mut markers = Vec::new();
        for prefix in entries(&trees)? {
            for tree in entries(&prefix)? {
                let marker = tree.join(UNSETTLED);
                // Only this boot's: an older one must be judged by `tree`, which throws it away.
                if self.boot.is_some() && fs::read_to_string(&marker).ok() == self.boot {
                    markers.push(marker);
                }
            }
        }
        Ok(markers)
    }

    pub(crate) fn discard_tree(&self, directory: &Path) -> Result<(), StoreError> {
        let aside = self.scratch_dir()?;
        let moved = aside.path().join("tree");
        match fs::rename(directory, &moved) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io("remove", directory)(error)),
            Ok(()) => remove_tree(&moved).map_err(StoreError::io("remove", directory)),
        }
    }

    fn sync_filesystem(&self) -> Result<(), StoreError> {
        let write = |error: io::Error| StoreError::io("write", self.root())(error);
        let root = File::open(self.root()).map_err(write)?;
        rustix::fs::syncfs(&root).map_err(|error| write(error.into()))
    }
}

/// The id of this boot, or `None` where the kernel does not say.
pub(crate) fn boot_id() -> Option<String> {
    fs::read_to_string(BOOT_ID).ok().filter(|id| !id.trim().is_empty())
}

/// The paths in a directory, which may be absent.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .map_err(StoreError::io("read", directory)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(name: &str) -> CacheKey {
        CacheKey::of(name.as_bytes())
    }

    fn put(cache: &Cache, name: &str) -> PathBuf {
        let tree = cache.new_tree().unwrap();
        fs::write(tree.path().join("file"), name).unwrap();
        tree.commit(key(name)).unwrap()
    }

    #[test]
    fn a_tree_is_there_when_it_is_committed_and_the_first_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        assert_eq!(cache.tree(key("a")).unwrap(), None);
        let path = put(&cache, "a");
        let late = cache.new_tree().unwrap();
        fs::write(late.path().join("file"), "late").unwrap();
        assert_eq!(late.commit(key("a")).unwrap(), path);
        assert_eq!(cache.tree(key("a")).unwrap(), Some(path.clone()));
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "a");
        let mode = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_tree_whose_root_forbids_writing_can_be_committed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let tree = cache.new_tree().unwrap();
        fs::create_dir(tree.path().join("sub")).unwrap();
        fs::set_permissions(tree.path().join("sub"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tree.path(), Permissions::from_mode(0o555)).unwrap();
        tree.commit(key("odd")).unwrap();
        assert!(cache.tree(key("odd")).unwrap().is_some());
        cache.remove(Area::Trees, key("odd")).unwrap();
        assert!(cache.tree(key("odd")).unwrap().is_none());
    }

    #[test]
    fn after_a_reboot_only_settled_trees_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(directory.path()).unwrap();
        cache.boot = Some("boot 1".to_owned());
        put(&cache, "settled");
        cache.settle().unwrap();
        put(&cache, "unsettled");
        assert!(cache.tree(key("unsettled")).unwrap().is_some());
        cache.boot = Some("boot 2".to_owned());
        cache.settle().unwrap();
        assert!(cache.tree(key("settled")).unwrap().is_some());
        assert!(cache.tree(key("unsettled")).unwrap().is_none());
        assert!(!cache.path(Area::Trees, key("unsettled")).exists());
    }
}
