//! Calls that make files: by someone who is not root, in a directory that passes its group or access control list on,
//! or device nodes. All others are left to the kernel, whose new files belong to root as they should.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use layer::record::{ACCESS_ACL_XATTR, DEFAULT_ACL_XATTR, Device, DeviceKind, Node, Owners, Record};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::identity::Identity;
use super::owners::SETGID;
use super::place::Place;
use super::{Handling, Reply, kernel_says, memory, node, open_path};
use crate::acl::Acl;
use crate::notify::Answer;

/// A new file.
enum New {
    File { flags: OFlags, mode: u32 },
    Directory { mode: u32 },
    Link { target: CString },
    Special { file_type: FileType, mode: u32 },
    Device { device: Device, mode: u32 },
}

impl New {
    /// The permission bits it asks for; none for a symbolic link, which has all.
    fn mode(&self) -> Option<u32> {
        match self {
            Self::File { mode, .. }
            | Self::Directory { mode }
            | Self::Special { mode, .. }
            | Self::Device { mode, .. } => Some(*mode & 0o7777),
            Self::Link { .. } => None,
        }
    }

    fn with_mode(self, mode: u32) -> Self {
        match self {
            Self::File { flags, .. } => Self::File { flags, mode },
            Self::Directory { .. } => Self::Directory { mode },
            Self::Special { file_type, .. } => Self::Special { file_type, mode },
            Self::Device { device, .. } => Self::Device { device, mode },
            Self::Link { .. } => self,
        }
    }
}

/// The directory in which a file is made.
struct Parent<'a> {
    file: &'a OwnedFd,
    record: Record,
    mode: u32,
}

impl<'a> Parent<'a> {
    fn new(file: &'a OwnedFd, node: &Node<'_>, record: Record) -> Self {
        Self { file, mode: node.mode(), record }
    }

    fn passes_group_on(&self) -> bool {
        self.mode & SETGID != 0
    }

    /// An access control list that the kernel does not know.
    fn default_acl(&self) -> Option<Acl> {
        Acl::parse(self.record.xattrs.get(DEFAULT_ACL_XATTR.as_bytes())?)
    }

    /// Whether someone may make files here, as far as the mode says.
    fn admits(&self, identity: &Identity) -> bool {
        const WRITE_AND_SEARCH: u32 = 0o3;
        let shift = match identity {
            _ if identity.is_root_for_files() => return true,
            _ if identity.user.files == self.record.uid => 6,
            _ if identity.is_in_group(self.record.gid) => 3,
            _ => 0,
        };
        self.mode >> shift & WRITE_AND_SEARCH == WRITE_AND_SEARCH
    }
}

impl Handling<'_> {
    /// `open` and its kin with `O_CREAT` or `O_TMPFILE`.
    pub(super) fn open(&mut self, place: Place, flags: i32, mode: u32) -> Reply {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        if flags.contains(OFlags::PATH) {
            return Ok(Answer::Continue);
        }
        let new = New::File { flags, mode };
        if flags.contains(OFlags::TMPFILE) {
            return self.create(&place, None, new);
        }
        let Some((directory, name)) = place.split() else { return Ok(Answer::Continue) };
        self.create(&directory, Some(&name), new)
    }

    /// `openat2`, whose flags are in memory.
    pub(super) fn openat2(&mut self) -> Reply {
        const SIZE: usize = size_of::<libc::open_how>();
        if self.call.arguments[3] < SIZE as u64 {
            return Ok(Answer::Continue);
        }
        let mut how = [0; SIZE];
        memory::read(self.call, self.call.arguments[2], &mut how).map_err(kernel_says)?;
        let (words, _) = how.as_chunks();
        let [flags, mode, ..] = words else { return Ok(Answer::Continue) };
        let (flags, mode) = (u64::from_ne_bytes(*flags), u64::from_ne_bytes(*mode));
        let creating = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u64;
        match (i32::try_from(flags), u32::try_from(mode)) {
            (Ok(known), Ok(mode)) if flags & creating != 0 => self.open(self.place_of(0, 1, 0)?, known, mode),
            _ => Ok(Answer::Continue),
        }
    }

    /// `mkdir`.
    pub(super) fn make_directory(&mut self, place: Place, mode: u32) -> Reply {
        let place = place.without_trailing_slashes();
        let Some((directory, name)) = place.split() else { return Ok(Answer::Continue) };
        // Of the bits above the permissions, mkdir takes only the sticky one.
        self.create(&directory, Some(&name), New::Directory { mode: mode & 0o1777 })
    }

    /// `symlink`, whose target is the argument at `target`.
    pub(super) fn make_link(&mut self, target: usize, place: Place) -> Reply {
        let Some((directory, name)) = place.split() else { return Ok(Answer::Continue) };
        let target = memory::read_text(self.call, self.call.arguments[target]).map_err(kernel_says)?;
        self.create(&directory, Some(&name), New::Link { target })
    }

    /// `mknod`.
    pub(super) fn make_node(&mut self, place: Place, mode: u32, number: u64) -> Reply {
        let Some((directory, name)) = place.split() else { return Ok(Answer::Continue) };
        // The kernel's own encoding in this call is 32 bits wide.
        let number = u64::from(number as u32);
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let device = |kind| Device { kind, major, minor };
        let new = match FileType::from_raw_mode(mode) {
            FileType::CharacterDevice if number == 0 => return Ok(Answer::Continue),
            FileType::CharacterDevice if self.state.owners == Owners::Mapped => {
                return self.record_device(&directory, &name, device(DeviceKind::Char), mode);
            }
            FileType::BlockDevice if self.state.owners == Owners::Mapped => {
                return self.record_device(&directory, &name, device(DeviceKind::Block), mode);
            }
            FileType::CharacterDevice => New::Device { device: device(DeviceKind::Char), mode },
            FileType::BlockDevice => New::Device { device: device(DeviceKind::Block), mode },
            file_type @ (FileType::Fifo | FileType::Socket) => New::Special { file_type, mode },
            _ if mode & libc::S_IFMT == 0 || mode & libc::S_IFMT == libc::S_IFREG => {
                New::Special { file_type: FileType::RegularFile, mode }
            }
            _ => return Ok(Answer::Continue),
        };
        self.create(&directory, Some(&name), new)
    }

    /// Makes a file in a directory; without a name, one that has none.
    fn create(&mut self, directory: &Place, name: Option<&CStr>, new: New) -> Reply {
        let identity = self.identity()?;
        let is_device = matches!(new, New::Device { .. });
        let record = self.state.record_at(self.call, directory)?;
        if record.is_none() && identity.makes_roots_files() && !is_device {
            return Ok(Answer::Continue);
        }
        let file = open_path(&directory.path().to_owned(), OFlags::DIRECTORY).map_err(kernel_says)?;
        let parent = Parent::new(&file, &node(&file).map_err(kernel_says)?, record.unwrap_or_default());
        let default_acl = parent.default_acl();
        let passes_on = (parent.passes_group_on() && parent.record.gid != 0) || default_acl.is_some();
        if identity.makes_roots_files() && !is_device && !passes_on {
            return Ok(Answer::Continue);
        }
        if name.is_some_and(|name| exists(&parent, name)) {
            // Opening what exists is the kernel's, and so is the error for everything else.
            return Ok(Answer::Continue);
        }
        if is_device && !identity.is_root_for_files() {
            return Err(Answer::Error(Errno::PERM));
        }
        if !parent.admits(&identity) {
            return Err(Answer::Error(Errno::ACCESS));
        }
        let umask = self.umask()?;
        self.still_there()?;
        let gid = if parent.passes_group_on() { parent.record.gid } else { identity.group.files };
        let mut record = Record { uid: identity.user.files, gid, ..Record::default() };
        let new = finish(new, umask, default_acl.as_ref(), &mut record);
        self.make(&parent, name, new, &record)
    }

    fn make(&mut self, parent: &Parent<'_>, name: Option<&CStr>, new: New, record: &Record) -> Reply {
        let bits = Mode::from_raw_mode(new.mode().unwrap_or(0));
        // The caller's umask has been applied, where it applies.
        rustix::process::umask(Mode::empty());
        match (new, name) {
            (New::File { flags, .. }, name) => return self.make_file(parent, name, flags, bits, record),
            (_, None) => return Ok(Answer::Continue),
            (New::Directory { .. }, Some(name)) => rustix::fs::mkdirat(parent.file, name, bits)?,
            (New::Link { target }, Some(name)) => rustix::fs::symlinkat(target.as_c_str(), parent.file, name)?,
            (New::Special { file_type, .. }, Some(name)) => {
                rustix::fs::mknodat(parent.file, name, file_type, bits, 0)?;
            }
            (New::Device { .. }, Some(name)) => {
                rustix::fs::mknodat(parent.file, name, FileType::RegularFile, bits, 0)?;
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent.file, name.unwrap_or(c""), flags, Mode::empty())?;
        self.state.set_first_record(&file, record)?;
        Ok(Answer::Value(0))
    }

    fn make_file(
        &mut self,
        parent: &Parent<'_>,
        name: Option<&CStr>,
        flags: OFlags,
        mode: Mode,
        record: &Record,
    ) -> Reply {
        let close_on_exec = flags.contains(OFlags::CLOEXEC);
        let ours = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match name {
            // A symbolic link that leads nowhere is there too: what is made is what it names.
            Some(name) if is_link(parent, name) => rustix::fs::openat(parent.file, name, ours, mode)?,
            Some(name) => match rustix::fs::openat(parent.file, name, ours | OFlags::EXCL, mode) {
                Err(Errno::EXIST) => return Ok(Answer::Continue),
                file => file?,
            },
            None => rustix::fs::openat(parent.file, c".", ours, mode)?,
        };
        self.state.set_first_record(&file, record)?;
        self.listener.answer_with_descriptor(self.call, file.as_fd(), close_on_exec)?;
        Ok(Answer::Sent)
    }

    /// The caller's umask.
    fn umask(&self) -> Result<u32, Answer> {
        let status = fs::read_to_string(format!("{}/status", self.call.thread)).map_err(kernel_says)?;
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        umask.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).ok_or(Answer::Continue)
    }
}

/// The new file as its directory lets it be: its mode without what the umask or the directory's list takes away.
fn finish(new: New, umask: u32, default_acl: Option<&Acl>, record: &mut Record) -> New {
    if let New::Device { device, .. } = new {
        record.device = Some(device);
    }
    let Some(mode) = new.mode() else { return new };
    let Some(default) = default_acl else { return new.with_mode(mode & !umask) };
    let (acl, mode) = default.inherited(mode);
    record.xattrs.insert(ACCESS_ACL_XATTR.into(), acl.encode());
    if matches!(new, New::Directory { .. }) {
        record.xattrs.insert(DEFAULT_ACL_XATTR.into(), default.encode());
    }
    new.with_mode(mode)
}

/// Whether there is something that `open` would open.
fn exists(parent: &Parent<'_>, name: &CStr) -> bool {
    rustix::fs::statat(parent.file, name, AtFlags::empty()).is_ok()
}

fn is_link(parent: &Parent<'_>, name: &CStr) -> bool {
    rustix::fs::statat(parent.file, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}
