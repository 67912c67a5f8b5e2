//! Device nodes where owners are real: root of a user namespace may do everything to files but make these.
//!
//! What is made instead is an empty file, as the caller would have made it, with a record of the device.

use std::ffi::CStr;
use std::fs;

use layer::record::{Device, Record};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::thread::CapabilitySet;

use super::owners::SETGID;
use super::place::Place;
use super::{Handling, Reply, kernel_says, node, open_path};
use crate::notify::Answer;

/// What decides whether a thread may make a device node, and whose it is.
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    umask: u32,
    user: u32,
    group: u32,
    capabilities: CapabilitySet,
}

impl Caller {
    /// Reads `/proc/PID/status`, whose ids are those of the reader's user namespace.
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // Real, effective, saved, and the one that counts for files.
        let for_files = |name| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let bits = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
        Some(Self {
            umask: u32::from_str_radix(field("Umask")?.trim(), 8).ok()?,
            user: for_files("Uid")?,
            group: for_files("Gid")?,
            capabilities: CapabilitySet::from_bits_retain(bits),
        })
    }
}

impl Handling<'_> {
    /// `mknod` of a device.
    pub(super) fn record_device(&mut self, directory: &Place, name: &CStr, device: Device, mode: u32) -> Reply {
        let status = fs::read_to_string(format!("{}/status", self.call.thread)).map_err(kernel_says)?;
        let caller = Caller::parse(&status).ok_or(Answer::Continue)?;
        if !caller.capabilities.contains(CapabilitySet::MKNOD) {
            return Ok(Answer::Continue);
        }
        let parent = open_path(&directory.path().to_owned(), OFlags::DIRECTORY).map_err(kernel_says)?;
        let passes_group_on = node(&parent).map_err(kernel_says)?.mode() & SETGID != 0;
        self.still_there()?;
        // The kernel applies it, unless the directory has an access control list for what is made in it.
        rustix::process::umask(Mode::from_raw_mode(caller.umask));
        let bits = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::mknodat(&parent, name, FileType::RegularFile, bits, 0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        if (caller.user, caller.group) != (0, 0) {
            let group = (!passes_group_on).then_some(Gid::from_raw(caller.group));
            rustix::fs::chownat(&file, c"", Some(Uid::from_raw(caller.user)), group, AtFlags::EMPTY_PATH)?;
        }
        self.state.set_first_record(&file, &Record { device: Some(device), ..Record::default() })?;
        Ok(Answer::Value(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_who_its_status_says_it_is_for_files() {
        let status =
            "Name:\tmknod\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapPrm:\tff\nCapEff:\t0000000008000000\n";
        let expected = Caller { umask: 0o27, user: 4, group: 8, capabilities: CapabilitySet::MKNOD };
        assert_eq!(Caller::parse(status), Some(expected));
        assert_eq!(Caller::parse("Name:\tmknod\n"), None);
    }
}
