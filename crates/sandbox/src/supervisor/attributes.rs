//! Calls about extended attributes: capabilities, and access control lists that name users whom the kernel does not
//! know here. Our own attribute is not seen from inside.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use layer::record::{
    ACCESS_ACL_XATTR, CAPABILITY_XATTR, DEFAULT_ACL_XATTR, Node, Owners, RECORD_XATTR, Record, acl_under_mode,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::place::Place;
use super::{Handling, Reply, kernel_says, memory, node};
use crate::acl::Acl;
use crate::notify::Answer;

/// The largest value of an attribute (`XATTR_SIZE_MAX`), and the largest list of names.
const LARGEST: u64 = 65536;

/// An attribute that is not simply the kernel's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    /// Our own.
    Record,
    Capability,
    AccessAcl,
    DefaultAcl,
}

impl Attribute {
    fn named(name: &[u8]) -> Option<Self> {
        let all = [Self::Record, Self::Capability, Self::AccessAcl, Self::DefaultAcl];
        all.into_iter().find(|attribute| attribute.name().as_bytes() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Record => RECORD_XATTR,
            Self::Capability => CAPABILITY_XATTR,
            Self::AccessAcl => ACCESS_ACL_XATTR,
            Self::DefaultAcl => DEFAULT_ACL_XATTR,
        }
    }
}

impl Handling<'_> {
    /// The attribute that the second argument names, if it is one of ours to answer.
    fn attribute(&self) -> Result<Attribute, Answer> {
        let name: CString = memory::read_text(self.call, self.call.arguments[1]).map_err(kernel_says)?;
        Attribute::named(name.as_bytes()).ok_or(Answer::Continue)
    }

    /// `getxattr` and its kin.
    pub(super) fn get_attribute(&mut self, place: Place) -> Reply {
        let attribute = self.attribute()?;
        if attribute == Attribute::Record {
            return Err(Answer::Error(Errno::NODATA));
        }
        if self.state.owners != Owners::Recorded {
            return Ok(Answer::Continue);
        }
        let Some(record) = self.state.record_at(self.call, &place)? else { return Ok(Answer::Continue) };
        let Some(value) = record.xattrs.get(attribute.name().as_bytes()) else { return Ok(Answer::Continue) };
        if attribute == Attribute::AccessAcl {
            let file = self.file(&place)?;
            let mode = node(&file).map_err(kernel_says)?.mode();
            return self.tell_bytes(2, &acl_under_mode(value, mode));
        }
        self.tell_bytes(2, value)
    }

    /// `listxattr` and its kin.
    pub(super) fn list_attributes(&mut self, place: &Place) -> Reply {
        let Some(record) = self.state.record_at(self.call, place)? else { return Ok(Answer::Continue) };
        let mut list = vec![0; LARGEST as usize];
        let length = match place.follows() {
            true => rustix::fs::listxattr(place.path(), list.as_mut_slice()),
            false => rustix::fs::llistxattr(place.path(), list.as_mut_slice()),
        }
        .map_err(kernel_says)?;
        let known = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<&[u8]> = known.filter(|name| *name != RECORD_XATTR.as_bytes()).collect();
        for name in record.xattrs.keys() {
            if !names.contains(&name.as_slice()) {
                names.push(name);
            }
        }
        let list: Vec<u8> = names.into_iter().flat_map(|name| [name, b"\0"].concat()).collect();
        self.tell_bytes(1, &list)
    }

    /// Answers with bytes: into the buffer at `buffer` whose size is the next argument; a size of 0 asks for the length.
    fn tell_bytes(&self, buffer: usize, bytes: &[u8]) -> Reply {
        match self.call.arguments[buffer + 1] {
            0 => {}
            size if size < bytes.len() as u64 => return Err(Answer::Error(Errno::RANGE)),
            _ => memory::write(self.call, self.call.arguments[buffer], bytes)?,
        }
        Ok(Answer::Value(bytes.len() as i64))
    }

    /// `setxattr` and its kin.
    pub(super) fn set_attribute(&mut self, place: Place) -> Reply {
        let attribute = self.attribute()?;
        if attribute == Attribute::Record {
            return Err(Answer::Error(Errno::OPNOTSUPP));
        }
        if self.state.owners != Owners::Recorded {
            return Ok(Answer::Continue);
        }
        let size = self.call.arguments[3];
        if size > LARGEST {
            return Ok(Answer::Continue);
        }
        let mut value = vec![0; size as usize];
        memory::read(self.call, self.call.arguments[2], &mut value).map_err(kernel_says)?;
        let file = self.file(&place)?;
        let node = node(&file).map_err(kernel_says)?;
        let record = self.state.record(&file, &node).map_err(kernel_says)?;
        self.still_there()?;
        match attribute {
            Attribute::Record => Err(Answer::Error(Errno::OPNOTSUPP)),
            Attribute::Capability => self.set_capability(&file, &node, record, value),
            Attribute::AccessAcl | Attribute::DefaultAcl => self.set_acl(&file, &node, record, attribute, &value),
        }
    }

    /// The kernel stores capabilities for the root of a user namespace; only where it does not are they recorded.
    fn set_capability(&mut self, file: &OwnedFd, node: &Node<'_>, mut record: Record, value: Vec<u8>) -> Reply {
        if !self.identity()?.is_root_for_files() {
            return Err(Answer::Error(Errno::PERM));
        }
        let flags = XattrFlags::from_bits_retain(self.word(4));
        match rustix::fs::setxattr(node.link(), CAPABILITY_XATTR, &value, flags) {
            Ok(()) => {
                if record.xattrs.remove(CAPABILITY_XATTR.as_bytes()).is_some() {
                    self.state.set_record(file, node, &record)?;
                }
            }
            Err(Errno::PERM | Errno::OPNOTSUPP) if is_capability(&value) && node.carries_record() => {
                record.xattrs.insert(CAPABILITY_XATTR.into(), value);
                self.state.set_record(file, node, &record)?;
            }
            Err(errno) => return Err(Answer::Error(errno)),
        }
        Ok(Answer::Value(0))
    }

    fn set_acl(
        &mut self,
        file: &OwnedFd,
        node: &Node<'_>,
        mut record: Record,
        attribute: Attribute,
        value: &[u8],
    ) -> Reply {
        let name = attribute.name().as_bytes();
        let identity = self.identity()?;
        if !identity.is_root_for_files() && identity.user.files != record.uid {
            return Err(Answer::Error(Errno::PERM));
        }
        let parsed = Acl::parse(value);
        let Some(acl) = parsed.clone().filter(|acl| acl.is_foreign() && node.carries_record()) else {
            // The kernel knows this one, or the reason why not. What it stores replaces what was recorded, and so does
            // a list without entries.
            let replaces = parsed.is_some() || Acl::is_empty(value);
            if replaces && record.xattrs.remove(name).is_some() {
                self.state.set_record(file, node, &record)?;
            }
            return Ok(Answer::Continue);
        };
        if attribute == Attribute::DefaultAcl && node.file_type() != FileType::Directory {
            return Err(Answer::Error(Errno::ACCESS));
        }
        // What is recorded and what the kernel stores may not both be there.
        forget(node, attribute.name())?;
        record.xattrs.insert(name.to_vec(), acl.encode());
        self.state.set_record(file, node, &record)?;
        if attribute == Attribute::AccessAcl {
            let mode = Mode::from_raw_mode((node.mode() & !0o777) | acl.mode());
            rustix::fs::chmodat(CWD, node.link(), mode, AtFlags::empty())?;
        }
        Ok(Answer::Value(0))
    }

    /// `removexattr` and its kin.
    pub(super) fn remove_attribute(&mut self, place: Place) -> Reply {
        let attribute = self.attribute()?;
        if attribute == Attribute::Record {
            return Err(Answer::Error(Errno::NODATA));
        }
        if self.state.owners != Owners::Recorded {
            return Ok(Answer::Continue);
        }
        let file = self.file(&place)?;
        let node = node(&file).map_err(kernel_says)?;
        let mut record = self.state.record(&file, &node).map_err(kernel_says)?;
        if record.xattrs.remove(attribute.name().as_bytes()).is_none() {
            return Ok(Answer::Continue);
        }
        let identity = self.identity()?;
        if !identity.is_root_for_files() && identity.user.files != record.uid {
            return Err(Answer::Error(Errno::PERM));
        }
        self.still_there()?;
        self.state.set_record(&file, &node, &record)?;
        Ok(Answer::Value(0))
    }
}

/// Takes away what the kernel stores under a name.
fn forget(node: &Node<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::removexattr(node.link(), name) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether a value has the form of capabilities, as `cap_convert_nscap` of the kernel wants it.
fn is_capability(value: &[u8]) -> bool {
    const REVISION_2: u8 = 2;
    value.len() == 20 && value[3] == REVISION_2
}
