//! Several trees seen as one, as overlayfs would show them: what is above hides what is below, whiteouts delete.
//!
//! Trees hold whiteouts and opaque marks in overlayfs' own form: a character device 0:0, and the attribute
//! `user.overlay.opaque`. See "overlayfs" in the kernel's documentation, with the mount option `userxattr`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::entry::ImagePath;
use crate::record::TreeDir;

/// The attribute that hides what the trees below have in a directory.
pub const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// How many symbolic links are followed before a path is taken for a loop, as the kernel does.
const MOST_LINKS: usize = 40;

/// A stack of trees, the bottom one first.
#[derive(Clone, Copy)]
pub struct View<'a> {
    trees: &'a [TreeDir],
}

/// Something that a view shows.
pub struct Found {
    /// Which of the trees holds it, counted from the bottom.
    pub tree: usize,
    /// Where it is on this machine.
    pub path: PathBuf,
    /// What `lstat` says of it there.
    pub metadata: fs::Metadata,
}

/// What one tree says about a path.
enum Layered {
    Here(Box<Found>),
    /// Not here, but perhaps in a tree below.
    Below,
    /// Neither here nor below.
    Hidden,
}

impl<'a> View<'a> {
    /// Sees `trees` as one, the last on top.
    pub fn new(trees: &'a [TreeDir]) -> Self {
        Self { trees }
    }

    /// What is at `path`; symbolic links in it are not followed.
    pub fn lookup(&self, path: &ImagePath) -> io::Result<Option<Found>> {
        for (index, tree) in self.trees.iter().enumerate().rev() {
            match lookup_in(index, tree, path)? {
                Layered::Here(found) => return Ok(Some(*found)),
                Layered::Below => {}
                Layered::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The path without symbolic links in it, as a process whose root is this view would reach it; the last name is
    /// followed too. Names that do not exist stay as they are. Never leaves the root.
    pub fn resolve(&self, path: &ImagePath) -> io::Result<ImagePath> {
        let mut waiting: Vec<Vec<u8>> = path.names().map(<[u8]>::to_vec).rev().collect();
        let mut reached = ImagePath::root();
        let mut links = 0;
        while let Some(name) = waiting.pop() {
            if name == b".." {
                reached = reached.parent().unwrap_or_default();
                continue;
            }
            let next = reached.join(&name);
            let found = self.lookup(&next)?;
            let Some(link) = found.filter(|found| found.metadata.is_symlink()) else {
                reached = next;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path}: too many symbolic links")));
            }
            let target = fs::read_link(&link.path)?.into_os_string().into_vec();
            if target.starts_with(b"/") {
                reached = ImagePath::root();
            }
            let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
            waiting.extend(names.map(<[u8]>::to_vec).rev());
        }
        Ok(reached)
    }

    /// The path with symbolic links resolved in its directory, but not in its last name.
    pub fn resolve_parent(&self, path: &ImagePath) -> io::Result<ImagePath> {
        match path.parent() {
            Some(parent) => Ok(self.resolve(&parent)?.join(path.name())),
            None => Ok(ImagePath::root()),
        }
    }

    /// The content of a small file, following links; none if it does not exist. More than `limit` bytes are an error.
    pub fn read(&self, path: &ImagePath, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(found) = self.lookup(&self.resolve(path)?)? else { return Ok(None) };
        if !found.metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a regular file")));
        }
        let mut content = Vec::new();
        fs::File::open(&found.path)?.take(limit + 1).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} is larger than {limit} bytes")));
        }
        Ok(Some(content))
    }

    /// The names in a directory, sorted; empty if there is no such directory.
    pub fn list(&self, directory: &ImagePath) -> io::Result<Vec<Vec<u8>>> {
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for (index, tree) in self.trees.iter().enumerate().rev() {
            match lookup_in(index, tree, directory)? {
                Layered::Hidden => break,
                Layered::Below => continue,
                Layered::Here(found) if !found.metadata.is_dir() => break,
                Layered::Here(found) => {
                    for item in fs::read_dir(&found.path)? {
                        let item = item?;
                        let visible = !is_whiteout(&item.metadata()?);
                        names.entry(item.file_name().into_vec()).or_insert(visible);
                    }
                    if is_opaque(&found.path)? {
                        break;
                    }
                }
            }
        }
        Ok(names.into_iter().filter(|(_, visible)| *visible).map(|(name, _)| name).collect())
    }
}

/// Looks many paths up in a view, and remembers which trees have the directories above them: in a stack of many trees
/// most have nothing to say about a path.
pub struct Finder<'a> {
    trees: &'a [TreeDir],
    /// The trees that show something of each directory, the top one first.
    known: HashMap<ImagePath, Vec<usize>>,
}

impl<'a> Finder<'a> {
    /// Looks into `trees` seen as one, the last on top. They must not change meanwhile.
    pub fn new(trees: &'a [TreeDir]) -> Self {
        Self { trees, known: HashMap::new() }
    }

    /// What [`View::lookup`] finds.
    pub fn lookup(&mut self, path: &ImagePath) -> io::Result<Option<Found>> {
        let trees = match path.parent() {
            Some(parent) => self.showing(&parent)?,
            None => (0..self.trees.len()).rev().collect(),
        };
        for tree in trees {
            let at = self.trees[tree].root().join(path.as_path());
            match fs::symlink_metadata(&at) {
                Ok(metadata) if is_whiteout(&metadata) => return Ok(None),
                Ok(metadata) => return Ok(Some(Found { tree, path: at, metadata })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The trees that show something of a directory, the top one first.
    pub(crate) fn showing(&mut self, directory: &ImagePath) -> io::Result<Vec<usize>> {
        if let Some(known) = self.known.get(directory) {
            return Ok(known.clone());
        }
        let above = match directory.parent() {
            Some(parent) => self.showing(&parent)?,
            None => (0..self.trees.len()).rev().collect(),
        };
        let mut showing = Vec::new();
        for tree in above {
            let at = self.trees[tree].root().join(directory.as_path());
            match fs::symlink_metadata(&at) {
                Ok(metadata) if !metadata.is_dir() => break,
                Ok(_) => showing.push(tree),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            if is_opaque(&at)? {
                break;
            }
        }
        self.known.insert(directory.clone(), showing.clone());
        Ok(showing)
    }
}

fn lookup_in(index: usize, tree: &TreeDir, path: &ImagePath) -> io::Result<Layered> {
    let mut reached = tree.root().to_path_buf();
    let mut opaque = false;
    let mut names = path.names().peekable();
    loop {
        let metadata = match fs::symlink_metadata(&reached) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if opaque { Layered::Hidden } else { Layered::Below });
            }
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        };
        if is_whiteout(&metadata) {
            return Ok(Layered::Hidden);
        }
        let Some(name) = names.next() else {
            return Ok(Layered::Here(Box::new(Found { tree: index, path: reached, metadata })));
        };
        if !metadata.is_dir() {
            return Ok(Layered::Hidden);
        }
        opaque = opaque || is_opaque(&reached)?;
        reached.push(OsStr::from_bytes(name));
    }
}

/// Whether a file of a tree is a whiteout.
pub fn is_whiteout(metadata: &fs::Metadata) -> bool {
    FileType::is_char_device(&metadata.file_type()) && metadata.rdev() == 0
}

/// Whether a directory of a tree hides what the trees below have in it.
pub fn is_opaque(directory: &Path) -> io::Result<bool> {
    let mut value = [0; 8];
    match rustix::fs::lgetxattr(directory, OPAQUE_XATTR, &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP | rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
