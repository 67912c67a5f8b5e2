//! What must stay although nothing names it yet: a build has stored blobs and names them at its end, a push reads
//! blobs of an image that is replaced meanwhile, a client over HTTP sends the manifest last.
//!
//! ```text
//! .store/leases/<n>         a digest a line: what one process relies on; locked while that process lives
//! .store/pending/<digest>   empty: a client over HTTP relies on this; counts for a time from when it was last written
//! .store/sweep              locked by whoever writes one of these (together), and by whoever removes blobs (alone)
//! ```
//!
//! The order is what keeps it right: first a digest is written down, then the blob is looked for. Whoever removes blobs
//! locks `sweep` alone, reads what is written down, and removes the rest before the lock ends. So a digest is either
//! seen, or its blob is gone before anybody looks for it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use content::Digest;

use crate::tree::entries;
use crate::{Layout, StoreError};

/// For how long a blob that came over HTTP stays without a manifest.
pub const PENDING: Duration = Duration::from_secs(60 * 60);

/// While this lives, every blob that the layout was asked for through the same [`Layout`] stays.
pub struct Lease {
    /// Held, never read.
    _file: Option<Arc<LeaseFile>>,
}

pub(crate) struct LeaseFile {
    path: PathBuf,
    sweep: PathBuf,
    state: Mutex<(File, BTreeSet<Digest>)>,
}

impl LeaseFile {
    /// Writes a digest down, while nobody removes blobs.
    pub(crate) fn keep(&self, digest: Digest) {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).1.contains(&digest) {
            return;
        }
        // What cannot be written down is not kept; the build then says that a blob is missing, and can be repeated.
        let Ok(_sweep) = lock(&self.sweep, Sweep::Together) else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1.insert(digest) {
            let _ = state.0.write_all(format!("{digest}\n").as_bytes());
        }
    }
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Layout {
    /// Keeps what is asked for from now on, until the lease is dropped or the process ends. Where we may not write,
    /// nobody else who removes blobs is likely, and the lease keeps nothing.
    pub fn lease(&self) -> Lease {
        let mut current = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = current.upgrade() {
            return Lease { _file: Some(file) };
        }
        let file = self.create_lease().ok().map(Arc::new);
        *current = file.as_ref().map(Arc::downgrade).unwrap_or_default();
        Lease { _file: file }
    }

    fn create_lease(&self) -> Result<LeaseFile, StoreError> {
        let directory = self.own("leases");
        let create = StoreError::io("create a file in", &directory);
        // Alone with those who remove the files of dead processes: ours must be locked before they see it.
        let _sweep = self.sweep_lock(Sweep::Together)?;
        let lease = fs::create_dir_all(&directory).and_then(|()| {
            let (file, path) = tempfile::Builder::new().prefix("").tempfile_in(&directory)?.keep()?;
            file.lock()?;
            Ok(LeaseFile { path, sweep: self.own("sweep"), state: Mutex::new((file, BTreeSet::new())) })
        });
        lease.map_err(create)
    }

    /// Writes down that a blob is needed, if this process holds a lease. To be called before the blob is looked for.
    pub fn rely_on(&self, digest: Digest) {
        if let Some(lease) = self.current_lease() {
            lease.keep(digest);
        }
    }

    pub(crate) fn current_lease(&self) -> Option<Arc<LeaseFile>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Writes down that a client over HTTP will name this blob soon. To be called before the blob is looked for.
    pub fn expect_name(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let directory = self.own("pending");
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        let _sweep = self.sweep_lock(Sweep::Together)?;
        for digest in digests {
            let path = directory.join(digest.to_string());
            // Truncating is what makes the time of an existing file new.
            File::create(&path).and_then(|file| file.set_len(0)).map_err(StoreError::io("create", &path))?;
            touch(&path).map_err(StoreError::io("write", &path))?;
        }
        Ok(())
    }

    /// Takes back [`Layout::expect_name`], once something names these blobs.
    pub fn named(&self, digests: &[Digest]) {
        for digest in digests {
            let _ = fs::remove_file(self.own("pending").join(digest.to_string()));
        }
    }

    /// What time it is where the layout lies: the age of files there is told by this clock, which need not be this
    /// machine's.
    pub fn time(&self) -> Result<SystemTime, StoreError> {
        let _sweep = self.sweep_lock(Sweep::Together)?;
        let path = self.own("sweep");
        let time = touch(&path).and_then(|()| fs::metadata(&path)?.modified());
        time.map_err(StoreError::io("read", &path))
    }

    pub(crate) fn sweep_lock(&self, how: Sweep) -> Result<File, StoreError> {
        let path = self.own("sweep");
        let locked = match lock(&path, how) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directories()?;
                lock(&path, how)
            }
            other => other,
        };
        locked.map_err(StoreError::io("lock", &path))
    }

    /// What leases and clients keep. The caller holds the lock `sweep`, so that it stays true. Who holds it alone removes
    /// what is out of date; for others, a lease that nobody has locked may be one that was just made.
    pub(crate) fn kept(&self, now: SystemTime, how: Sweep) -> Result<Kept, StoreError> {
        let alone = matches!(how, Sweep::Alone);
        Ok(Kept { leased: self.leased(alone)?, pending: self.pending(now, alone)? })
    }

    fn leased(&self, alone: bool) -> Result<BTreeSet<Digest>, StoreError> {
        let mut leased = BTreeSet::new();
        for path in entries(&self.own("leases"))? {
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock_shared().is_ok() {
                if alone {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            let text = match fs::read_to_string(&path) {
                // Its holder has just ended it, and has named what it needed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(StoreError::io("read", &path))?,
            };
            leased.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
        Ok(leased)
    }

    fn pending(&self, now: SystemTime, alone: bool) -> Result<BTreeSet<Digest>, StoreError> {
        let mut pending = BTreeSet::new();
        for path in entries(&self.own("pending"))? {
            let Ok(written) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
            // One of the future counts too: the clock may have been set.
            if now.duration_since(written).is_ok_and(|age| age > PENDING) {
                if alone {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            pending.extend(path.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok()));
        }
        Ok(pending)
    }
}

/// Who holds the lock `sweep` at the same time.
#[derive(Clone, Copy)]
pub(crate) enum Sweep {
    /// Those who write down what they need.
    Together,
    /// One who removes.
    Alone,
}

fn lock(path: &Path, how: Sweep) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match how {
        Sweep::Together => file.lock_shared()?,
        Sweep::Alone => file.lock()?,
    }
    Ok(file)
}

/// What is needed and not named.
pub(crate) struct Kept {
    /// By processes that live.
    pub(crate) leased: BTreeSet<Digest>,
    /// By clients over HTTP.
    pub(crate) pending: BTreeSet<Digest>,
}

/// Makes a file's, or a directory's, time new.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
}
