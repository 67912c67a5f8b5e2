//! One open file of a tree: what it is on disk, its record, and what a layer stores of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, StatxFlags};
use rustix::io::Errno;

use super::sidecar::{NodeKey, Sidecar};
use super::text::decode_record;
use super::{
    ACCESS_ACL_XATTR, Attributes, CAPABILITY_XATTR, Device, DeviceKind, MODE_BITS, Owners, RECORD_XATTR, Record, xattr,
};

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
            match xattr::read(&self.link, RECORD_XATTR.as_bytes()) {
                Ok(Some(value)) => return decode_record(&value, &self.link),
                Ok(None) => {}
                Err(error) if xattr::is_unsupported(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(links.get(self.key).cloned().unwrap_or_default())
    }

    /// Replaces its record.
    pub fn set_record(&self, links: &mut Sidecar, record: &Record) -> io::Result<()> {
        if self.carries_record() {
            match self.store_record(record) {
                Err(error) if xattr::is_unsupported(&error) => {}
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
                return xattr::remove(&self.link, RECORD_XATTR.as_bytes());
            }
            xattr::write(&self.link, RECORD_XATTR.as_bytes(), &record.encode())
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
        for name in xattr::list(&self.link)? {
            recorded |= owners != Owners::Real && name == RECORD_XATTR.as_bytes();
            if xattr::is_stored(&name)
                && let Some(value) = xattr::read(&self.link, &name)?
            {
                xattrs.insert(name, value);
            }
        }
        if owners == Owners::Real {
            let device = self.real_device();
            return Ok(Attributes { uid: self.uid, gid: self.gid, mode: self.mode, device, xattrs });
        }
        if let Some(value) = xattrs.get_mut(CAPABILITY_XATTR.as_bytes()) {
            xattr::without_namespace(value);
        }
        if owners == Owners::Mapped {
            let device = if recorded { self.record(links)?.device } else { None };
            return Ok(Attributes { uid: self.uid, gid: self.gid, mode: self.mode, device, xattrs });
        }
        let mut record = if recorded || !links.is_empty() { self.record(links)? } else { Record::default() };
        if let Some(acl) = record.xattrs.get_mut(ACCESS_ACL_XATTR.as_bytes()) {
            *acl = xattr::acl_under_mode(acl, self.mode);
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
        let mut extra = xattr::list(&self.link)?;
        let had_record = extra.iter().any(|name| name == RECORD_XATTR.as_bytes());
        extra.retain(|name| xattr::is_stored(name) && !attributes.xattrs.contains_key(name));
        for name in extra {
            self.change_xattrs(|| xattr::remove(&self.link, &name))?;
        }
        for (name, value) in attributes.xattrs.iter().filter(|(name, _)| xattr::is_stored(name)) {
            match self.change_xattrs(|| xattr::write(&self.link, name, value)) {
                Err(error) if owners == Owners::Recorded && is_refused(&error) => {
                    xattr::remove(&self.link, name)
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

    pub(super) fn change_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        if (uid, gid) == (self.uid, self.gid) {
            return Ok(());
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        Ok(rustix::fs::chownat(self.fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
    }
}

/// Says of an owner for whom a user namespace has no id that this is so.
pub(super) fn unmapped(error: io::Error, attributes: &Attributes) -> io::Error {
    if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) {
        return error;
    }
    let Attributes { uid, gid, .. } = attributes;
    let message = format!("the owner {uid}:{gid} is outside of the ids 0 to 65535 that the user namespace has");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Whether the kernel refused an attribute that it would take from root.
fn is_refused(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::PERM, Errno::OPNOTSUPP];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
