//! An image to take files from: the trees of its layers, seen as one.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use layer::entry::{ImagePath, Kind, Metadata};
use layer::record::{self, Device, DeviceKind, Owners, Sidecar, TreeDir};
use layer::view::View;

use super::shelf::{Item, ItemKind, Shelf};

/// The trees of an image.
pub struct ImageShelf {
    trees: Vec<TreeDir>,
    owners: Owners,
    sidecars: Vec<Sidecar>,
}

impl ImageShelf {
    /// Sees `trees` as one, the last on top.
    pub fn new(trees: Vec<TreeDir>, owners: Owners) -> io::Result<Self> {
        let sidecars = trees.iter().map(Sidecar::load).collect::<io::Result<_>>()?;
        Ok(Self { trees, owners, sidecars })
    }

    fn view(&self) -> View<'_> {
        View::new(&self.trees)
    }
}

impl Shelf for ImageShelf {
    fn look(&self, path: &ImagePath) -> io::Result<Option<Item>> {
        let Some(found) = self.view().lookup(path)? else { return Ok(None) };
        let attributes = record::attributes(self.owners, &found.path, &self.sidecars[found.tree])?;
        let file_type = found.metadata.file_type();
        let kind = if let Some(Device { kind, major, minor }) = attributes.device {
            ItemKind::Special(match kind {
                DeviceKind::Char => Kind::CharDevice { major, minor },
                DeviceKind::Block => Kind::BlockDevice { major, minor },
            })
        } else if file_type.is_dir() {
            ItemKind::Directory
        } else if file_type.is_file() {
            ItemKind::File { size: found.metadata.len() }
        } else if file_type.is_symlink() {
            ItemKind::Link { target: fs::read_link(&found.path)?.into_os_string().into_vec() }
        } else if file_type.is_fifo() {
            ItemKind::Special(Kind::Fifo)
        } else {
            ItemKind::Socket
        };
        let metadata = Metadata {
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: found.metadata.mtime(),
            xattrs: attributes.xattrs,
        };
        let several = found.metadata.is_file() && found.metadata.nlink() > 1;
        let inode = several.then(|| (found.metadata.dev(), found.metadata.ino()));
        Ok(Some(Item { kind, metadata, inode }))
    }

    fn list(&self, directory: &ImagePath) -> io::Result<Vec<Vec<u8>>> {
        self.view().list(directory)
    }

    fn open(&self, path: &ImagePath) -> io::Result<File> {
        let found = self.view().lookup(path)?.filter(|found| found.metadata.is_file());
        let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path} is no file")))?;
        File::open(found.path)
    }

    fn why_not(&self, _: &ImagePath) -> Option<String> {
        None
    }
}
