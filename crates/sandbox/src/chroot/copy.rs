//! Trees made into one directory: the root filesystem as overlayfs would show it, in files of its own.
//!
//! Nothing here follows a symbolic link: every path that is opened is made of names that were just read from
//! directories which are no links, and nobody else changes the trees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use layer::record::{self, Attributes, Owners, Sidecar, TreeDir};
use layer::view::{is_opaque, is_whiteout};
use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

/// What a directory was like before the command ran.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) attributes: Attributes,
    pub(crate) state: State,
    /// By name; what is covered by a mount is not here.
    pub(crate) children: BTreeMap<OsString, SeenChild>,
}

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct SeenChild {
    /// Whether the trees below the upper one show something of this name.
    pub(crate) below: bool,
    pub(crate) node: SeenNode,
}

/// What the name stood for.
#[derive(Debug)]
pub(crate) enum SeenNode {
    Directory(Seen),
    Other(State),
}

/// What tells whether an inode is the same, and unchanged: whatever is done to it sets the time of its change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) inode: Inode,
    changed: (i64, i64),
    modified: (i64, i64),
    size: u64,
    mode: u32,
}

/// An inode, by number and time of birth: numbers are used again.
pub(crate) type Inode = (u64, Option<SystemTime>);

fn inode(metadata: &fs::Metadata) -> Inode {
    (metadata.ino(), metadata.created().ok())
}

impl State {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: inode(metadata),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // The size of a directory is its own business.
            size: if metadata.is_dir() { 0 } else { metadata.len() },
            mode: metadata.mode(),
        }
    }
}

/// Copies trees.
pub(crate) struct Copier<'a> {
    /// Set by whoever wants to stop.
    pub(crate) interrupt: &'a AtomicBool,
    /// Paths that are not copied, because something else is seen there.
    pub(crate) covered: &'a HashSet<PathBuf>,
    /// The first name in the copy of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

/// A directory in one of the trees.
struct Part {
    path: PathBuf,
    /// Whether it belongs to a tree below the upper one.
    below: bool,
}

/// What the trees say about one name.
#[derive(Default)]
struct Name {
    /// What is seen.
    top: Option<(PathBuf, fs::Metadata)>,
    /// If that is a directory: it, and those that shine through.
    parts: Vec<Part>,
    /// Nothing further below is seen.
    closed: bool,
    /// Whether the trees below the upper one show something.
    below: Option<bool>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(interrupt: &'a AtomicBool, covered: &'a HashSet<PathBuf>) -> Self {
        Self { interrupt, covered, links: HashMap::new() }
    }

    /// Makes the directory `to` show what the trees show, `upper` on top. What the answer says of inodes is filled in
    /// by [`look_again`].
    pub(crate) fn trees(&mut self, lowers: &[TreeDir], upper: &TreeDir, to: &Path) -> io::Result<Seen> {
        let mut parts = vec![Part { path: upper.root(), below: false }];
        parts.extend(lowers.iter().rev().map(|tree| Part { path: tree.root(), below: true }));
        let open = parts.iter().position(|part| is_opaque(&part.path).unwrap_or(false));
        parts.truncate(open.map_or(parts.len(), |last| last + 1));
        self.directory(&parts, to, Path::new(""))
    }

    /// The same for one directory of this machine.
    pub(crate) fn plain(&mut self, from: &Path, to: &Path) -> io::Result<Seen> {
        self.directory(&[Part { path: from.to_path_buf(), below: false }], to, Path::new(""))
    }

    fn directory(&mut self, parts: &[Part], to: &Path, path: &Path) -> io::Result<Seen> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let top = &parts[0].path;
        let attributes = attributes(top).map_err(|error| named(top, error))?;
        fs::create_dir(to).map_err(|error| named(to, error))?;
        let mut children = BTreeMap::new();
        for (name, seen) in names(parts)? {
            let Some((from, metadata)) = seen.top else { continue };
            let (path, to) = (path.join(&name), to.join(&name));
            if self.covered.contains(&path) {
                continue;
            }
            let node = if metadata.is_dir() {
                SeenNode::Directory(self.directory(&seen.parts, &to, &path)?)
            } else {
                self.other(&from, &metadata, &to).map_err(|error| named(&from, error))?;
                SeenNode::Other(State::default())
            };
            children.insert(name, SeenChild { below: seen.below == Some(true), node });
        }
        // Last, because a directory may forbid what was just done in it, and its time has changed by that.
        set_attributes(to, &attributes)?;
        set_times(to, &fs::symlink_metadata(top)?)?;
        Ok(Seen { attributes, state: State::default(), children })
    }

    fn other(&mut self, from: &Path, metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&(metadata.dev(), metadata.ino())) {
                return fs::hard_link(first, to);
            }
            self.links.insert((metadata.dev(), metadata.ino()), to.to_path_buf());
        }
        copy_node(from, metadata, to)
    }
}

fn names(parts: &[Part]) -> io::Result<BTreeMap<OsString, Name>> {
    let mut names: BTreeMap<OsString, Name> = BTreeMap::new();
    for part in parts {
        for entry in fs::read_dir(&part.path).map_err(|error| named(&part.path, error))? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let whiteout = is_whiteout(&metadata);
            let name = names.entry(entry.file_name()).or_default();
            if part.below {
                name.below.get_or_insert(!whiteout);
            }
            if name.closed {
                continue;
            }
            if !metadata.is_dir() {
                name.closed = true;
                if name.top.is_none() && !whiteout {
                    name.top = Some((entry.path(), metadata));
                }
                continue;
            }
            name.closed = is_opaque(&entry.path())?;
            name.parts.push(Part { path: entry.path(), below: part.below });
            name.top.get_or_insert_with(|| (entry.path(), metadata));
        }
    }
    Ok(names)
}

/// Copies anything but a directory, with all that a layer stores of it.
pub(crate) fn copy_node(from: &Path, metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    let file_type = metadata.file_type();
    if file_type.is_file() {
        copy_content(from, metadata, to)?;
    } else if file_type.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else {
        let kind = FileType::from_raw_mode(metadata.mode());
        rustix::fs::mknodat(CWD, to, kind, Mode::RUSR | Mode::WUSR, metadata.rdev())?;
    }
    set_attributes(to, &attributes(from)?)?;
    set_times(to, metadata)
}

fn copy_content(from: &Path, metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    let mut copy = fs::File::create_new(to)?;
    if metadata.len() == 0 {
        return Ok(());
    }
    let mut file = fs::File::open(from)?;
    if rustix::fs::ioctl_ficlone(&copy, &file).is_ok() {
        return Ok(());
    }
    const BLOCK: u64 = 512;
    if metadata.blocks() * BLOCK < metadata.len() {
        return copy_sparse(&file, metadata.len(), &copy);
    }
    io::copy(&mut file, &mut copy).map(drop)
}

/// Copies a file that has holes, and leaves them holes.
fn copy_sparse(file: &fs::File, length: u64, copy: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    copy.set_len(length)?;
    let mut buffer = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            match file.read_at(&mut buffer[..most], at)? {
                0 => return Ok(()),
                read => {
                    copy.write_all_at(&buffer[..read], at)?;
                    at += read as u64;
                }
            }
        }
    }
}

/// Fills in what is known of inodes, once nothing is changed any more before the command starts. Returns the files that
/// have several names.
pub(crate) fn look_again(seen: &mut Seen, at: &Path) -> io::Result<HashSet<Inode>> {
    let mut names = HashSet::new();
    look_at_directory(seen, at, &mut names)?;
    Ok(names)
}

fn look_at_directory(seen: &mut Seen, at: &Path, names: &mut HashSet<Inode>) -> io::Result<()> {
    seen.state = State::of(&fs::symlink_metadata(at)?);
    for (name, child) in &mut seen.children {
        let at = at.join(name);
        match &mut child.node {
            SeenNode::Directory(directory) => look_at_directory(directory, &at, names)?,
            SeenNode::Other(state) => {
                let metadata = fs::symlink_metadata(&at)?;
                *state = State::of(&metadata);
                if metadata.nlink() > 1 {
                    names.insert(inode(&metadata));
                }
            }
        }
    }
    Ok(())
}

/// All that a layer stores, but kind, content and time.
pub(crate) fn attributes(path: &Path) -> io::Result<Attributes> {
    record::attributes(Owners::Real, path, &Sidecar::default())
}

/// Gives something these attributes.
pub(crate) fn set_attributes(path: &Path, attributes: &Attributes) -> io::Result<()> {
    record::set_attributes(Owners::Real, path, attributes, &mut Sidecar::default())
}

/// Gives something the times that these are.
pub(crate) fn set_times(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    // An error that has a name already keeps it.
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
        None => error,
    }
}
