//! The context of a build: a directory, less what its `.dockerignore` takes away.
//!
//! Nothing outside of the directory is ever read. Every path is opened by the kernel with the directory as its root, so
//! that neither a link nor somebody who changes one meanwhile leads out of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layer::compress::decompress;
use layer::entry::{ImagePath, Kind, Metadata};
use layer::record::{Owners, TreeDir};
use layer::unpack::Unpacker;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use spec::SourceFile;
use spec::dockerfile::IgnoreRules;

use super::shelf::{Item, ItemKind, Shelf};
use crate::error::BuildError;
use crate::layers::Bounded;

/// A directory to take files from.
pub struct Context {
    root: OwnedFd,
    path: PathBuf,
    ignore: IgnoreRules,
    /// The name of the file that the rules are from.
    ignore_file: String,
}

impl Context {
    /// Opens a directory. `ignore` are the rules of the file `ignore_file`.
    pub fn open(path: &Path, ignore: IgnoreRules, ignore_file: impl Into<String>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { root, path: path.to_path_buf(), ignore, ignore_file: ignore_file.into() })
    }

    /// Opens the context of a Dockerfile. The rules are those beside the Dockerfile, `NAME.dockerignore`, or else the
    /// `.dockerignore` of the directory.
    pub fn of_dockerfile(dockerfile: &Path, directory: &Path) -> Result<Self, BuildError> {
        let own = IgnoreRules::names(&dockerfile.display().to_string());
        let [own, usual] = [PathBuf::from(&own[0]), directory.join(&own[1])];
        let (mut ignore, mut ignore_file) = (IgnoreRules::default(), String::new());
        if let Some(path) = [own, usual].into_iter().find(|path| path.is_file()) {
            ignore_file = path.display().to_string();
            // Whoever names a Dockerfile elsewhere means what lies beside it there.
            if path.starts_with(directory) && leads_out(&path, directory)? {
                let text = format!("`{ignore_file}` is a link that leads out of the context, where nothing is read");
                return Err(BuildError::Io(io::Error::other(text)));
            }
            let mut bytes = Vec::new();
            File::open(&path)?.take(LARGEST_RULES).read_to_end(&mut bytes)?;
            let file = SourceFile::from_bytes(&ignore_file, bytes)?;
            ignore = IgnoreRules::parse(&Arc::new(file))?;
        }
        Self::open(directory, ignore, ignore_file).map_err(|error| {
            let text = format!("cannot open the context `{}`: {error}", directory.display());
            BuildError::Io(io::Error::new(error.kind(), text))
        })
    }

    /// The directory, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, path: &ImagePath, flags: OFlags) -> io::Result<Option<OwnedFd>> {
        let name = if path.is_root() { Path::new(".") } else { path.as_path() };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        // A link in the place of the last name is not followed by `O_PATH`, but `NO_SYMLINKS` would refuse it.
        let resolve =
            if flags.contains(OFlags::PATH) { resolve.difference(ResolveFlags::NO_SYMLINKS) } else { resolve };
        match rustix::fs::openat2(self.root.as_fd(), name, flags, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            opened => Ok(Some(opened?)),
        }
    }

    fn is_hidden(&self, path: &ImagePath, is_directory: bool) -> bool {
        let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
        !path.is_root() && self.ignore.excludes(&text) && !(is_directory && self.ignore.may_bring_back_below(&text))
    }
}

/// No list of what is left out is larger than this.
const LARGEST_RULES: u64 = 16 << 20;

/// No context that comes as a tar becomes larger than this.
const LARGEST_CONTEXT: u64 = 64 << 30;

/// Unpacks a context that came as a tar, perhaps compressed, below `place`, and gives the directory. Owners do not
/// matter, so anybody can do that.
pub fn unpack(tar: impl Read + Send, place: &Path) -> io::Result<PathBuf> {
    let tree = TreeDir::create(place)?;
    let mut unpacker = Unpacker::new(&tree, &[], Owners::Recorded)?;
    let mut tar = Bounded::at_most(decompress(tar)?, LARGEST_CONTEXT);
    layer::read::entries(&mut tar, |mut entry, content| {
        entry.metadata.xattrs.clear();
        (entry.metadata.uid, entry.metadata.gid) = (0, 0);
        match entry.kind {
            // No build has a use for these.
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => Ok(()),
            _ => unpacker.apply(&entry, content),
        }
    })?;
    unpacker.finish()?;
    Ok(tree.root())
}

impl Shelf for Context {
    fn look(&self, path: &ImagePath) -> io::Result<Option<Item>> {
        let Some(file) = self.at(path, OFlags::PATH)? else { return Ok(None) };
        let file = File::from(file);
        let found = file.metadata()?;
        if self.is_hidden(path, found.is_dir()) {
            return Ok(None);
        }
        let kind = match found.file_type() {
            kind if kind.is_dir() => ItemKind::Directory,
            kind if kind.is_file() => ItemKind::File { size: found.len() },
            kind if kind.is_symlink() => {
                let target = rustix::fs::readlinkat(&file, "", Vec::new())?;
                ItemKind::Link { target: target.into_bytes() }
            }
            kind if kind.is_fifo() => ItemKind::Special(Kind::Fifo),
            kind if kind.is_socket() => ItemKind::Socket,
            // A device of this machine is none of an image's.
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("`{path}` is a device"))),
        };
        // Who owns a checkout is nobody's business.
        let mode = found.permissions().mode() & 0o7777;
        let metadata = Metadata { mode, mtime: found.mtime(), ..Metadata::default() };
        let inode = (found.is_file() && found.nlink() > 1).then(|| (found.dev(), found.ino()));
        Ok(Some(Item { kind, metadata, inode }))
    }

    fn list(&self, directory: &ImagePath) -> io::Result<Vec<Vec<u8>>> {
        let Some(opened) = self.at(directory, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        // The open directory under a name of its own: the path could lead elsewhere by now.
        use std::os::fd::AsRawFd;
        for item in fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))? {
            let item = item?;
            let name = item.file_name().into_vec();
            if !self.is_hidden(&directory.join(&name), item.file_type()?.is_dir()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &ImagePath) -> io::Result<File> {
        let found = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        found.map(File::from).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path} is gone")))
    }

    fn why_not(&self, path: &ImagePath) -> Option<String> {
        let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let is_there = self.at(path, OFlags::PATH).ok().flatten().is_some();
        (is_there && self.ignore.excludes(&text)).then(|| format!("`{}` leaves it out", self.ignore_file))
    }

    fn is_root(&self) -> bool {
        false
    }
}

/// Whether a file of a directory is a link to something outside of it, or below such a link.
pub fn leads_out(file: &Path, directory: &Path) -> io::Result<bool> {
    Ok(!fs::canonicalize(file)?.starts_with(fs::canonicalize(directory)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::dockerfile::shelf::resolve;

    #[test]
    fn nothing_outside_of_the_directory_is_seen_whatever_links_say() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("context");
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::write(directory.path().join("secret"), "x").unwrap();
        fs::write(inside.join("sub/file"), "inside").unwrap();
        symlink("../secret", inside.join("up")).unwrap();
        symlink("/etc/passwd", inside.join("absolute")).unwrap();
        symlink("sub", inside.join("link")).unwrap();
        let context = Context::open(&inside, IgnoreRules::default(), "").unwrap();
        let path = |text: &str| ImagePath::parse(text).unwrap();
        for outside in ["up", "absolute"] {
            let reached = resolve(&context, &path(outside), true).unwrap();
            assert!(context.look(&reached).unwrap().is_none(), "{outside}");
            assert!(context.open(&path(outside)).is_err(), "{outside}");
        }
        let reached = resolve(&context, &path("link/file"), true).unwrap();
        assert_eq!(reached, path("sub/file"));
        assert!(context.open(&reached).is_ok());
    }
}
