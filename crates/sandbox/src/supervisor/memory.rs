//! The memory of a caller.
#![expect(unsafe_code, reason = "another process' memory is reached by addresses only")]

use std::ffi::CString;

use rustix::io::Errno;

use crate::notify::Notification;
use crate::sys::last_errno;

/// The longest path, its NUL included (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// Reads never cross the end of such a piece of memory together with what is before it: what is behind may be missing.
const PAGE: u64 = 4096;

/// Fills `buffer` from the caller's memory.
pub(super) fn read(call: &Notification, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    match read_some(call, address, buffer)? {
        length if length == buffer.len() => Ok(()),
        _ => Err(Errno::FAULT),
    }
}

/// Reads a path.
pub(super) fn read_text(call: &Notification, address: u64) -> Result<CString, Errno> {
    let mut text = Vec::new();
    let mut piece = [0; 512];
    while text.len() < LONGEST_PATH {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let in_page = (PAGE - at % PAGE) as usize;
        let wanted = piece.len().min(in_page).min(LONGEST_PATH - text.len());
        let length = read_some(call, at, &mut piece[..wanted])?;
        let piece = &piece[..length];
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                return CString::new(text).map_err(|_| Errno::INVAL);
            }
            None if length == 0 => return Err(Errno::FAULT),
            None => text.extend_from_slice(piece),
        }
    }
    Err(Errno::NAMETOOLONG)
}

/// Fills as much of `buffer` as there is memory.
pub(crate) fn read_some(call: &Notification, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let ours = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let theirs = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, and checks the other address itself.
    let length =
        unsafe { libc::process_vm_readv(call.thread.cast_signed(), &raw const ours, 1, &raw const theirs, 1, 0) };
    usize::try_from(length).map_err(|_| last_errno())
}

/// Writes to the caller's memory.
pub(super) fn write(call: &Notification, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let ours = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let theirs = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel only reads `bytes`, and checks the other address itself.
    let length =
        unsafe { libc::process_vm_writev(call.thread.cast_signed(), &raw const ours, 1, &raw const theirs, 1, 0) };
    match usize::try_from(length) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last_errno()),
    }
}
