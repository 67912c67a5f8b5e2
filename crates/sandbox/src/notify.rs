//! The listener of a seccomp filter: system calls of others arrive here, wait, and are answered.
#![expect(unsafe_code, reason = "the listener's protocol is a set of ioctls")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::sys::last_errno;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: the supervisor runs on the caller's processor at once, which makes a
/// notification eight times cheaper. Linux 6.6.
const SYNC_WAKE_UP: u64 = 1;

/// Linux 5.14.
const ADDFD_FLAG_SEND: u32 = libc::SECCOMP_ADDFD_FLAG_SEND as u32;

/// A system call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Names the notification towards the kernel.
    pub(crate) id: u64,
    /// The thread that calls, as we see it.
    pub(crate) thread: u32,
    /// Which call.
    pub(crate) number: i64,
    /// Its arguments.
    pub(crate) arguments: [u64; 6],
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel does the call after all.
    Continue,
    /// It has succeeded, with this result.
    Value(i64),
    /// It has failed.
    Error(Errno),
    /// It has been answered already.
    Sent,
}

/// Where notifications arrive.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Takes the descriptor that loading the filter gave.
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        // SAFETY: this ioctl takes its argument by value.
        let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        if result != 0 {
            tracing::debug!("the kernel has no synchronous notifications, intercepted calls cost more");
        }
        Self(descriptor)
    }

    /// To be polled.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next notification; none if its caller has gone meanwhile.
    pub(crate) fn receive(&self) -> Result<Option<Notification>, Errno> {
        // SAFETY: a notification is plain data for which zeros are valid, and the kernel wants zeros there.
        let mut notification: libc::seccomp_notif = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the number of the ioctl holds the size of the structure, so the kernel writes no more than that.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) };
        if result == 0 {
            return Ok(Some(Notification {
                id: notification.id,
                thread: notification.pid,
                number: notification.data.nr.into(),
                arguments: notification.data.args,
            }));
        }
        match last_errno() {
            Errno::NOENT | Errno::INTR | Errno::AGAIN => Ok(None),
            errno => Err(errno),
        }
    }

    /// Whether the caller still waits. Whatever was read about the thread before this was true is about the caller, and
    /// not about another that has inherited its number.
    pub(crate) fn is_waiting(&self, notification: &Notification) -> bool {
        let id = notification.id;
        // SAFETY: the kernel reads one `u64`.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }

    /// Answers. That the caller has gone meanwhile is no error.
    pub(crate) fn answer(&self, notification: &Notification, answer: Answer) -> Result<(), Errno> {
        let (value, error, flags) = match answer {
            Answer::Sent => return Ok(()),
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno.raw_os_error(), 0),
        };
        let response = libc::seccomp_notif_resp { id: notification.id, val: value, error, flags };
        // SAFETY: the kernel reads one structure.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) } {
            0 => Ok(()),
            _ => match last_errno() {
                Errno::NOENT | Errno::INPROGRESS => Ok(()),
                errno => Err(errno),
            },
        }
    }

    /// Gives the caller a copy of a descriptor, whose number is the answer.
    pub(crate) fn answer_with_descriptor(
        &self,
        notification: &Notification,
        descriptor: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> Result<(), Errno> {
        let request = libc::seccomp_notif_addfd {
            id: notification.id,
            flags: ADDFD_FLAG_SEND,
            srcfd: descriptor.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        // SAFETY: the kernel reads one structure.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) } {
            0.. => Ok(()),
            _ => Err(last_errno()),
        }
    }
}
