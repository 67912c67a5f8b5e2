//! Calls that give a file another owner.

use layer::record::{CAPABILITY_XATTR, Node, Record};
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;

use super::identity::Identity;
use super::place::Place;
use super::{Handling, Reply, kernel_says, node};
use crate::notify::Answer;

pub(super) const SETUID: u32 = 0o4000;
pub(super) const SETGID: u32 = 0o2000;
pub(super) const GROUP_EXECUTE: u32 = 0o0010;

/// "Leave it as it is".
const UNCHANGED: u32 = u32::MAX;

impl Handling<'_> {
    /// The family of `chown`; the owner is the argument at `first`, the group the next.
    pub(super) fn chown(&mut self, place: Place, first: usize) -> Reply {
        let (uid, gid) = (self.word(first), self.word(first + 1));
        let identity = self.identity()?;
        let file = self.file(&place)?;
        let node = node(&file).map_err(kernel_says)?;
        let old = self.state.record(&file, &node).map_err(kernel_says)?;
        let mut new = old.clone();
        new.uid = if uid == UNCHANGED { old.uid } else { uid };
        new.gid = if gid == UNCHANGED { old.gid } else { gid };
        if !identity.may_change(&old, (uid, gid)) {
            return Err(Answer::Error(Errno::PERM));
        }
        if old == Record::default() && new == old {
            // Root's file stays root's: the kernel does that for real, and clears what has to be cleared.
            return Ok(Answer::Continue);
        }
        self.still_there()?;
        if node.file_type() != FileType::Directory {
            new.xattrs.remove(CAPABILITY_XATTR.as_bytes());
        }
        if new != old {
            self.state.set_record(&file, &node, &new)?;
        }
        clear_privileges(&node, identity.is_root_for_files() || identity.is_in_group(old.gid))?;
        Ok(Answer::Value(0))
    }
}

impl Identity {
    /// See `chown_ok` and `chgrp_ok` of the kernel.
    fn may_change(&self, old: &Record, (uid, gid): (u32, u32)) -> bool {
        let owns = self.user.files == old.uid;
        let user = uid == UNCHANGED || (owns && uid == old.uid);
        let group = gid == UNCHANGED || (owns && (gid == old.gid || self.is_in_group(gid)));
        self.is_root_for_files() || (user && group)
    }
}

/// Takes the set-ID bits and capabilities away, as the kernel does whenever a file that is no directory gets an owner.
fn clear_privileges(node: &Node<'_>, keeps_group: bool) -> Result<(), Errno> {
    if [FileType::Directory, FileType::Symlink].contains(&node.file_type()) {
        return Ok(());
    }
    match rustix::fs::removexattr(node.link(), CAPABILITY_XATTR) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let mut mode = node.mode() & !SETUID;
    if mode & GROUP_EXECUTE != 0 || !keeps_group {
        mode &= !SETGID;
    }
    if mode != node.mode() {
        rustix::fs::chmodat(CWD, node.link(), Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}
