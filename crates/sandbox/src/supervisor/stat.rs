//! Calls that look at a file. The kernel answers them, unless a record says something else.
#![expect(unsafe_code, reason = "the answer is a structure of the kernel, handed on as bytes")]

use std::mem::MaybeUninit;

use layer::record::{Device, DeviceKind, Owners};
use rustix::io::Errno;

use super::place::Place;
use super::{Handling, Reply, kernel_says, memory};
use crate::notify::Answer;
use crate::sys::last_errno;

impl Handling<'_> {
    /// `stat`, `lstat`, `fstat`, `newfstatat`: the answer goes to the argument at `buffer`.
    pub(super) fn stat(&mut self, place: Place, buffer: usize) -> Reply {
        let Some(record) = self.state.record_at(self.call, &place)? else { return Ok(Answer::Continue) };
        let mut stat = stat(&place).map_err(kernel_says)?;
        if self.state.owners == Owners::Recorded {
            (stat.st_uid, stat.st_gid) = (record.uid, record.gid);
        }
        if let Some(device) = record.device {
            stat.st_mode = (stat.st_mode & !libc::S_IFMT) | file_type(device);
            stat.st_rdev = device.number();
        }
        self.tell_stat(self.call.arguments[buffer], &stat)
    }

    /// `statx`.
    pub(super) fn statx(&mut self, place: Place) -> Reply {
        let Some(record) = self.state.record_at(self.call, &place)? else { return Ok(Answer::Continue) };
        let (flags, mask) = (self.int(2), self.word(3));
        let mut stat = statx(&place, flags, mask).map_err(kernel_says)?;
        if self.state.owners == Owners::Recorded {
            (stat.stx_uid, stat.stx_gid) = (record.uid, record.gid);
        }
        if let Some(device) = record.device {
            let permissions = u32::from(stat.stx_mode) & !libc::S_IFMT;
            stat.stx_mode = (permissions | file_type(device)) as u16;
            (stat.stx_rdev_major, stat.stx_rdev_minor) = (device.major, device.minor);
        }
        self.tell_stat(self.call.arguments[4], &stat)
    }

    /// `T` is one of the kernel's two structures for this.
    fn tell_stat<T: Plain>(&self, address: u64, stat: &T) -> Reply {
        // SAFETY: both structures are filled by the kernel over zeros, padding included, so every byte is initialised.
        let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(stat).cast(), size_of::<T>()) };
        memory::write(self.call, address, bytes)?;
        Ok(Answer::Value(0))
    }
}

/// A structure of the kernel that consists of numbers only.
trait Plain {}
impl Plain for libc::stat {}
impl Plain for libc::statx {}

fn file_type(device: Device) -> u32 {
    match device.kind {
        DeviceKind::Char => libc::S_IFCHR,
        DeviceKind::Block => libc::S_IFBLK,
    }
}

fn nofollow(place: &Place) -> i32 {
    if place.follows() { 0 } else { libc::AT_SYMLINK_NOFOLLOW }
}

fn stat(place: &Place) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::zeroed();
    // SAFETY: the path ends with NUL, and the kernel fills the structure, for which zeros are valid too.
    unsafe {
        match libc::fstatat(libc::AT_FDCWD, place.path().as_ptr(), stat.as_mut_ptr(), nofollow(place)) {
            0 => Ok(stat.assume_init()),
            _ => Err(last_errno()),
        }
    }
}

fn statx(place: &Place, flags: i32, mask: u32) -> Result<libc::statx, Errno> {
    const SYNC: i32 = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
    let flags = nofollow(place) | flags & SYNC;
    let mut stat = MaybeUninit::zeroed();
    // SAFETY: as in `stat`.
    unsafe {
        match libc::statx(libc::AT_FDCWD, place.path().as_ptr(), flags, mask, stat.as_mut_ptr()) {
            0 => Ok(stat.assume_init()),
            _ => Err(last_errno()),
        }
    }
}
