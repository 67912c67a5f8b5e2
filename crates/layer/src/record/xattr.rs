//! Extended attributes, and what of them a layer stores.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{ACCESS_ACL_XATTR, CAPABILITY_XATTR, DEFAULT_ACL_XATTR, RECORD_XATTR};

/// Overlayfs' own attributes begin so.
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";

/// The largest value of an extended attribute (`XATTR_SIZE_MAX`).
const LARGEST_VALUE: usize = 65536;

/// The largest list of names of extended attributes (`XATTR_LIST_MAX`).
const LARGEST_LIST: usize = 65536;

/// Whether a layer stores an attribute of this name.
pub fn is_stored(name: &[u8]) -> bool {
    let acls = [ACCESS_ACL_XATTR.as_bytes(), DEFAULT_ACL_XATTR.as_bytes()];
    let ours = name == RECORD_XATTR.as_bytes() || name.starts_with(OVERLAY_PREFIX);
    name == CAPABILITY_XATTR.as_bytes() || acls.contains(&name) || (name.starts_with(b"user.") && !ours)
}

/// Whether a file system holds no attributes of this kind at all.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
}

pub(super) fn read(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
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

pub(super) fn write(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, OsStr::from_bytes(name), value, XattrFlags::empty())?)
}

pub(super) fn remove(path: &Path, name: &[u8]) -> io::Result<()> {
    match rustix::fs::removexattr(path, OsStr::from_bytes(name)) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn has(file: BorrowedFd<'_>) -> io::Result<bool> {
    match rustix::fs::flistxattr(file, [0_u8; 0].as_mut_slice()) {
        Ok(length) => Ok(length > 0),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn list(path: &Path) -> io::Result<Vec<Vec<u8>>> {
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
pub(super) fn without_namespace(capability: &mut Vec<u8>) {
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
