//! One worker for one key: others wait, in this process or another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held while something is made, so that nobody makes it twice. Ends when dropped, or with the process.
pub struct KeyLock {
    path: PathBuf,
    /// Held, never read.
    _file: File,
}

impl KeyLock {
    /// Waits until the lock is ours. `on_wait` is called once, and only if somebody else has it.
    pub(crate) fn acquire(path: PathBuf, on_wait: &mut dyn FnMut()) -> io::Result<Self> {
        let mut said = false;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        on_wait();
                        said = true;
                    }
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The one before us removed the file when it was done; then what we locked is nobody's any more.
            if is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(theirs) => Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_one_holds_the_lock_and_the_others_say_that_they_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let (holders, waits) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let first = KeyLock::acquire(path.clone(), &mut || panic!("nobody else has it")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _lock = KeyLock::acquire(path.clone(), &mut || {
                        waits.fetch_add(1, Ordering::SeqCst);
                    });
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                });
            }
            while waits.load(Ordering::SeqCst) < 4 {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert!(!path.exists());
    }
}
