//! Trees on disk, and who their files truly belong to.
//!
//! A tree is a directory:
//!
//! ```text
//! <tree>/root    the files, laid out as overlayfs wants a layer
//! <tree>/work    overlayfs' work directory, only while something is mounted over the tree
//! <tree>/links   the sidecar (below); absent if there is nothing in it
//! ```
//!
//! A builder that is root gives files their owners ([`Owners::Real`]). A plain user cannot: everything belongs to that
//! user, and what it should have been is written down beside the file ([`Owners::Recorded`]):
//!
//! - regular files and directories carry the extended attribute `user.drystone`, which survives rename, hard link and
//!   overlayfs' copy-up;
//! - a device node is an empty regular file whose record says which device it is;
//! - symbolic links, fifos and sockets cannot carry such an attribute. Their records are lines of the sidecar, found by
//!   inode number and time of birth, so that an inode number used again later is harmless.
//!
//! In a user namespace with a range of ids ([`Owners::Mapped`]) files have their owners, as that namespace sees them.
//! Only device nodes cannot be made there: they are empty files with a record, whose ids are always `0:0` and mean
//! nothing. There is no sidecar.
//!
//! A record is one line of words: `UID:GID`, then for a device `c:MAJOR:MINOR` or `b:MAJOR:MINOR`, then `NAME=VALUE` in
//! hexadecimal for each extended attribute that the kernel refused, sorted. It is short because ext4 keeps about a
//! hundred bytes of attributes inside the inode, and deterministic so that equal records are equal bytes. `0:0` is not
//! stored at all. The sidecar starts with a line that names its format; then one line each, sorted:
//! `INODE SECONDS.NANOSECONDS RECORD`.

mod node;
mod sidecar;
mod text;
mod xattr;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::entry::{Entry, Kind};

pub use self::node::Node;
pub use self::sidecar::{NodeKey, Sidecar};
pub use self::xattr::{acl_under_mode, is_stored};

/// The extended attribute that holds a record.
pub const RECORD_XATTR: &str = "user.drystone";

/// File capabilities.
pub const CAPABILITY_XATTR: &str = "security.capability";

/// The access control list of a file.
pub const ACCESS_ACL_XATTR: &str = "system.posix_acl_access";

/// The access control list that new files in a directory start with.
pub const DEFAULT_ACL_XATTR: &str = "system.posix_acl_default";

/// The twelve bits of a mode that a layer stores.
const MODE_BITS: u32 = 0o7777;

/// A directory that holds one layer's files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TreeDir {
    path: PathBuf,
}

impl TreeDir {
    /// Names a tree; nothing is touched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the directory of a tree and its empty root.
    ///
    /// Group and set-group-ID bit are those of a fresh directory of the caller, whatever the directory above says:
    /// in a user namespace, files of a group that is not mapped would be out of reach.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let tree = Self::new(path);
        for directory in [tree.path.clone(), tree.root()] {
            fs::create_dir(&directory)?;
            let group = rustix::process::getegid();
            if fs::symlink_metadata(&directory)?.gid() != group.as_raw() {
                rustix::fs::chown(&directory, None, Some(group))?;
            }
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        }
        Ok(tree)
    }

    /// The directory that holds all of it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files.
    pub fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Overlayfs' work directory.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// The sidecar.
    pub fn links(&self) -> PathBuf {
        self.path.join("links")
    }
}

/// How a tree stores owners, device nodes and attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owners {
    /// In the file system, as root can.
    Real,
    /// In the file system, by the ids of a user namespace; device nodes in records.
    Mapped,
    /// In records.
    Recorded,
}

/// Whether a device moves single bytes or blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// Which device a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Character or block.
    pub kind: DeviceKind,
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// What the file system could not say about a file. The default, root's file and nothing else, is not stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The true owner.
    pub uid: u32,
    /// The true group.
    pub gid: u32,
    /// The device that this empty file stands for.
    pub device: Option<Device>,
    /// Attributes that the kernel refused, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Everything about a file that a layer stores, but its kind, content and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The true owner.
    pub uid: u32,
    /// The true group.
    pub gid: u32,
    /// The twelve permission bits; 0777 for a symbolic link.
    pub mode: u32,
    /// The device, if it is a device node.
    pub device: Option<Device>,
    /// `security.capability`, access control lists and `user.*`, by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// What a layer's entry says.
    pub fn of_entry(entry: &Entry) -> Self {
        let device = match entry.kind {
            Kind::CharDevice { major, minor } => Some(Device { kind: DeviceKind::Char, major, minor }),
            Kind::BlockDevice { major, minor } => Some(Device { kind: DeviceKind::Block, major, minor }),
            Kind::Directory | Kind::File { .. } | Kind::Symlink { .. } | Kind::HardLink { .. } | Kind::Fifo => None,
        };
        let metadata = &entry.metadata;
        let (uid, gid, mode) = (metadata.uid, metadata.gid, metadata.mode & MODE_BITS);
        Self { uid, gid, mode, device, xattrs: metadata.xattrs.clone() }
    }
}

/// The attributes of what is at `path`; a symbolic link is not followed.
pub fn attributes(owners: Owners, path: &Path, links: &Sidecar) -> io::Result<Attributes> {
    let file = open_node(path)?;
    Node::of(file.as_fd())?.attributes(owners, links)
}

/// Gives what is at `path` these attributes, and takes away others that a layer would store; a symbolic link is not
/// followed. A device node that does not exist yet is made.
pub fn set_attributes(owners: Owners, path: &Path, attributes: &Attributes, links: &mut Sidecar) -> io::Result<()> {
    let file = match (open_node(path), attributes.device) {
        (Err(error), Some(device)) if error.kind() == io::ErrorKind::NotFound => {
            make_device(owners, path, device)?;
            open_node(path)?
        }
        (file, _) => file?,
    };
    Node::of(file.as_fd())?.set_attributes(owners, links, attributes)
}

/// The same for a regular file that was made just now and is open: where nothing about it is special, which is so for
/// nearly all files of an image, with fewer calls to the kernel.
pub fn set_attributes_of_new(
    owners: Owners,
    file: BorrowedFd<'_>,
    attributes: &Attributes,
    links: &mut Sidecar,
) -> io::Result<()> {
    let node = Node::of(file)?;
    let needs_record = owners == Owners::Recorded && (attributes.uid, attributes.gid) != (0, 0);
    // What a directory hands down to new files, such as an access control list, is not the image's.
    if needs_record || attributes.device.is_some() || !attributes.xattrs.is_empty() || xattr::has(file)? {
        return node.set_attributes(owners, links, attributes);
    }
    match owners {
        Owners::Real => node.change_owner(attributes.uid, attributes.gid)?,
        Owners::Mapped => {
            node.change_owner(attributes.uid, attributes.gid).map_err(|error| node::unmapped(error, attributes))?;
        }
        Owners::Recorded => {}
    }
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode & MODE_BITS))?)
}

/// The record of what is at `path`; a symbolic link is not followed.
pub fn read(path: &Path, links: &Sidecar) -> io::Result<Record> {
    let file = open_node(path)?;
    Node::of(file.as_fd())?.record(links)
}

/// Stores the record of what is at `path`; a symbolic link is not followed.
pub fn write(path: &Path, links: &mut Sidecar, record: &Record) -> io::Result<()> {
    let file = open_node(path)?;
    Node::of(file.as_fd())?.set_record(links, record)
}

fn open_node(path: &Path) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn make_device(owners: Owners, path: &Path, device: Device) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    let (file_type, number) = match (owners, device.kind) {
        (Owners::Mapped | Owners::Recorded, _) => (FileType::RegularFile, 0),
        (Owners::Real, DeviceKind::Char) => (FileType::CharacterDevice, device.number()),
        (Owners::Real, DeviceKind::Block) => (FileType::BlockDevice, device.number()),
    };
    Ok(rustix::fs::mknodat(CWD, path, file_type, mode, number)?)
}

impl Device {
    /// The number that the kernel uses for it.
    pub fn number(self) -> u64 {
        rustix::fs::makedev(self.major, self.minor)
    }
}

fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree that is removed when the test is over.
    struct Scratch(TreeDir);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("drystone-record-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(TreeDir::create(path).unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.root().join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.0.path());
        }
    }

    /// What a new file has that got these attributes by the short way, and one that got them by the other.
    fn both_ways(scratch: &Scratch, name: &str, owners: Owners, attributes: &Attributes) -> [Attributes; 2] {
        let paths = [scratch.path(&format!("{name}-short")), scratch.path(&format!("{name}-long"))];
        let [short, long] = &paths;
        let mut links = Sidecar::default();
        let file = fs::File::create_new(short).unwrap();
        set_attributes_of_new(owners, file.as_fd(), attributes, &mut links).unwrap();
        fs::File::create_new(long).unwrap();
        set_attributes(owners, long, attributes, &mut links).unwrap();
        paths.map(|path| super::attributes(owners, &path, &links).unwrap())
    }

    #[test]
    fn a_new_file_gets_the_same_by_the_short_way() {
        let scratch = Scratch::new("short");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let xattrs = BTreeMap::from([(b"user.note".to_vec(), b"x".to_vec())]);
        let plain = Attributes { mode: 0o644, ..Attributes::default() };
        for owners in [Owners::Real, Owners::Mapped, Owners::Recorded] {
            let (uid, gid) = if owners == Owners::Recorded { (0, 0) } else { (uid, gid) };
            let cases = [
                ("plain", Attributes { uid, gid, ..plain.clone() }),
                ("setuid", Attributes { uid, gid, mode: 0o4755, ..plain.clone() }),
                ("closed", Attributes { uid, gid, mode: 0, ..plain.clone() }),
                ("noted", Attributes { uid, gid, xattrs: xattrs.clone(), ..plain.clone() }),
            ];
            for (name, attributes) in cases {
                let [short, long] = both_ways(&scratch, &format!("{name}-{owners:?}"), owners, &attributes);
                assert_eq!(short, long, "{owners:?} {name}");
                assert_eq!((short.mode, short.uid, short.gid), (attributes.mode, uid, gid), "{owners:?} {name}");
                assert_eq!(short.xattrs, attributes.xattrs, "{owners:?} {name}");
            }
        }
        let others = Attributes { uid: 12, gid: 34, mode: 0o2755, ..plain };
        let [short, long] = both_ways(&scratch, "others", Owners::Recorded, &others);
        assert_eq!((&short, short.uid, short.gid), (&long, 12, 34));
    }

    fn owned(uid: u32, gid: u32) -> Record {
        Record { uid, gid, ..Record::default() }
    }

    fn acl_of(entries: &[(u8, u8, u32)]) -> Vec<u8> {
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            acl.extend([*tag, 0, *bits, 0]);
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let device = Some(Device { kind: DeviceKind::Block, major: 8, minor: 1 });
        let xattrs = BTreeMap::from([(b"user.a b".to_vec(), vec![0, 255]), (b"z".to_vec(), Vec::new())]);
        let cases = [
            (owned(0, 0), "0:0"),
            (owned(105, 4_294_967_294), "105:4294967294"),
            (Record { device, ..owned(0, 6) }, "0:6 b:8:1"),
            (Record { device, xattrs, ..owned(1, 2) }, "1:2 b:8:1 757365722e612062=00ff 7a="),
        ];
        for (record, text) in cases {
            assert_eq!(record.to_string(), text);
            assert_eq!(Record::decode(text.as_bytes()), Some(record), "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_record_is_refused() {
        let texts = [
            "",
            "0",
            "0:0 ",
            " 0:0",
            "00:0",
            "-1:0",
            "4294967296:0",
            "0:0 x:1:2",
            "0:0 c:1",
            "0:0 c:1:2:3",
            "0:0 c:1:2 c:1:2",
            "0:0 6=",
            "0:0 zz=00",
            "0:0 62= 61=",
            "0:0 61= 61=",
            "0:0 61",
            "0:0 6A=",
            "0:0\n",
        ];
        for text in texts {
            assert_eq!(Record::decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_sidecar_is_read_as_it_was_saved_and_an_empty_one_is_no_file() {
        let scratch = Scratch::new("sidecar");
        let key = NodeKey { inode: 7, born_seconds: 1_700_000_000, born_nanoseconds: 42 };
        let mut links = Sidecar::default();
        links.set(key, owned(105, 106));
        links.save(&scratch.0).unwrap();
        assert_eq!(Sidecar::load(&scratch.0).unwrap(), links);
        links.set(key, Record::default());
        links.save(&scratch.0).unwrap();
        assert!(!scratch.0.links().exists());
        assert!(Sidecar::load(&scratch.0).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_sidecar_is_an_error_that_names_the_line() {
        let scratch = Scratch::new("damaged");
        fs::write(scratch.0.links(), "drystone links 1\n1 2.000000003 4:5\n1 2.000000003\n").unwrap();
        let error = Sidecar::load(&scratch.0).unwrap_err().to_string();
        assert!(error.contains("links:3: expected"), "{error}");
    }

    #[test]
    fn recorded_attributes_are_read_as_they_were_set_for_every_kind_of_node() {
        let scratch = Scratch::new("recorded");
        fs::write(scratch.path("file"), "x").unwrap();
        fs::create_dir(scratch.path("directory")).unwrap();
        symlink("nowhere", scratch.path("link")).unwrap();
        rustix::fs::mknodat(CWD, scratch.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let named_user = acl_of(&[(1, 7, !0), (2, 5, 1234), (4, 1, !0), (16, 5, !0), (32, 0, !0)]);
        let xattrs = BTreeMap::from([(b"user.color".to_vec(), b"blue".to_vec())]);
        let device = Some(Device { kind: DeviceKind::Char, major: 1, minor: 3 });
        let base = Attributes { uid: 105, gid: 42, mode: 0o4750, ..Attributes::default() };
        let acl = BTreeMap::from([(ACCESS_ACL_XATTR.as_bytes().to_vec(), named_user)]);
        let cases = [
            ("file", Attributes { xattrs, ..base.clone() }),
            ("directory", Attributes { mode: 0o2750, xattrs: acl, ..base.clone() }),
            ("link", Attributes { mode: 0o777, ..base.clone() }),
            ("fifo", Attributes { mode: 0o600, ..base.clone() }),
            ("device", Attributes { mode: 0o666, device, ..base }),
        ];
        let mut links = Sidecar::default();
        for (name, attributes) in &cases {
            set_attributes(Owners::Recorded, &scratch.path(name), attributes, &mut links).unwrap();
        }
        for (name, expected) in &cases {
            let found = attributes(Owners::Recorded, &scratch.path(name), &links).unwrap();
            assert_eq!(&found, expected, "{name}");
        }
        assert!(scratch.path("device").is_file());
        fs::rename(scratch.path("file"), scratch.path("other")).unwrap();
        fs::hard_link(scratch.path("link"), scratch.path("second")).unwrap();
        for name in ["other", "second"] {
            assert_eq!(read(&scratch.path(name), &links).unwrap(), owned(105, 42), "{name}");
        }
    }

    #[test]
    fn mapped_owners_are_those_of_the_file_and_only_devices_have_a_record() {
        let scratch = Scratch::new("mapped");
        let (file, node, mut links) = (scratch.path("file"), scratch.path("node"), Sidecar::default());
        fs::write(&file, "").unwrap();
        let own = fs::metadata(&file).unwrap();
        let plain = Attributes { uid: own.uid(), gid: own.gid(), mode: 0o640, ..Attributes::default() };
        let device =
            Attributes { device: Some(Device { kind: DeviceKind::Block, major: 8, minor: 1 }), ..plain.clone() };
        for (path, wanted) in [(&file, &plain), (&node, &device)] {
            set_attributes(Owners::Mapped, path, wanted, &mut links).unwrap();
            assert_eq!(attributes(Owners::Mapped, path, &links).unwrap(), *wanted);
        }
        assert_eq!(xattr::list(&file).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(read(&node, &links).unwrap(), Record { device: device.device, ..Record::default() });
        set_attributes(Owners::Mapped, &node, &plain, &mut links).unwrap();
        assert_eq!(attributes(Owners::Mapped, &node, &links).unwrap(), plain);
        assert!(links.is_empty());
    }

    #[test]
    fn setting_attributes_takes_away_what_was_there() {
        let scratch = Scratch::new("again");
        let (path, mut links) = (scratch.path("file"), Sidecar::default());
        fs::write(&path, "").unwrap();
        let xattrs = BTreeMap::from([(b"user.color".to_vec(), b"blue".to_vec())]);
        let first = Attributes { uid: 9, gid: 9, mode: 0o644, xattrs, device: None };
        set_attributes(Owners::Recorded, &path, &first, &mut links).unwrap();
        let plain = Attributes { mode: 0o600, ..Attributes::default() };
        set_attributes(Owners::Recorded, &path, &plain, &mut links).unwrap();
        assert_eq!(attributes(Owners::Recorded, &path, &links).unwrap(), plain);
        assert_eq!(xattr::list(&path).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_new_inode_with_an_old_number_has_no_record() {
        let (old, new) = (1, 2);
        let key = |born_nanoseconds| NodeKey { inode: 5, born_seconds: 9, born_nanoseconds };
        let mut links = Sidecar::default();
        links.set(key(old), owned(1, 1));
        assert_eq!(links.get(key(new)), None);
    }

    #[test]
    fn an_acl_follows_the_mode_as_chmod_would_make_it() {
        let with_mask = acl_of(&[(1, 7, !0), (2, 7, 5), (4, 7, !0), (16, 7, !0), (32, 7, !0)]);
        let expected = acl_of(&[(1, 6, !0), (2, 7, 5), (4, 7, !0), (16, 4, !0), (32, 0, !0)]);
        assert_eq!(acl_under_mode(&with_mask, 0o640), expected);
        assert_eq!(acl_under_mode(&[2, 0], 0o640), [2, 0]);
    }

    #[test]
    fn a_capability_of_a_namespace_is_read_as_roots() {
        let mut capability = vec![1, 0, 0, 3, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254, 255, 0, 0];
        xattr::without_namespace(&mut capability);
        assert_eq!(capability, [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
