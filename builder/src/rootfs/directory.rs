//! Files of an image in a directory of this machine, among what is there, and never outside of it.
//!
//! The directory is opened once. Everything else is reached from there by names that the kernel does not let be links, so
//! that neither a link in the directory nor one of the image leads out, also if somebody changes one meanwhile. What is made
//! gets its content, owner and mode by the descriptor that it was made with, or by one that was looked at: a directory may
//! belong to somebody else, who may put something else under the name. What was there stays, as BuildKit's users know it, unless the image has something of that name; a directory that is not empty
//! is not taken away for a file. Each file appears whole.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::is_stored;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::RootfsError;

/// What a file is called until it is whole; a number follows.
const UNFINISHED: &str = ".drystone-unfinished-";
/// Bits that let others act as the owner. They mean nothing good with an owner who is not the one of the image.
const ACTS_AS_OWNER: u32 = 0o6000;
/// Attributes that mean the same whoever owns a file.
const ANYBODYS: &[u8] = b"user.";

/// Whom the files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As in the image, for root.
    Kept,
    /// Whoever writes them.
    Writer,
}

/// What is not as in the image, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Device nodes that are not there.
    pub devices: u64,
    /// Files whose owner this machine does not allow.
    pub owners: u64,
    /// Extended attributes, such as capabilities.
    pub attributes: u64,
}

/// A directory that is being filled.
pub(super) struct Directory {
    root: OwnedFd,
    path: PathBuf,
    owners: Owners,
    left_out: LeftOut,
    /// What directories get when nothing is made in them any more.
    closing: BTreeMap<ImagePath, Metadata>,
    /// The directory that was used last.
    last: Option<(ImagePath, OwnedFd)>,
    unfinished: u64,
}

impl Directory {
    /// Makes it, unless it is there.
    pub(super) fn open(path: &Path, owners: Owners) -> Result<Self, RootfsError> {
        let failed = |source| RootfsError::Place { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let (left_out, closing, last) = (LeftOut::default(), BTreeMap::new(), None);
        Ok(Self { root, path: path.to_owned(), owners, left_out, closing, last, unfinished: 0 })
    }

    /// Puts something in; what it is in has been put in before.
    pub(super) fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), RootfsError> {
        self.try_to_put(entry, content).map_err(|source| self.failed(&entry.path, source))
    }

    /// Gives directories their modes and times.
    pub(super) fn finish(mut self) -> Result<LeftOut, RootfsError> {
        // Children first: a directory may forbid to enter it from then on.
        for (path, metadata) in std::mem::take(&mut self.closing).into_iter().rev() {
            self.close(&path, &metadata).map_err(|source| self.failed(&path, source))?;
        }
        Ok(self.left_out)
    }

    fn failed(&self, path: &ImagePath, source: io::Error) -> RootfsError {
        RootfsError::Place { path: self.path.join(path.as_path()), source }
    }

    fn try_to_put(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let parent = entry.path.parent().unwrap_or_default();
        let within = match self.last.take() {
            Some((path, opened)) if path == parent => opened,
            _ => self.opened(&parent)?,
        };
        let name = OsStr::from_bytes(entry.path.name());
        let put = self.put_within(within.as_fd(), name, entry, content);
        self.last = Some((parent, within));
        put
    }

    fn opened(&self, directory: &ImagePath) -> io::Result<OwnedFd> {
        let name = if directory.is_root() { Path::new(".") } else { directory.as_path() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        Ok(rustix::fs::openat2(self.root.as_fd(), name, flags, Mode::empty(), resolve)?)
    }

    fn put_within(
        &mut self,
        within: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        match &entry.kind {
            Kind::Directory => {
                make_directory(within, name)?;
                self.closing.insert(entry.path.clone(), entry.metadata.clone());
                return Ok(());
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } if self.owners == Owners::Writer => {
                self.left_out.devices += 1;
                return Ok(());
            }
            _ => {}
        }
        let Some(unfinished) = self.make(within, entry, content)? else { return Ok(()) };
        let done = put_in_place(within, &unfinished, name);
        // Where both were names of one file already, it is still there.
        let _ = rustix::fs::unlinkat(within, &unfinished, AtFlags::empty());
        done
    }

    /// Makes something under a name of its own. None if it cannot be made here.
    fn make(&mut self, within: BorrowedFd<'_>, entry: &Entry, content: &mut dyn Read) -> io::Result<Option<String>> {
        let (name, file) = loop {
            let name = format!("{UNFINISHED}{}", self.unfinished);
            self.unfinished += 1;
            match self.make_as(within, &name, entry) {
                Err(Errno::EXIST) => {}
                Err(Errno::PERM) if is_device(&entry.kind) => {
                    self.left_out.devices += 1;
                    return Ok(None);
                }
                made => break (name, made?),
            }
        };
        let filled = match file {
            Some(file) => self.fill(file, &entry.metadata, content),
            None => self.dress(within, &name, entry),
        };
        if filled.is_err() {
            let _ = rustix::fs::unlinkat(within, &name, AtFlags::empty());
        }
        filled.map(|()| Some(name))
    }

    /// Returns what a file is written by.
    fn make_as(&self, within: BorrowedFd<'_>, name: &str, entry: &Entry) -> Result<Option<File>, Errno> {
        let device = |kind, major, minor| {
            rustix::fs::mknodat(within, name, kind, Mode::empty(), rustix::fs::makedev(major, minor))
        };
        match &entry.kind {
            Kind::File { .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return rustix::fs::openat(within, name, flags, Mode::RUSR | Mode::WUSR).map(|file| Some(file.into()));
            }
            Kind::Symlink { target } => rustix::fs::symlinkat(OsStr::from_bytes(target), within, name)?,
            Kind::HardLink { target } => {
                let of = self.opened(&target.parent().unwrap_or_default());
                let of = of.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                rustix::fs::linkat(of, OsStr::from_bytes(target.name()), within, name, AtFlags::empty())?;
            }
            Kind::Fifo => rustix::fs::mknodat(within, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            Kind::CharDevice { major, minor } => device(FileType::CharacterDevice, *major, *minor)?,
            Kind::BlockDevice { major, minor } => device(FileType::BlockDevice, *major, *minor)?,
            Kind::Directory => unreachable!("directories are made under their own names"),
        }
        Ok(None)
    }

    fn fill(&mut self, mut file: File, metadata: &Metadata, content: &mut dyn Read) -> io::Result<()> {
        io::copy(content, &mut file)?;
        let allowed = self.give(file.as_fd(), metadata)?;
        self.set_attributes(file.as_fd(), metadata);
        rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode & allowed))?;
        Ok(rustix::fs::futimens(&file, &modified(metadata.mtime))?)
    }

    /// Gives what has no content its owner, mode and time.
    fn dress(&mut self, within: BorrowedFd<'_>, name: &str, entry: &Entry) -> io::Result<()> {
        let metadata = &entry.metadata;
        if let Kind::HardLink { .. } = entry.kind {
            // It has what its first name has.
            return Ok(());
        }
        let node = rustix::fs::openat(within, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        must_be_new(node.as_fd(), &entry.kind)?;
        let allowed = self.give(node.as_fd(), metadata)?;
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            // A descriptor that was opened for its path alone has no other way to its mode.
            let link = format!("/proc/self/fd/{}", node.as_raw_fd());
            let mode = Mode::from_raw_mode(metadata.mode & allowed);
            rustix::fs::chmodat(CWD, link, mode, AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(within, name, &modified(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn close(&mut self, path: &ImagePath, metadata: &Metadata) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(self.opened(path)?, ".", flags, Mode::empty())?;
        let allowed = self.give(directory.as_fd(), metadata)?;
        self.set_attributes(directory.as_fd(), metadata);
        let mode = Mode::from_raw_mode(metadata.mode & allowed);
        if Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode) != mode {
            rustix::fs::fchmod(&directory, mode)?;
        }
        Ok(rustix::fs::futimens(&directory, &modified(metadata.mtime))?)
    }

    /// Gives a file to its owner, if that may be. Says which bits of its mode it may have.
    fn give(&mut self, file: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<u32> {
        if self.owners == Owners::Writer {
            return Ok(!ACTS_AS_OWNER);
        }
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        match rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
            Err(Errno::PERM | Errno::INVAL) => {
                self.left_out.owners += 1;
                Ok(!ACTS_AS_OWNER)
            }
            given => given.map(|()| !0).map_err(Into::into),
        }
    }

    /// Sets the attributes that may be set.
    fn set_attributes(&mut self, file: BorrowedFd<'_>, metadata: &Metadata) {
        for (name, value) in &metadata.xattrs {
            // Others, such as overlayfs' own, mean something to this machine and not to the image.
            let may = is_stored(name) && (self.owners == Owners::Kept || name.starts_with(ANYBODYS));
            let name = OsStr::from_bytes(name);
            if !may || rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).is_err() {
                self.left_out.attributes += 1;
            }
        }
    }
}

/// Makes a directory that we can fill. One that is there stays; anything else of that name goes.
fn make_directory(within: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(within, name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    let found = rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        rustix::fs::unlinkat(within, name, AtFlags::empty())?;
        return Ok(rustix::fs::mkdirat(within, name, Mode::RWXU)?);
    }
    let mode = Mode::from_raw_mode(found.st_mode);
    if !mode.contains(Mode::RWXU) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(within, name, flags, Mode::empty())?;
        rustix::fs::chmodat(directory, ".", mode | Mode::RWXU, AtFlags::empty())?;
    }
    Ok(())
}

/// An error unless this is what was made a moment ago, and has one name.
fn must_be_new(node: BorrowedFd<'_>, kind: &Kind) -> io::Result<()> {
    let expected = match kind {
        Kind::Symlink { .. } => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::CharDevice { .. } => FileType::CharacterDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
        Kind::File { .. } | Kind::HardLink { .. } | Kind::Directory => return Ok(()),
    };
    let found = rustix::fs::fstat(node)?;
    if FileType::from_raw_mode(found.st_mode) == expected && found.st_nlink == 1 {
        return Ok(());
    }
    let text = "somebody else changes the directory that it is put into";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn put_in_place(within: BorrowedFd<'_>, unfinished: &str, name: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat(within, unfinished, within, name) {
        Err(Errno::ISDIR) => {}
        done => return Ok(done?),
    }
    match rustix::fs::unlinkat(within, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let text = "it is a directory that is not empty, and no directory in the image: remove it first";
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
        }
        removed => removed?,
    }
    Ok(rustix::fs::renameat(within, unfinished, within, name)?)
}

fn is_device(kind: &Kind) -> bool {
    matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

fn modified(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_put_under_the_name_is_not_given_to_anybody() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("secret"), "secret").unwrap();
        let open = |name: &str| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(at(name), flags, Mode::empty()).unwrap()
        };
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(must_be_new(open("fifo").as_fd(), &Kind::Fifo).is_ok());
        std::os::unix::fs::symlink("secret", at("link")).unwrap();
        for name in ["secret", "link"] {
            assert!(must_be_new(open(name).as_fd(), &Kind::Fifo).is_err(), "{name}");
        }
        fs::hard_link(at("fifo"), at("other")).unwrap();
        assert!(must_be_new(open("fifo").as_fd(), &Kind::Fifo).is_err());
    }
}
