//! One worker for one key: others wait, in this process or another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held while something is made, so that nobody makes it twice. Ends when dropped, or with the process.
pub struct KeyLock {
    path: PathBuf,
    file: File,
    hold: Hold,
}

/// Who else may hold a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Alone,
    Together,
}

impl KeyLock {
    /// Waits until the lock is ours. `on_wait` is called once, and only if somebody else has it.
    pub(crate) fn acquire(path: PathBuf, on_wait: &mut dyn FnMut()) -> io::Result<Self> {
        let mut said = false;
        loop {
            let file = open(&path)?;
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
                return Ok(Self { path, file, hold: Hold::Alone });
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_acquire(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path)? => return Ok(Some(Self { path, file, hold: Hold::Alone })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Waits until nobody has the lock alone. Others may have it in this way at the same time.
    pub(crate) fn acquire_together(path: PathBuf) -> io::Result<Self> {
        loop {
            let file = open(&path)?;
            file.lock_shared()?;
            if is_at(&file, &path)? {
                return Ok(Self { path, file, hold: Hold::Together });
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
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
        // While others have it too, the file is theirs: who came anew would lock another one.
        if self.hold == Hold::Alone || self.file.try_lock().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn those_who_share_a_lock_keep_out_who_wants_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = KeyLock::acquire_together(path.clone()).unwrap();
        let second = KeyLock::acquire_together(path.clone()).unwrap();
        assert!(KeyLock::try_acquire(path.clone()).unwrap().is_none());
        drop(first);
        assert!(KeyLock::try_acquire(path.clone()).unwrap().is_none(), "one of them is left");
        drop(second);
        let alone = KeyLock::try_acquire(path.clone()).unwrap();
        assert!(alone.is_some() && KeyLock::try_acquire(path.clone()).unwrap().is_none());
        drop(alone);
        assert!(!path.exists());
    }

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
