//! From a layer to a tree on disk: every entry ends up inside the tree, with the owner it should have.
//!
//! A tree is one layer, not the sum of layers, so that trees can be stacked. Directories that a layer uses without
//! naming them are made with the attributes they have in the trees below, because in a stack the topmost directory's
//! attributes are the ones seen.
//!
//! Layers of other tools are taken as they come. A whiteout hides what is below and nothing of its own layer, whichever
//! of the two stands first in the archive; a hard link may lead to a file of a layer below, and becomes a copy of it, as
//! overlayfs would make one; what aufs once left in layers (`.wh..wh.plnk` and the like) is passed over.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};

use crate::entry::{Entry, ImagePath, Kind, Mark, Metadata, mark};
use crate::record::{self, Attributes, Owners, Sidecar, TreeDir};
use crate::view::{OPAQUE_XATTR, View, is_whiteout};

/// How much of a file is written at once.
const BUFFER: usize = 1 << 17;

/// Fills one tree with the entries of a layer.
pub struct Unpacker<'a> {
    root: PathBuf,
    tree: &'a TreeDir,
    below: &'a [TreeDir],
    owners: Owners,
    sidecar: Sidecar,
    /// Directories of this tree that are known to be real directories.
    directories: HashSet<ImagePath>,
    /// What directories get at the end, when nothing is created in them any more.
    closing: BTreeMap<ImagePath, Closing>,
    /// What files' contents pass through.
    buffer: Vec<u8>,
}

/// What a directory gets last.
struct Closing {
    mtime: i64,
    /// Its mode, if that would keep a plain user from filling it.
    mode: Option<Mode>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks into `tree`, which is empty or holds earlier entries of the same layer, over the trees `below`.
    pub fn new(tree: &'a TreeDir, below: &'a [TreeDir], owners: Owners) -> io::Result<Self> {
        let root = tree.root();
        let sidecar = Sidecar::load(tree)?;
        let (directories, closing, buffer) = (HashSet::new(), BTreeMap::new(), vec![0; BUFFER]);
        Ok(Self { root, tree, below, owners, sidecar, directories, closing, buffer })
    }

    /// Applies one entry. Symbolic links in the directories above it are followed within the stack, as a container
    /// engine does; a later entry replaces an earlier one of the same name.
    pub fn apply(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        match mark(&entry.path) {
            Mark::Whiteout(hidden) => return self.whiteout(&hidden),
            Mark::Opaque(directory) => return self.opaque(&directory),
            Mark::Leftover => return Ok(()),
            Mark::None => {}
        }
        let path = self.place(&entry.path)?;
        let at = self.on_disk(&path);
        if entry.kind == Kind::Directory {
            return self.directory(path, &at, &entry.metadata);
        }
        if let Kind::File { .. } = entry.kind {
            return self.file(&path, &at, entry, content).map_err(|error| named(&entry.path, error));
        }
        self.remove(&path, &at)?;
        match &entry.kind {
            Kind::HardLink { target } => return self.hard_link(target, &at).map_err(|error| named(&entry.path, error)),
            Kind::Symlink { target } => symlink(as_path(target), &at)?,
            Kind::Fifo => rustix::fs::mknodat(CWD, &at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {}
            Kind::File { .. } | Kind::Directory => unreachable!("files and directories returned above"),
        }
        let attributes = Attributes::of_entry(entry);
        record::set_attributes(self.owners, &at, &attributes, &mut self.sidecar)
            .map_err(|error| named(&entry.path, error))?;
        set_time(&at, entry.metadata.mtime)
    }

    fn file(&mut self, path: &ImagePath, at: &Path, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut file = match new_file(at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(path, at)?;
                new_file(at)?
            }
            made => made?,
        };
        copy(content, &mut file, &mut self.buffer)?;
        let attributes = Attributes::of_entry(entry);
        record::set_attributes_of_new(self.owners, file.as_fd(), &attributes, &mut self.sidecar)?;
        Ok(rustix::fs::futimens(&file, &modified(entry.metadata.mtime))?)
    }

    fn hard_link(&mut self, target: &ImagePath, at: &Path) -> io::Result<()> {
        let target = self.place(target)?;
        match fs::hard_link(self.on_disk(&target), at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.copy_up(&target, at),
            done => done,
        }
    }

    /// A file of the trees below under another name in this one: a link between trees cannot be.
    fn copy_up(&mut self, target: &ImagePath, at: &Path) -> io::Result<()> {
        let found = View::new(self.below).lookup(target)?.filter(|found| !found.metadata.is_dir());
        let found = found.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("it is a link to {target}, which is not there"))
        })?;
        let attributes = record::attributes(self.owners, &found.path, &Sidecar::load(&self.below[found.tree])?)?;
        let file_type = found.metadata.file_type();
        if file_type.is_file() {
            copy(&mut File::open(&found.path)?, &mut new_file(at)?, &mut self.buffer)?;
        } else if file_type.is_symlink() {
            symlink(fs::read_link(&found.path)?, at)?;
        } else if file_type.is_fifo() {
            rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        record::set_attributes(self.owners, at, &attributes, &mut self.sidecar)?;
        set_time(at, std::os::unix::fs::MetadataExt::mtime(&found.metadata))
    }

    /// Sets the times and last modes of directories and stores the record of owners.
    pub fn finish(self) -> io::Result<()> {
        // Children first: a directory may forbid to enter it from then on.
        for (path, Closing { mtime, mode }) in self.closing.iter().rev() {
            let at = self.on_disk(path);
            set_time(&at, *mtime)?;
            if let Some(mode) = mode {
                rustix::fs::chmod(&at, *mode).map_err(|error| named(path, error.into()))?;
            }
        }
        self.sidecar.save(self.tree)
    }

    /// Remembers how a directory will look in the end, and until then lets its owner fill it: only root may make files
    /// where the mode forbids it.
    fn close_later(&mut self, path: ImagePath, at: &Path, mtime: i64) -> io::Result<()> {
        let needed = Mode::RWXU;
        let mode = Mode::from_raw_mode(fs::symlink_metadata(at)?.permissions().mode());
        let closed = self.owners == Owners::Recorded && !mode.contains(needed);
        if closed {
            rustix::fs::chmod(at, mode | needed)?;
        }
        self.closing.insert(path, Closing { mtime, mode: closed.then_some(mode) });
        Ok(())
    }

    fn on_disk(&self, path: &ImagePath) -> PathBuf {
        if path.is_root() { self.root.clone() } else { self.root.join(path.as_path()) }
    }

    /// Where an entry belongs: its directory exists in this tree afterwards, and holds no symbolic link.
    fn place(&mut self, path: &ImagePath) -> io::Result<ImagePath> {
        let Some(parent) = path.parent() else { return Ok(path.clone()) };
        if self.is_directory(&parent) {
            return Ok(path.clone());
        }
        let parent = self.resolve(&parent)?;
        self.make_directories(&parent)?;
        Ok(parent.join(path.name()))
    }

    /// Resolves links over the trees below and this one together.
    fn resolve(&self, path: &ImagePath) -> io::Result<ImagePath> {
        let stack: Vec<TreeDir> = self.below.iter().chain([self.tree]).cloned().collect();
        View::new(&stack).resolve(path)
    }

    fn is_directory(&self, path: &ImagePath) -> bool {
        path.is_root() || self.directories.contains(path)
    }

    fn make_directories(&mut self, path: &ImagePath) -> io::Result<()> {
        let mut missing: Vec<ImagePath> = std::iter::once(path.clone()).chain(path.ancestors()).collect();
        missing.retain(|path| !self.is_directory(path));
        for path in missing.into_iter().rev() {
            let at = self.on_disk(&path);
            match fs::symlink_metadata(&at) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    self.remove(&path, &at)?;
                    self.implied_directory(&path, &at)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.implied_directory(&path, &at)?,
                Err(error) => return Err(error),
            }
            self.directories.insert(path);
        }
        Ok(())
    }

    /// Makes a directory that the layer uses but does not name.
    fn implied_directory(&mut self, path: &ImagePath, at: &Path) -> io::Result<()> {
        fs::create_dir(at)?;
        let below = View::new(self.below).lookup(path)?.filter(|found| found.metadata.is_dir());
        let (attributes, mtime) = match below {
            Some(found) => {
                let sidecar = Sidecar::load(&self.below[found.tree])?;
                let attributes = record::attributes(self.owners, &found.path, &sidecar)?;
                (attributes, std::os::unix::fs::MetadataExt::mtime(&found.metadata))
            }
            None => (Attributes { mode: 0o755, ..Attributes::default() }, 0),
        };
        record::set_attributes(self.owners, at, &attributes, &mut self.sidecar)?;
        self.close_later(path.clone(), at, mtime)
    }

    fn directory(&mut self, path: ImagePath, at: &Path, metadata: &Metadata) -> io::Result<()> {
        if !self.is_directory(&path) {
            match fs::symlink_metadata(at) {
                Ok(found) if found.is_dir() => {}
                found => {
                    self.remove(&path, at)?;
                    fs::create_dir(at)?;
                    // Otherwise what the whiteout hides would be seen in the new directory.
                    if found.is_ok_and(|found| is_whiteout(&found)) {
                        set_opaque(at)?;
                    }
                }
            }
            self.directories.insert(path.clone());
        }
        let entry = Entry { path: path.clone(), kind: Kind::Directory, metadata: metadata.clone() };
        record::set_attributes(self.owners, at, &Attributes::of_entry(&entry), &mut self.sidecar)?;
        self.close_later(path, at, metadata.mtime)
    }

    /// Removes what an earlier entry of this layer left at a path.
    fn remove(&mut self, path: &ImagePath, at: &Path) -> io::Result<()> {
        match fs::symlink_metadata(at) {
            Ok(metadata) if metadata.is_dir() => {
                self.directories.retain(|directory| !directory.is_within(path));
                self.closing.retain(|directory, _| !directory.is_within(path));
                fs::remove_dir_all(at)
            }
            Ok(_) => fs::remove_file(at),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn whiteout(&mut self, hidden: &ImagePath) -> io::Result<()> {
        let path = self.place(hidden)?;
        let at = self.on_disk(&path);
        match fs::symlink_metadata(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(rustix::fs::mknodat(CWD, &at, FileType::CharacterDevice, Mode::empty(), 0)?)
            }
            // What this layer has there itself stays, and hides what is below.
            Ok(own) if own.is_dir() => set_opaque(&at),
            own => own.map(drop),
        }
    }

    fn opaque(&mut self, directory: &ImagePath) -> io::Result<()> {
        let path = self.resolve(directory)?;
        self.make_directories(&path)?;
        set_opaque(&self.on_disk(&path))
    }
}

fn set_opaque(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(directory, OPAQUE_XATTR, b"y", rustix::fs::XattrFlags::empty())?)
}

fn new_file(at: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)
}

/// As `std::io::copy`, whose buffer is too small for what is read through pointers.
fn copy(content: &mut dyn Read, file: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match content.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => file.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn set_time(at: &Path, seconds: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, at, &modified(seconds), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn modified(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

fn named(path: &ImagePath, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}
