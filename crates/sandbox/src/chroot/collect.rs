//! What a command has changed in a copy, moved to where it belongs: into the upper tree, in overlayfs' own form, or
//! back into a directory of this machine.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use layer::view::{OPAQUE_XATTR, is_whiteout};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::copy::{Inode, Seen, SeenChild, SeenNode, State, attributes, copy_node, set_attributes, set_times};

/// How changes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As overlayfs does: what is deleted below is a whiteout, and a directory that hides one below is opaque.
    Overlay,
    /// Nothing is below: what is deleted is gone.
    Plain,
}

/// Moves changes.
pub(crate) struct Collector<'a> {
    pub(crate) form: Form,
    /// The copy that the command has changed.
    pub(crate) from: &'a Path,
    /// Where the changes belong.
    pub(crate) to: &'a Path,
    /// Paths that are not looked at.
    pub(crate) covered: &'a HashSet<PathBuf>,
    /// The files that had several names.
    pub(crate) names: &'a HashSet<Inode>,
    /// Those of them that were moved.
    moved: HashSet<Inode>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(
        form: Form,
        (from, to): (&'a Path, &'a Path),
        covered: &'a HashSet<PathBuf>,
        names: &'a HashSet<Inode>,
    ) -> Self {
        Self { form, from, to, covered, names, moved: HashSet::new() }
    }

    /// Moves everything that is not as it was seen.
    pub(crate) fn collect(mut self, seen: &Seen) -> io::Result<()> {
        let metadata = fs::symlink_metadata(self.from)?;
        if State::of(&metadata) != seen.state && attributes(self.from)? != seen.attributes {
            imitate(self.from, self.to)?;
        }
        self.directory(Path::new(""), seen)?;
        set_times(self.to, &metadata)
    }

    fn directory(&mut self, path: &Path, seen: &Seen) -> io::Result<()> {
        let mut there: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(self.from.join(path))? {
            there.push(entry?.file_name());
        }
        there.sort();
        for (name, child) in &seen.children {
            if there.binary_search(name).is_err() {
                self.deleted(&path.join(name), child.below)?;
            }
        }
        for name in there {
            let path = path.join(&name);
            if !self.covered.contains(&path) {
                self.name(&path, seen.children.get(&name))?;
            }
        }
        Ok(())
    }

    fn name(&mut self, path: &Path, seen: Option<&SeenChild>) -> io::Result<()> {
        let now = fs::symlink_metadata(self.from.join(path))?;
        let state = State::of(&now);
        let below = seen.is_some_and(|child| child.below);
        match seen.map(|child| &child.node) {
            Some(SeenNode::Directory(old)) if now.is_dir() && old.state.inode == state.inode => {
                if old.state != state && attributes(&self.from.join(path))? != old.attributes {
                    self.make_directory(path)?;
                    imitate(&self.from.join(path), &self.to.join(path))?;
                }
                self.directory(path, old)?;
                // Moving things changes the times of the directories that they are moved out of and into.
                let to = self.to.join(path);
                match fs::symlink_metadata(&to) {
                    Ok(_) => set_times(&to, &now),
                    Err(_) => Ok(()),
                }
            }
            Some(SeenNode::Other(old)) if *old == state => Ok(()),
            // Overlayfs copies the one name up that is changed, given another or renamed, and not the others with it.
            // Which of them that was nobody knows any more, so each becomes a file of its own.
            _ if !now.is_dir() && self.names.contains(&state.inode) => {
                let copy = !self.moved.insert(state.inode);
                self.take(path, &now, below, copy)
            }
            _ => self.take(path, &now, below, false),
        }
    }

    /// Moves what is new or changed; or copies it, where its file has been moved by another name.
    fn take(&self, path: &Path, now: &fs::Metadata, below: bool, copy: bool) -> io::Result<()> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        self.make_parents(path)?;
        let hides = remove(&to)? || below;
        if self.form == Form::Overlay && now.is_dir() && hides {
            rustix::fs::setxattr(&from, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
        }
        if copy {
            return copy_node(&from, now, &to);
        }
        match rustix::fs::rename(&from, &to) {
            Err(Errno::XDEV) => copy_tree(&from, now, &to),
            done => Ok(done?),
        }
    }

    fn deleted(&self, path: &Path, below: bool) -> io::Result<()> {
        let to = self.to.join(path);
        if self.form == Form::Overlay && below {
            self.make_parents(path)?;
            remove(&to)?;
            return Ok(make_whiteout(&to)?);
        }
        remove(&to).map(drop)
    }

    fn make_parents(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.make_directory(parent))
    }

    /// Copies a directory up, if it is not there.
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let to = self.to.join(path);
        if path.as_os_str().is_empty() || fs::symlink_metadata(&to).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(());
        }
        self.make_parents(path)?;
        fs::create_dir(&to)?;
        imitate(&self.from.join(path), &to)
    }
}

/// A deletion, as overlayfs marks it.
pub(crate) fn make_whiteout(path: &Path) -> Result<(), Errno> {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Gives a directory the attributes and the times of another.
fn imitate(from: &Path, to: &Path) -> io::Result<()> {
    set_attributes(to, &attributes(from)?)?;
    set_times(to, &fs::symlink_metadata(from)?)
}

/// Removes whatever is there. Returns whether it was a whiteout.
fn remove(path: &Path) -> io::Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        metadata => metadata?,
    };
    if metadata.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    Ok(is_whiteout(&metadata))
}

/// For a target on another file system.
fn copy_tree(from: &Path, metadata: &fs::Metadata, to: &Path) -> io::Result<()> {
    if !metadata.is_dir() {
        return copy_node(from, metadata, to);
    }
    let interrupt = std::sync::atomic::AtomicBool::new(false);
    super::copy::Copier::new(&interrupt, &HashSet::new()).plain(from, to).map(drop)
}

/// Brings a single file back, into the inode that is there.
pub(crate) fn bring_back(from: &Path, to: &Path, seen: State) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.is_file() || State::of(&metadata) == seen {
        return Ok(());
    }
    let mut content = fs::File::open(from)?;
    io::copy(&mut content, &mut fs::File::create(to)?)?;
    set_attributes(to, &attributes(from)?)
}
