//! What a layer holds: paths that cannot leave the root, and entries with their metadata.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path inside an image: relative, without `.`, `..`, empty components or NUL; the empty path is the root itself.
/// Names are bytes: an image may hold names that are not UTF-8.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImagePath(Vec<u8>);

/// Longest path accepted, the kernel's `PATH_MAX`.
const LONGEST: usize = 4096;

impl ImagePath {
    /// The root of the image.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Reads a path as tar archives and specs write it: leading `/` and `./`, doubled and trailing slashes are dropped.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let text = text.as_ref();
        let refuse = |why| PathError { path: String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned(), why };
        if text.len() > LONGEST {
            return Err(refuse("it is longer than 4096 bytes"));
        }
        if text.contains(&0) {
            return Err(refuse("it holds a NUL byte"));
        }
        let mut path = Vec::with_capacity(text.len());
        for name in text.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(refuse("it holds `..`")),
                name if name.len() > 255 => return Err(refuse("a name in it is longer than 255 bytes")),
                name => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                }
            }
        }
        Ok(Self(path))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path to join to a directory of this machine.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// The directory this is in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// This path and those above it, without the root: `a/b/c` gives `a/b`, then `a`.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent).filter(|path| !path.is_root())
    }

    /// The names, from the top.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// `name` in the directory this path names. The name is one component without slash.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b".." && name != b".");
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// Whether this is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0 == other.0
            || (self.0.starts_with(&other.0) && self.0.get(other.0.len()) == Some(&b'/'))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for ImagePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

/// A path that cannot name something inside an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` cannot be a path in an image: {why}")]
pub struct PathError {
    path: String,
    why: &'static str,
}

/// What kind of thing an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File {
        /// Bytes of content that follow the header.
        size: u64,
    },
    /// A symbolic link; the target is any text.
    Symlink {
        /// What the link says.
        target: Vec<u8>,
    },
    /// Another name of a file that stands earlier in the same layer.
    HardLink {
        /// The earlier name.
        target: ImagePath,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// Bytes of content that follow the header in a tar.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size } => *size,
            Self::Directory
            | Self::Symlink { .. }
            | Self::HardLink { .. }
            | Self::CharDevice { .. }
            | Self::BlockDevice { .. }
            | Self::Fifo => 0,
        }
    }
}

/// Everything about an entry but its name, kind and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The twelve permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since 1970; whole seconds only, as layers of different tools compare by them.
    pub mtime: i64,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One thing in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: ImagePath,
    /// What it is.
    pub kind: Kind,
    /// Mode, owner, time and attributes.
    pub metadata: Metadata,
}

/// The prefix of names that delete something of the layers below.
///
/// See "Whiteouts" in the OCI image specification, `layer.md`.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that hides everything the layers below have in its directory.
pub const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// How aufs began the names of files of its own, some of which old layers still hold.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// What an entry of a layer does to the layers below, judged by its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An ordinary entry.
    None,
    /// Deletes this path.
    Whiteout(ImagePath),
    /// Hides what the layers below have in this directory.
    Opaque(ImagePath),
    /// Means nothing any more.
    Leftover,
}

/// Reads the mark in a name.
pub fn mark(path: &ImagePath) -> Mark {
    let (name, Some(parent)) = (path.name(), path.parent()) else { return Mark::None };
    if name == OPAQUE_NAME {
        return Mark::Opaque(parent);
    }
    if name.starts_with(AUFS_PREFIX) {
        return Mark::Leftover;
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        Some(hidden) if !hidden.is_empty() && hidden != b"." && hidden != b".." => Mark::Whiteout(parent.join(hidden)),
        _ => Mark::None,
    }
}

/// The name of the entry that deletes `path`.
pub fn whiteout_of(path: &ImagePath) -> ImagePath {
    let name = [WHITEOUT_PREFIX, path.name()].concat();
    path.parent().unwrap_or_default().join(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_normalised_and_cannot_leave_the_root() {
        for (text, expected) in [("./usr//bin/", "usr/bin"), ("/", ""), ("a", "a"), ("./.", ""), ("..a/b..", "..a/b..")]
        {
            assert_eq!(path(text).as_bytes(), expected.as_bytes(), "{text}");
        }
        for text in ["..", "a/../b", "/..", "a\0b", &"x".repeat(256), &"x/".repeat(3000)] {
            assert!(ImagePath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parents_and_names_follow_the_slashes() {
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(ImagePath::root()));
        assert_eq!(ImagePath::root().parent(), None);
        assert_eq!(path("a/b/c").ancestors().collect::<Vec<_>>(), [path("a/b"), path("a")]);
        assert!(path("a/b").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
    }

    #[test]
    fn whiteouts_are_told_from_ordinary_names() {
        assert_eq!(mark(&path("a/.wh.b")), Mark::Whiteout(path("a/b")));
        assert_eq!(mark(&path("a/.wh..wh..opq")), Mark::Opaque(path("a")));
        assert_eq!(mark(&path("a/.wh..wh.plnk")), Mark::Leftover);
        assert_eq!(mark(&path("a/.wh.")), Mark::None);
        assert_eq!(mark(&path("a/.wh...")), Mark::None);
        assert_eq!(mark(&path("a/wh.b")), Mark::None);
        assert_eq!(whiteout_of(&path("a/b")), path("a/.wh.b"));
    }
}
