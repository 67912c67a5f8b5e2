//! The memory of a caller, where containers forbid the calls that are made for this.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::notify::Notification;
use crate::supervisor::memory as quick;
use crate::sys;

/// Another process' memory, through `/proc`.
pub(super) struct Memory(fs::File);

/// Whether the quick way has been refused once: then it always is.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The longest name of an extended attribute, with its NUL.
const LONGEST_NAME: usize = 256;

impl Memory {
    pub(super) fn of(call: &Notification) -> Result<Self, Errno> {
        let open = || fs::File::options().read(true).write(true).open(format!("/proc/{}/mem", call.thread));
        let file = open().or_else(|error| {
            // Without CAP_SYS_PTRACE one looks only into processes of one's own user.
            let (uid, gid) = ids(call.thread).ok_or(error)?;
            sys::set_file_ids(uid, gid);
            let file = open();
            sys::set_file_ids(0, 0);
            file
        });
        file.map(Self).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        self.0.read_exact_at(buffer, address).map_err(|_| Errno::FAULT)
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(bytes, address).map_err(|_| Errno::FAULT)
    }

    /// Reads what there is, the quickest way.
    pub(super) fn read_some(call: &Notification, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        if !REFUSED.load(Ordering::Relaxed) {
            match quick::read_some(call, address, buffer) {
                Err(Errno::NOSYS) => REFUSED.store(true, Ordering::Relaxed),
                // A container's filter, or a process of another user.
                Err(Errno::PERM) if ids(call.thread) == Some((0, 0)) => REFUSED.store(true, Ordering::Relaxed),
                Err(Errno::PERM) => {}
                done => return done,
            }
        }
        Self::of(call)?.0.read_at(buffer, address).map_err(|_| Errno::FAULT)
    }

    /// Reads a name.
    pub(super) fn text(call: &Notification, address: u64) -> Result<CString, Errno> {
        let mut bytes = [0; LONGEST_NAME];
        let length = Self::read_some(call, address, &mut bytes)?;
        let text = std::ffi::CStr::from_bytes_until_nul(&bytes[..length]).map_err(|_| Errno::RANGE)?;
        Ok(text.to_owned())
    }
}

/// The real user and group of a thread.
pub(super) fn ids(thread: u32) -> Option<(u32, u32)> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let id = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((id("Uid:")?, id("Gid:")?))
}
