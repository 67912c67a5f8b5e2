//! Where `COPY`, `ADD` and bind mounts take files from: a context or an image, looked at in the same way. Links are
//! followed inside of it only, as if it were the root of a machine.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use content::{Digest, HashingReader};
use layer::entry::{ImagePath, Kind, Metadata};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Something on a shelf.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its mode, owner, time and attributes.
    pub metadata: Metadata,
    /// What tells it from other files, if it has several names.
    pub inode: Option<(u64, u64)>,
}

/// What something on a shelf is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File {
        /// How many.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: Vec<u8>,
    },
    /// A pipe, or a device.
    Special(Kind),
    /// A socket, which only means something to whoever listens there.
    Socket,
}

impl ItemKind {
    /// Bytes of content.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size } => *size,
            Self::Directory | Self::Link { .. } | Self::Special(_) | Self::Socket => 0,
        }
    }
}

/// Files to take from.
pub trait Shelf {
    /// What is at a path without links in its directories; its last name is not followed.
    fn look(&self, path: &ImagePath) -> io::Result<Option<Item>>;

    /// The names in a directory, sorted.
    fn list(&self, directory: &ImagePath) -> io::Result<Vec<Vec<u8>>>;

    /// Opens a regular file.
    fn open(&self, path: &ImagePath) -> io::Result<File>;

    /// Why something is not there that one may have expected, if that is known.
    fn why_not(&self, path: &ImagePath) -> Option<String>;

    /// Whether links from its root have a meaning, as in an image. In a context they mean files of the machine.
    fn is_root(&self) -> bool {
        true
    }
}

impl<S: Shelf + ?Sized> Shelf for &S {
    fn look(&self, path: &ImagePath) -> io::Result<Option<Item>> {
        (**self).look(path)
    }

    fn list(&self, directory: &ImagePath) -> io::Result<Vec<Vec<u8>>> {
        (**self).list(directory)
    }

    fn open(&self, path: &ImagePath) -> io::Result<File> {
        (**self).open(path)
    }

    fn why_not(&self, path: &ImagePath) -> Option<String> {
        (**self).why_not(path)
    }

    fn is_root(&self) -> bool {
        (**self).is_root()
    }
}

/// The path that `path` leads to, once all links are followed, also in its last name if `last` says so. What does not
/// exist stays as it is.
pub fn resolve(shelf: &dyn Shelf, path: &ImagePath, last: bool) -> io::Result<ImagePath> {
    walk(shelf, path, last, &mut |_, _| {})
}

/// The first link on the way to a path that points out of the shelf, and what it says.
pub fn way_out(shelf: &dyn Shelf, path: &ImagePath) -> Option<(ImagePath, String)> {
    let mut found = None;
    let mut see = |link: &ImagePath, target: &[u8]| {
        if found.is_none() && points_out(link, target) {
            found = Some((link.clone(), String::from_utf8_lossy(target).into_owned()));
        }
    };
    // Where it ends does not matter here.
    let _ = walk(shelf, path, true, &mut see);
    found
}

/// Whether a link leads above the root of what it lies in.
fn points_out(link: &ImagePath, target: &[u8]) -> bool {
    let mut depth = link.names().count().saturating_sub(1);
    let climbs = |name: &[u8]| match name {
        b"" | b"." => false,
        b".." if depth == 0 => true,
        b".." => {
            depth -= 1;
            false
        }
        _ => {
            depth += 1;
            false
        }
    };
    target.starts_with(b"/") || target.split(|byte| *byte == b'/').any(climbs)
}

/// Follows the links to a path, and shows each with what it says.
fn walk(
    shelf: &dyn Shelf,
    path: &ImagePath,
    last: bool,
    see: &mut dyn FnMut(&ImagePath, &[u8]),
) -> io::Result<ImagePath> {
    let mut waiting: VecDeque<Vec<u8>> = path.names().map(<[u8]>::to_vec).collect();
    let mut reached = ImagePath::root();
    let mut links = 0;
    while let Some(name) = waiting.pop_front() {
        if name == b".." {
            reached = reached.parent().unwrap_or_default();
            continue;
        }
        let next = reached.join(&name);
        if waiting.is_empty() && !last {
            return Ok(next);
        }
        let Some(Item { kind: ItemKind::Link { target }, .. }) = shelf.look(&next)? else {
            reached = next;
            continue;
        };
        see(&next, &target);
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path}: too many symbolic links")));
        }
        if target.starts_with(b"/") {
            reached = ImagePath::root();
        }
        let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        for name in names.rev() {
            waiting.push_front(name.to_vec());
        }
    }
    Ok(reached)
}

/// The digest of a file's content.
pub fn digest(shelf: &dyn Shelf, path: &ImagePath) -> io::Result<Digest> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("`{path}` cannot be read: {error}"));
    let mut reader = HashingReader::new(shelf.open(path).map_err(named)?);
    io::copy(&mut reader, &mut io::sink()).map_err(named)?;
    Ok(reader.finish().1)
}

/// A path as people write it: from the root, `..` going no higher than that.
pub fn path_of(text: &str) -> Result<ImagePath, String> {
    let mut names: Vec<&str> = Vec::new();
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    ImagePath::parse(names.join("/")).map_err(|error| error.to_string())
}
