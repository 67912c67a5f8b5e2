//! Blobs that come in several requests, and may be gone on with by another process after this one has ended.
//!
//! ```text
//! .store/uploads/<id>         the bytes so far; locked by the process that writes them
//! .store/uploads/<id>.about   whose they are, in the words of whoever started the upload
//! ```
//!
//! What is unfinished elsewhere in the layout goes with its process; these files stay until they are finished,
//! discarded, or have rested for too long.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use content::{Digest, HashingWriter};

use crate::blob_writer::{check_name, hash_so_far, publish};
use crate::tree::entries;
use crate::{Layout, StoreError};

/// The longest text that is kept about an upload.
const MAX_ABOUT: u64 = 4096;

/// A blob on its way, which stays on disk if this is dropped.
pub struct Upload {
    file: HashingWriter<File>,
    path: PathBuf,
    blobs: PathBuf,
}

/// What there is of an upload that another process has started.
pub enum Resumed {
    /// All of it, and what was said about it.
    Here(Upload, String),
    /// Nothing: it never was, or it has ended.
    Absent,
    /// Another process is writing it.
    Busy,
}

impl Upload {
    /// How many bytes came so far.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Makes the blob durable and visible if the bytes have this digest; either way the upload has ended.
    pub fn commit_named(self, expected: Digest) -> Result<u64, StoreError> {
        let (file, found, size) = self.file.finish();
        let done =
            check_name(&self.path, found, expected).and_then(|()| publish(&file, &self.path, &self.blobs, expected));
        if done.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_file(about(&self.path));
        done.map(|()| size)
    }

    /// Ends the upload without a blob.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(about(&self.path));
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Layout {
    /// Starts an upload. `id` is 32 hexadecimal digits that nobody can guess.
    pub fn start_upload(&self, id: &str, text: &str) -> Result<Upload, StoreError> {
        let Some(path) = self.upload_path(id) else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "this is no name of an upload");
            return Err(StoreError::io("create", &self.own("uploads"))(error));
        };
        let directory = self.own("uploads");
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        // The words first: a content without them belongs to nobody, and would be found by nobody.
        fs::write(about(&path), text).map_err(StoreError::io("create", &path))?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = options.map_err(StoreError::io("create", &path))?;
        file.lock().map_err(StoreError::io("lock", &path))?;
        Ok(Upload { file: HashingWriter::new(file), path, blobs: self.blobs() })
    }

    /// Goes on with an upload of a process that has ended. What is there is read, since it was hashed by nobody.
    pub fn resume_upload(&self, id: &str) -> Result<Resumed, StoreError> {
        let Some(path) = self.upload_path(id) else { return Ok(Resumed::Absent) };
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Resumed::Absent),
            other => other.map_err(StoreError::io("read", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Resumed::Busy),
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path)(error)),
        }
        // Finished by the one who had the lock before us, and perhaps a blob now.
        if !path.exists() {
            return Ok(Resumed::Absent);
        }
        let Ok(text) = read_about(&path) else { return Ok(Resumed::Absent) };
        let (hash, size) = hash_so_far(&mut file).map_err(StoreError::io("read", &path))?;
        let file = HashingWriter::resumed(file, hash, size);
        Ok(Resumed::Here(Upload { file, path, blobs: self.blobs() }, text))
    }

    /// How many uploads there are, of all processes.
    pub fn uploads(&self) -> Result<usize, StoreError> {
        Ok(self.upload_files()?.len())
    }

    /// Removes uploads, beginnings of blobs that were fetched, and notes about pushes, which nobody has open and which have
    /// rested for longer than `rest`. How many, and how large.
    pub fn remove_resting_uploads(&self, now: SystemTime, rest: Duration) -> Result<(usize, u64), StoreError> {
        let mut removed = (0, 0);
        for path in
            self.upload_files()?.into_iter().chain(entries(&self.own("partial"))?).chain(entries(&self.own("sending"))?)
        {
            let Ok(file) = File::open(&path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let rested = metadata.modified().ok().and_then(|written| now.duration_since(written).ok());
            if rested.is_some_and(|rested| rested > rest) && file.try_lock().is_ok() {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                let _ = fs::remove_file(about(&path));
                removed = (removed.0 + 1, removed.1 + metadata.len());
            }
        }
        Ok(removed)
    }

    fn upload_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut files = entries(&self.own("uploads"))?;
        files.retain(|path| path.extension().is_none());
        Ok(files)
    }

    fn upload_path(&self, id: &str) -> Option<PathBuf> {
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_id.then(|| self.own("uploads").join(id))
    }
}

fn about(path: &Path) -> PathBuf {
    path.with_extension("about")
}

fn read_about(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(about(path))?.take(MAX_ABOUT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn resumed(layout: &Layout) -> Option<(Upload, String)> {
        match layout.resume_upload(ID).unwrap() {
            Resumed::Here(upload, text) => Some((upload, text)),
            Resumed::Absent | Resumed::Busy => None,
        }
    }

    #[test]
    fn an_upload_outlives_the_process_that_started_it() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let mut upload = layout.start_upload(ID, "team/app").unwrap();
        upload.write_all(b"hello").unwrap();
        let other = Layout::open(directory.path()).unwrap();
        assert!(matches!(other.resume_upload(ID).unwrap(), Resumed::Busy));
        drop(upload);
        let (mut upload, text) = resumed(&other).unwrap();
        assert_eq!((text.as_str(), upload.size()), ("team/app", 5));
        upload.write_all(b", world").unwrap();
        let digest = Digest::of(b"hello, world");
        upload.commit_named(digest).unwrap();
        assert_eq!(layout.read_small(digest, 100).unwrap(), b"hello, world");
        assert!(resumed(&layout).is_none());
        assert_eq!(fs::read_dir(layout.own("uploads")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_bytes_end_an_upload_and_names_that_are_none_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let mut upload = layout.start_upload(ID, "a").unwrap();
        upload.write_all(b"wrong").unwrap();
        assert!(matches!(upload.commit_named(Digest::of(b"right")), Err(StoreError::Damaged { .. })));
        for id in [ID, "../../index.json", "", "0123456789ABCDEF0123456789ABCDEF"] {
            assert!(matches!(layout.resume_upload(id).unwrap(), Resumed::Absent), "{id}");
        }
        assert!(layout.start_upload("../x", "a").is_err());
    }

    #[test]
    fn uploads_that_rested_too_long_go_and_those_that_somebody_writes_stay() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(directory.path()).unwrap();
        let mut upload = layout.start_upload(ID, "a").unwrap();
        upload.write_all(b"12345").unwrap();
        let written = fs::metadata(layout.own("uploads").join(ID)).unwrap().modified().unwrap();
        let (later, rest) = (written + Duration::from_secs(11), Duration::from_secs(10));
        assert_eq!(layout.remove_resting_uploads(later, rest).unwrap(), (0, 0));
        drop(upload);
        assert_eq!(layout.remove_resting_uploads(written, rest).unwrap(), (0, 0));
        assert_eq!(layout.remove_resting_uploads(later, rest).unwrap(), (1, 5));
        assert_eq!(layout.uploads().unwrap(), 0);
    }
}
