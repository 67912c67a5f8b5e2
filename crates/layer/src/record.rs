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

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

use crate::entry::{Entry, Kind};

/// The extended attribute that holds a record.
pub const RECORD_XATTR: &str = "user.drystone";

/// File capabilities.
pub const CAPABILITY_XATTR: &str = "security.capability";

/// The access control list of a file.
pub const ACCESS_ACL_XATTR: &str = "system.posix_acl_access";

/// The access control list that new files in a directory start with.
pub const DEFAULT_ACL_XATTR: &str = "system.posix_acl_default";

/// Overlayfs' own attributes begin so.
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";

/// The largest value of an extended attribute (`XATTR_SIZE_MAX`).
const LARGEST_VALUE: usize = 65536;

/// The largest list of names of extended attributes (`XATTR_LIST_MAX`).
const LARGEST_LIST: usize = 65536;

/// No sidecar that we wrote is larger than this.
const LARGEST_SIDECAR: u64 = 256 << 20;

/// The first line of a sidecar.
const SIDECAR_FORMAT: &str = "drystone links 1";

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
    if needs_record || attributes.device.is_some() || !attributes.xattrs.is_empty() || has_xattrs(file)? {
        return node.set_attributes(owners, links, attributes);
    }
    if owners != Owners::Recorded {
        node.change_owner(attributes.uid, attributes.gid).map_err(|error| unmapped(error, attributes))?;
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

/// One open file of a tree, whatever kind of file it is.
pub struct Node<'a> {
    fd: BorrowedFd<'a>,
    /// A path that leads to the open file itself: a descriptor opened with `O_PATH` has no other way to attributes.
    link: PathBuf,
    file_type: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    device_number: (u32, u32),
    key: NodeKey,
}

impl<'a> Node<'a> {
    /// Looks at an open file; a descriptor opened with `O_PATH` will do, and is needed for anything but regular files
    /// and directories.
    pub fn of(fd: BorrowedFd<'a>) -> io::Result<Self> {
        Self::reached_by(fd, PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())))
    }

    /// The same where `/proc` is not what it usually is: `link` leads to this process' descriptor `fd`.
    pub fn reached_by(fd: BorrowedFd<'a>, link: PathBuf) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Self {
            fd,
            link,
            file_type: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & MODE_BITS,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            device_number: (stat.stx_rdev_major, stat.stx_rdev_minor),
            key: NodeKey {
                inode: stat.stx_ino,
                born_seconds: stat.stx_btime.tv_sec,
                born_nanoseconds: stat.stx_btime.tv_nsec,
            },
        })
    }

    /// What kind of file it is on disk.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// The twelve permission bits on disk, when it was looked at.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// How the sidecar finds it.
    pub fn key(&self) -> NodeKey {
        self.key
    }

    /// A path that leads to it, to be followed.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Whether its record is an extended attribute and not a line of the sidecar.
    pub fn carries_record(&self) -> bool {
        matches!(self.file_type, FileType::RegularFile | FileType::Directory)
    }

    /// Its record, the default if there is none.
    pub fn record(&self, links: &Sidecar) -> io::Result<Record> {
        if self.carries_record() {
            match read_xattr(&self.link, RECORD_XATTR.as_bytes()) {
                Ok(Some(value)) => return decode_record(&value, &self.link),
                Ok(None) => {}
                Err(error) if is_unsupported(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(links.get(self.key).cloned().unwrap_or_default())
    }

    /// Replaces its record.
    pub fn set_record(&self, links: &mut Sidecar, record: &Record) -> io::Result<()> {
        if self.carries_record() {
            match self.store_record(record) {
                Err(error) if is_unsupported(&error) => {}
                done => {
                    links.remove(self.key);
                    return done;
                }
            }
        }
        links.set(self.key, record.clone());
        Ok(())
    }

    fn store_record(&self, record: &Record) -> io::Result<()> {
        self.change_xattrs(|| {
            if *record == Record::default() {
                return remove_xattr(&self.link, RECORD_XATTR.as_bytes());
            }
            write_xattr(&self.link, RECORD_XATTR.as_bytes(), &record.encode())
        })
    }

    /// Changes attributes. A plain user may change those of a file only while the file may be written, which its own
    /// mode can forbid.
    fn change_xattrs(&self, change: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let refused = match change() {
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => error,
            done => return done,
        };
        let mode = rustix::fs::statx(self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MODE)?.stx_mode;
        let mode = Mode::from_raw_mode(u32::from(mode) & MODE_BITS);
        if mode.contains(Mode::RUSR | Mode::WUSR) {
            return Err(refused);
        }
        let open = mode | Mode::RUSR | Mode::WUSR;
        rustix::fs::chmodat(CWD, &self.link, open, AtFlags::empty())?;
        let done = change();
        // As before, also the access control list: its mask has the bits of the group, which stayed.
        rustix::fs::chmodat(CWD, &self.link, mode, AtFlags::empty())?;
        done
    }

    /// What a layer stores about it.
    pub fn attributes(&self, owners: Owners, links: &Sidecar) -> io::Result<Attributes> {
        let mut xattrs = BTreeMap::new();
        let mut recorded = owners == Owners::Recorded && !self.carries_record();
        for name in list_xattrs(&self.link)? {
            recorded |= owners != Owners::Real && name == RECORD_XATTR.as_bytes();
            if is_stored(&name)
                && let Some(value) = read_xattr(&self.link, &name)?
            {
                xattrs.insert(name, value);
            }
        }
        if owners == Owners::Real {
            let device = self.real_device();
            return Ok(Attributes { uid: self.uid, gid: self.gid, mode: self.mode, device, xattrs });
        }
        if let Some(value) = xattrs.get_mut(CAPABILITY_XATTR.as_bytes()) {
            without_namespace(value);
        }
        if owners == Owners::Mapped {
            let device = if recorded { self.record(links)?.device } else { None };
            return Ok(Attributes { uid: self.uid, gid: self.gid, mode: self.mode, device, xattrs });
        }
        let mut record = if recorded || !links.is_empty() { self.record(links)? } else { Record::default() };
        if let Some(acl) = record.xattrs.get_mut(ACCESS_ACL_XATTR.as_bytes()) {
            *acl = acl_under_mode(acl, self.mode);
        }
        xattrs.append(&mut record.xattrs);
        Ok(Attributes { uid: record.uid, gid: record.gid, mode: self.mode, device: record.device, xattrs })
    }

    fn real_device(&self) -> Option<Device> {
        let kind = match self.file_type {
            FileType::CharacterDevice => DeviceKind::Char,
            FileType::BlockDevice => DeviceKind::Block,
            _ => return None,
        };
        Some(Device { kind, major: self.device_number.0, minor: self.device_number.1 })
    }

    /// Gives it these attributes, and takes away others that a layer would store.
    pub fn set_attributes(&self, owners: Owners, links: &mut Sidecar, attributes: &Attributes) -> io::Result<()> {
        let mut record = Record::default();
        match owners {
            Owners::Real => self.change_owner(attributes.uid, attributes.gid)?,
            Owners::Mapped => {
                self.change_owner(attributes.uid, attributes.gid).map_err(|error| unmapped(error, attributes))?;
                record.device = attributes.device;
            }
            Owners::Recorded => {
                (record.uid, record.gid, record.device) = (attributes.uid, attributes.gid, attributes.device);
            }
        }
        if self.file_type != FileType::Symlink {
            // Changing the owner clears the set-ID bits, so the mode comes after it. It comes in any case: an access
            // control list below must find the group bits it belongs to.
            let mode = Mode::from_raw_mode(attributes.mode & MODE_BITS);
            rustix::fs::chmodat(CWD, &self.link, mode, AtFlags::empty())?;
        }
        let mut extra = list_xattrs(&self.link)?;
        let had_record = extra.iter().any(|name| name == RECORD_XATTR.as_bytes());
        extra.retain(|name| is_stored(name) && !attributes.xattrs.contains_key(name));
        for name in extra {
            self.change_xattrs(|| remove_xattr(&self.link, &name))?;
        }
        for (name, value) in attributes.xattrs.iter().filter(|(name, _)| is_stored(name)) {
            match self.change_xattrs(|| write_xattr(&self.link, name, value)) {
                Err(error) if owners == Owners::Recorded && is_refused(&error) => {
                    remove_xattr(&self.link, name)
                        .or_else(|error| if is_refused(&error) { Ok(()) } else { Err(error) })?;
                    record.xattrs.insert(name.clone(), value.clone());
                }
                done => done?,
            }
        }
        match owners {
            Owners::Real => Ok(()),
            Owners::Mapped if record.device.is_none() && !had_record => Ok(()),
            Owners::Mapped | Owners::Recorded => self.set_record(links, &record),
        }
    }

    fn change_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        if (uid, gid) == (self.uid, self.gid) {
            return Ok(());
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        Ok(rustix::fs::chownat(self.fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
    }
}

/// Says of an owner for whom a user namespace has no id that this is so.
fn unmapped(error: io::Error, attributes: &Attributes) -> io::Error {
    if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) {
        return error;
    }
    let Attributes { uid, gid, .. } = attributes;
    let message = format!("the owner {uid}:{gid} is outside of the ids 0 to 65535 that the user namespace has");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Whether a layer stores an attribute of this name.
fn is_stored(name: &[u8]) -> bool {
    let acls = [ACCESS_ACL_XATTR.as_bytes(), DEFAULT_ACL_XATTR.as_bytes()];
    let ours = name == RECORD_XATTR.as_bytes() || name.starts_with(OVERLAY_PREFIX);
    name == CAPABILITY_XATTR.as_bytes() || acls.contains(&name) || (name.starts_with(b"user.") && !ours)
}

/// Whether a file system holds no attributes of this kind at all.
fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
}

/// Whether the kernel refused an attribute that it would take from root.
fn is_refused(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::PERM, Errno::OPNOTSUPP];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn read_xattr(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let name = OsStr::from_bytes(name);
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::getxattr(path, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA) => return Ok(None),
            Err(Errno::RANGE) if value.len() < LARGEST_VALUE => value.resize(LARGEST_VALUE, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty())?)
}

fn remove_xattr(path: &Path, name: &[u8]) -> io::Result<()> {
    match rustix::fs::removexattr(path, OsStr::from_bytes(name)) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn has_xattrs(file: BorrowedFd<'_>) -> io::Result<bool> {
    match rustix::fs::flistxattr(file, [0_u8; 0].as_mut_slice()) {
        Ok(length) => Ok(length > 0),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn list_xattrs(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 1024];
    let length = loop {
        match rustix::fs::listxattr(path, list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::OPNOTSUPP) => break 0,
            Err(Errno::RANGE) if list.len() < LARGEST_LIST => list.resize(LARGEST_LIST, 0),
            Err(error) => return Err(error.into()),
        }
    };
    Ok(list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// File capabilities set inside a user namespace name the namespace's root (revision 3). In a layer that is nobody: the
/// plain form (revision 2) is what root would have written.
fn without_namespace(capability: &mut Vec<u8>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    if capability.len() == 24 && capability[3] == REVISION_3 {
        capability.truncate(20);
        capability[3] = REVISION_2;
    }
}

/// An access control list as it is once `chmod` has given the file this mode.
///
/// The kernel keeps the two in step; for a list that the kernel does not know we do it when the list is read. Owner and
/// others have the mode's bits, and the group's bits are those of the mask, or of the group if there is no mask.
pub fn acl_under_mode(acl: &[u8], mode: u32) -> Vec<u8> {
    const VERSION_BYTES: usize = 4;
    const ENTRY_BYTES: usize = 8;
    const OWNER: u8 = 0x01;
    const GROUP: u8 = 0x04;
    const MASK: u8 = 0x10;
    const OTHERS: u8 = 0x20;
    let mut acl = acl.to_vec();
    let Some(entries) = acl.get_mut(VERSION_BYTES..) else { return acl };
    let masked = entries.chunks_exact(ENTRY_BYTES).any(|entry| entry[0] == MASK);
    for entry in entries.chunks_exact_mut(ENTRY_BYTES) {
        let bits = match entry[0] {
            OWNER => mode >> 6,
            MASK => mode >> 3,
            GROUP if !masked => mode >> 3,
            OTHERS => mode,
            _ => continue,
        };
        entry[2] = (bits & 7) as u8;
    }
    acl
}

impl Record {
    /// The record as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Reads a record; anything but what [`Record::encode`] writes is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ').peekable();
        let (uid, gid) = words.next()?.split_once(':')?;
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let device = words.next_if(|word| word.contains(':')).map(decode_device);
        let mut xattrs = BTreeMap::new();
        for word in words {
            let (name, value) = word.split_once('=')?;
            xattrs.insert(from_hex(name)?, from_hex(value)?);
        }
        let record = Self { uid, gid, device: device.map_or(Some(None), |device| device.map(Some))?, xattrs };
        (record.encode() == bytes).then_some(record)
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.uid, self.gid)?;
        if let Some(Device { kind, major, minor }) = self.device {
            let kind = match kind {
                DeviceKind::Char => 'c',
                DeviceKind::Block => 'b',
            };
            write!(formatter, " {kind}:{major}:{minor}")?;
        }
        for (name, value) in &self.xattrs {
            write!(formatter, " {}={}", to_hex(name), to_hex(value))?;
        }
        Ok(())
    }
}

fn decode_device(word: &str) -> Option<Device> {
    let mut parts = word.split(':');
    let kind = match parts.next()? {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Device { kind, major, minor })
}

fn decode_record(bytes: &[u8], place: &dyn std::fmt::Debug) -> io::Result<Record> {
    Record::decode(bytes).ok_or_else(|| {
        let found = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        damaged(format!("{place:?}: expected a record of owners, found `{found}`"))
    })
}

fn damaged(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

/// What tells one inode from another that had its number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey {
    /// The inode number.
    pub inode: u64,
    /// When the inode was made: seconds since 1970.
    pub born_seconds: i64,
    /// And nanoseconds.
    pub born_nanoseconds: u32,
}

/// The records of a tree's symbolic links, fifos and sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    records: BTreeMap<NodeKey, Record>,
}

impl Sidecar {
    /// Reads a tree's sidecar; empty if there is none.
    pub fn load(tree: &TreeDir) -> io::Result<Self> {
        let path = tree.links();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut lines = io::BufReader::new(file.take(LARGEST_SIDECAR)).split(b'\n');
        if lines.next().transpose()?.as_deref() != Some(SIDECAR_FORMAT.as_bytes()) {
            return Err(damaged(format!("{}: expected the first line `{SIDECAR_FORMAT}`", path.display())));
        }
        let mut sidecar = Self::default();
        for (number, line) in lines.enumerate() {
            let line = line?;
            let (key, record) = decode_line(&line).ok_or_else(|| {
                damaged(format!("{}:{}: expected an inode and its record", path.display(), number + 2))
            })?;
            sidecar.set(key, record);
        }
        Ok(sidecar)
    }

    /// Replaces a tree's sidecar by this one, at once or not at all. An empty one is no file.
    pub fn save(&self, tree: &TreeDir) -> io::Result<()> {
        if self.is_empty() {
            return match fs::remove_file(tree.links()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let unfinished = tree.path().join("links.new");
        let mut file = io::BufWriter::new(fs::File::create(&unfinished)?);
        writeln!(file, "{SIDECAR_FORMAT}")?;
        for (key, record) in &self.records {
            writeln!(file, "{} {}.{:09} {record}", key.inode, key.born_seconds, key.born_nanoseconds)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(unfinished, tree.links())
    }

    /// The record of an inode.
    pub fn get(&self, key: NodeKey) -> Option<&Record> {
        self.records.get(&key)
    }

    /// Stores the record of an inode; the default is not stored.
    pub fn set(&mut self, key: NodeKey, record: Record) {
        if record == Record::default() {
            self.records.remove(&key);
        } else {
            self.records.insert(key, record);
        }
    }

    /// Takes over the records of another sidecar.
    pub fn absorb(&mut self, other: Self) {
        self.records.extend(other.records);
    }

    /// Forgets an inode.
    pub fn remove(&mut self, key: NodeKey) {
        self.records.remove(&key);
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn decode_line(line: &[u8]) -> Option<(NodeKey, Record)> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(words.next()?).ok();
    let inode = text()?.parse().ok()?;
    let (seconds, nanoseconds) = text()?.split_once('.')?;
    let key = NodeKey { inode, born_seconds: seconds.parse().ok()?, born_nanoseconds: nanoseconds.parse().ok()? };
    Some((key, Record::decode(words.next()?)?))
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
        assert_eq!(list_xattrs(&file).unwrap(), Vec::<Vec<u8>>::new());
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
        assert_eq!(list_xattrs(&path).unwrap(), Vec::<Vec<u8>>::new());
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
        without_namespace(&mut capability);
        assert_eq!(capability, [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
