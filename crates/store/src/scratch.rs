//! Unfinished files, each in a directory that belongs to one living process.
//!
//! ```text
//! incoming/
//!   Xk3f9A.lock     locked by its owner for as long as it lives
//!   Xk3f9A/         what it has not finished
//!     0  1  2 …
//! ```
//!
//! A lock ends with its process, however that ends. Whoever can take a lock here has found the leftovers of a dead
//! process and removes them. The lock file is there before its directory and goes after it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::remove_tree;

/// How often a fresh lock file may be swept away under us before something else must be wrong.
const ATTEMPTS: usize = 100;

/// This process's own directory for what is not finished. Removed when dropped.
pub(crate) struct Scratch {
    directory: PathBuf,
    lock_path: PathBuf,
    next: AtomicU64,
    /// Held, never read.
    _lock: File,
}

impl Scratch {
    /// Makes a directory of our own in `incoming`, which must exist.
    pub(crate) fn create(incoming: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let (lock, lock_path) =
                tempfile::Builder::new().prefix("").suffix(".lock").tempfile_in(incoming)?.keep()?;
            lock.lock()?;
            // Between the two lines above a sweeper may have taken the file for a dead process's and removed it.
            if lock.metadata()?.nlink() == 0 {
                continue;
            }
            let directory = lock_path.with_extension("");
            fs::DirBuilder::new().mode(0o700).create(&directory)?;
            return Ok(Self { directory, lock_path, next: AtomicU64::new(0), _lock: lock });
        }
        Err(io::Error::other("every lock file made here was removed at once by someone else"))
    }

    /// The file that is locked while this process lives.
    pub(crate) fn lock_path(&self) -> &Path {
        &self.lock_path
    }

    /// A path in the directory that was not given out before.
    pub(crate) fn fresh_path(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next sweep tries again: the lock ends here.
        if remove_tree(&self.directory).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Removes what dead processes left in `incoming`. What cannot be removed stays for the next time.
pub(crate) fn sweep(incoming: &Path) -> io::Result<()> {
    let paths: Vec<PathBuf> = fs::read_dir(incoming)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let is_lock = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    // What an interrupted sweep has left is an orphan once the lock file is gone, so that comes afterwards.
    for path in paths.iter().filter(is_lock) {
        let _ = sweep_locked(path);
    }
    for path in paths.iter().filter(|path| !is_lock(path)) {
        let _ = sweep_orphan(path);
    }
    Ok(())
}

fn sweep_locked(lock_path: &Path) -> io::Result<()> {
    let lock = OpenOptions::new().read(true).write(true).open(lock_path)?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    remove_tree(&lock_path.with_extension(""))?;
    fs::remove_file(lock_path)
}

/// Removes a directory without a lock file: what an interrupted sweep left of a large tree.
fn sweep_orphan(path: &Path) -> io::Result<()> {
    let owner = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
    let owned = owner.is_some_and(|owner| path.with_file_name(format!("{owner}.lock")).exists());
    if owned { Ok(()) } else { remove_tree(path) }
}

/// An unfinished file. Removed when dropped, unless it was moved away before.
pub(crate) struct ScratchFile {
    path: PathBuf,
    _scratch: Arc<Scratch>,
}

impl ScratchFile {
    /// Creates an empty file.
    pub(crate) fn create(scratch: &Arc<Scratch>) -> io::Result<(Self, File)> {
        let path = scratch.fresh_path();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok((Self { path, _scratch: Arc::clone(scratch) }, file))
    }

    /// Links an existing file, if both lie on one filesystem and the system allows it.
    pub(crate) fn link(scratch: &Arc<Scratch>, source: &Path) -> io::Result<Self> {
        let path = scratch.fresh_path();
        fs::hard_link(source, &path)?;
        Ok(Self { path, _scratch: Arc::clone(scratch) })
    }

    /// Moves a file here, from the same filesystem; it is gone when this is dropped.
    pub(crate) fn take(scratch: &Arc<Scratch>, source: &Path) -> io::Result<Self> {
        let path = scratch.fresh_path();
        fs::rename(source, &path)?;
        Ok(Self { path, _scratch: Arc::clone(scratch) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // Also after a rename: between two links to one file, rename(2) does nothing and leaves both.
        let _ = fs::remove_file(&self.path);
    }
}

/// A directory for work in progress. Removed when dropped, and by the next process if this one is killed.
pub struct ScratchDir {
    path: PathBuf,
    _scratch: Arc<Scratch>,
}

impl ScratchDir {
    pub(crate) fn create(scratch: &Arc<Scratch>) -> io::Result<Self> {
        let path = scratch.fresh_path();
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, _scratch: Arc::clone(scratch) })
    }

    /// The directory, of mode 0700.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_leftovers_of_a_dead_process_go_and_those_of_a_living_one_stay() {
        let incoming = tempfile::tempdir().unwrap();
        fs::create_dir(incoming.path().join("dead1")).unwrap();
        fs::write(incoming.path().join("dead1/0"), "half").unwrap();
        fs::write(incoming.path().join("dead1.lock"), "").unwrap();
        fs::create_dir_all(incoming.path().join("dead1.removed-0/deep")).unwrap();
        fs::create_dir_all(incoming.path().join("dead2.removed-7/deep")).unwrap();
        let alive = Arc::new(Scratch::create(incoming.path()).unwrap());
        let (file, _) = ScratchFile::create(&alive).unwrap();
        sweep(incoming.path()).unwrap();
        assert!(file.path().exists());
        assert_eq!(names(incoming.path()).len(), 2, "{:?}", names(incoming.path()));
        drop((file, alive));
        assert!(names(incoming.path()).is_empty());
    }

    #[test]
    fn sweeping_while_others_start_never_takes_their_files() {
        let incoming = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let scratch = Arc::new(Scratch::create(incoming.path()).unwrap());
                        let (file, _) = ScratchFile::create(&scratch).unwrap();
                        assert!(file.path().exists());
                    }
                });
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _ = sweep(incoming.path());
                    }
                });
            }
        });
        assert!(names(incoming.path()).is_empty());
    }
}
