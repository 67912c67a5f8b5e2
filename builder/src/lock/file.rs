//! The lock on disk: read whole, and replaced at once.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::SourceFile;
use spec::lock::Lock;

use super::Known;
use crate::error::BuildError;

/// No lock is larger: a package takes some 200 bytes.
const LARGEST_LOCK: u64 = 256 << 20;

/// What is done about the marks of a merge with conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// They are an error.
    Refuse,
    /// What both sides agree on is taken, and the rest is resolved again.
    Repair,
}

/// Reads a lock; there may be none.
pub fn read(path: &Path, conflicts: Conflicts) -> Result<Option<Known>, BuildError> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(BuildError::LockFile { what: "read", path: path.to_path_buf(), source }),
    };
    let file = Arc::new(SourceFile::new(path.display().to_string(), text));
    let wrong = |error: Box<spec::Diagnostic>| BuildError::Spec((*error).into());
    if conflicts == Conflicts::Repair && Lock::has_conflicts(&file.text) {
        let (lock, preferred) = Lock::repair(&file).map_err(wrong)?;
        return Ok(Some(Known { lock, preferred }));
    }
    let lock = Lock::parse(&file).map_err(wrong)?;
    Ok(Some(Known { lock, preferred: Vec::new() }))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST_LOCK + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST_LOCK {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("a lock is at most {LARGEST_LOCK} bytes"))),
        false => Ok(text),
    }
}

/// Replaces a lock, or makes one. Whoever reads it meanwhile sees the old one or the new one.
pub fn write(path: &Path, lock: &Lock) -> Result<(), BuildError> {
    // A link stays one, as does what it is called elsewhere.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    replace(&path, lock.to_text().as_bytes()).map_err(|source| BuildError::LockFile { what: "write", path, source })
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new().prefix(".drystone.lock.").tempfile_in(directory)?;
    beside.write_all(content)?;
    let mode = fs::metadata(path).map_or_else(|_| None, |metadata| Some(metadata.permissions()));
    let mode = mode.unwrap_or_else(|| std::os::unix::fs::PermissionsExt::from_mode(0o644));
    beside.as_file().set_permissions(mode)?;
    beside.as_file().sync_all()?;
    beside.persist(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

/// Where a family's lock is.
pub fn path(family: &Path) -> PathBuf {
    family.join(super::LOCK_FILE)
}
