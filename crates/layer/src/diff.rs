//! From a tree to a layer: what a step changed, compared with the trees below.
//!
//! Something that was rewritten with the same content and attributes makes no entry, and times alone are no change:
//! a layer says what is different, not what was touched. Deletions become whiteouts by name; opaque marks are never
//! written, since a directory that was emptied and filled again then costs only what is new in it.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::entry::{Entry, ImagePath, Kind, Metadata, whiteout_of};
use crate::record::{self, Attributes, DeviceKind, Owners, Sidecar, TreeDir};
use crate::view::{View, is_opaque, is_whiteout};
use crate::write::EntryWriter;

/// An entry of the new layer, and where its content is.
#[derive(Clone, Debug)]
pub struct Change {
    /// What the layer says.
    pub entry: Entry,
    /// The file on this machine that holds the content, for a regular file that is not empty.
    pub content: Option<PathBuf>,
    /// What is deleted, if that is what the entry says.
    pub deletes: Option<ImagePath>,
}

/// How changes are turned into entries.
pub struct Rules<'a> {
    /// When the step began, in seconds since 1970: what has this time or a later one was made by it.
    pub since: i64,
    /// The time that everything gets which the step made; times before the step that are later than this become it too.
    pub latest: i64,
    /// Whether a path belongs into the layer at all; what lies below a refused directory is still asked for.
    pub keep: &'a dyn Fn(&ImagePath, &fs::Metadata) -> bool,
}

impl Rules<'_> {
    /// The time in the layer of something that has this one on disk. The clock may be behind the date of the image, so
    /// the earlier of the two would not do.
    fn time(&self, found: i64) -> i64 {
        if found >= self.since { self.latest } else { found.min(self.latest) }
    }
}

/// What `upper` changes in the trees `below`, sorted by path, parents first. `upper` is in overlayfs' form.
pub fn changes(upper: &TreeDir, below: &[TreeDir], owners: Owners, rules: &Rules<'_>) -> io::Result<Vec<Change>> {
    let mut differ = Differ {
        upper: Side::of(upper, owners)?,
        below: below.iter().map(|tree| Side::of(tree, owners)).collect::<io::Result<_>>()?,
        view: View::new(below),
        rules,
        names: Names::default(),
        changes: BTreeMap::new(),
    };
    differ.directory(&upper.root(), &ImagePath::root())?;
    Ok(differ.changes.into_values().collect())
}

/// Writes changes as entries.
pub fn write<W: io::Write>(changes: &[Change], writer: &mut EntryWriter<W>) -> io::Result<()> {
    for change in changes {
        match (&change.deletes, &change.content) {
            (Some(path), _) => writer.write_whiteout(path, change.entry.metadata.mtime)?,
            (None, Some(path)) => writer.write(&change.entry, &mut fs::File::open(path)?)?,
            (None, None) => writer.write_empty(&change.entry)?,
        }
    }
    Ok(())
}

/// How one tree stores attributes.
pub(crate) struct Side {
    owners: Owners,
    sidecar: Sidecar,
}

impl Side {
    pub(crate) fn of(tree: &TreeDir, owners: Owners) -> io::Result<Self> {
        Ok(Self { owners, sidecar: Sidecar::load(tree)? })
    }

    pub(crate) fn attributes(&self, path: &Path) -> io::Result<Attributes> {
        record::attributes(self.owners, path, &self.sidecar)
    }
}

/// Something of a tree, with everything that a layer says of it but its time and content.
pub(crate) struct Item<'a> {
    pub(crate) at: &'a Path,
    pub(crate) metadata: &'a fs::Metadata,
    pub(crate) attributes: &'a Attributes,
}

impl Item<'_> {
    /// Whether a layer that has one of the two need not say anything of the other.
    pub(crate) fn is_same_as(&self, other: &Item<'_>) -> io::Result<bool> {
        if self.metadata.file_type() != other.metadata.file_type() || self.attributes != other.attributes {
            return Ok(false);
        }
        if self.metadata.is_symlink() {
            return Ok(fs::read_link(self.at)? == fs::read_link(other.at)?);
        }
        if self.metadata.is_file() {
            return Ok(self.metadata.len() == other.metadata.len() && same_content(self.at, other.at)?);
        }
        Ok(true)
    }

    /// The change that puts it at `path`.
    pub(crate) fn change(self, path: &ImagePath, mtime: i64, names: &mut Names) -> io::Result<Change> {
        let kind = match names.earlier(path, self.metadata) {
            Some(target) => Kind::HardLink { target },
            None => kind_of(self.at, self.metadata, self.attributes)?,
        };
        let content = (kind.size() > 0).then(|| self.at.to_path_buf());
        let Attributes { mode, uid, gid, xattrs, .. } = self.attributes.clone();
        let entry = Entry { path: path.clone(), kind, metadata: Metadata { mode, uid, gid, mtime, xattrs } };
        Ok(Change { entry, content, deletes: None })
    }
}

/// The change that deletes what is at `path`.
pub(crate) fn deletion(path: &ImagePath, mtime: i64) -> Change {
    let metadata = Metadata { mtime, ..Metadata::default() };
    let entry = Entry { path: whiteout_of(path), kind: Kind::File { size: 0 }, metadata };
    Change { entry, content: None, deletes: Some(path.clone()) }
}

/// The first path of each file with several names.
#[derive(Default)]
pub(crate) struct Names(HashMap<(u64, u64), ImagePath>);

impl Names {
    /// An earlier entry of this layer that is the same file.
    fn earlier(&mut self, path: &ImagePath, metadata: &fs::Metadata) -> Option<ImagePath> {
        if metadata.is_dir() || metadata.nlink() < 2 {
            return None;
        }
        match self.0.entry((metadata.dev(), metadata.ino())) {
            hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(path.clone());
                None
            }
        }
    }
}

struct Differ<'a> {
    upper: Side,
    below: Vec<Side>,
    view: View<'a>,
    rules: &'a Rules<'a>,
    names: Names,
    changes: BTreeMap<ImagePath, Change>,
}

impl Differ<'_> {
    fn directory(&mut self, at: &Path, path: &ImagePath) -> io::Result<()> {
        let mut items: Vec<fs::DirEntry> = fs::read_dir(at)?.collect::<io::Result<_>>()?;
        items.sort_by_key(fs::DirEntry::file_name);
        if is_opaque(at)? {
            self.hidden_children(path, &items)?;
        }
        for item in items {
            let path = path.join(&item.file_name().into_vec());
            self.item(&item.path(), &path, &item.metadata()?)?;
        }
        Ok(())
    }

    /// Whiteouts for what an opaque directory hides and does not replace.
    fn hidden_children(&mut self, path: &ImagePath, items: &[fs::DirEntry]) -> io::Result<()> {
        for name in self.view.list(path)? {
            if !items.iter().any(|item| item.file_name().into_vec() == name) {
                self.whiteout(&path.join(&name))?;
            }
        }
        Ok(())
    }

    fn item(&mut self, at: &Path, path: &ImagePath, metadata: &fs::Metadata) -> io::Result<()> {
        if is_whiteout(metadata) {
            return self.whiteout(path);
        }
        if metadata.file_type().is_socket() {
            return Ok(());
        }
        let attributes = self.upper.attributes(at)?;
        let item = Item { at, metadata, attributes: &attributes };
        if (self.rules.keep)(path, metadata) && !self.is_unchanged(path, &item)? {
            let time = self.rules.time(metadata.mtime());
            self.changes.insert(path.clone(), item.change(path, time, &mut self.names)?);
        }
        if metadata.is_dir() {
            self.directory(at, path)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &ImagePath) -> io::Result<()> {
        let Some(found) = self.view.lookup(path)? else { return Ok(()) };
        if !(self.rules.keep)(path, &found.metadata) {
            return Ok(());
        }
        let change = deletion(path, self.rules.latest);
        self.changes.insert(change.entry.path.clone(), change);
        Ok(())
    }

    fn is_unchanged(&self, path: &ImagePath, item: &Item<'_>) -> io::Result<bool> {
        let Some(found) = self.view.lookup(path)? else { return Ok(false) };
        let attributes = self.below[found.tree].attributes(&found.path)?;
        item.is_same_as(&Item { at: &found.path, metadata: &found.metadata, attributes: &attributes })
    }
}

fn kind_of(at: &Path, metadata: &fs::Metadata, attributes: &Attributes) -> io::Result<Kind> {
    if let Some(device) = attributes.device {
        let (major, minor) = (device.major, device.minor);
        return Ok(match device.kind {
            DeviceKind::Char => Kind::CharDevice { major, minor },
            DeviceKind::Block => Kind::BlockDevice { major, minor },
        });
    }
    let file_type = metadata.file_type();
    Ok(if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink { target: fs::read_link(at)?.into_os_string().into_vec() }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else {
        Kind::File { size: metadata.len() }
    })
}

fn same_content(left: &Path, right: &Path) -> io::Result<bool> {
    let (mut left, mut right) = (fs::File::open(left)?, fs::File::open(right)?);
    let (mut left_block, mut right_block) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = read_full(&mut left, &mut left_block)?;
        if length != read_full(&mut right, &mut right_block)? || left_block[..length] != right_block[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut fs::File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
