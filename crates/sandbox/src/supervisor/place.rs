//! Where a caller's path leads, as a path that the supervisor can use.
//!
//! The supervisor has the caller's root, so absolute paths are the same for both. Relative ones go through the caller's
//! entry in the builder's `/proc`, which is the supervisor's working directory: `PID/cwd/...` or `PID/fd/N/...`. Those
//! lead to the very directories the caller has open.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use layer::record::{RECORD_XATTR, Record};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::{kernel_says, memory, open_path};
use crate::notify::{Answer, Notification};

/// A path seen from the supervisor.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: CString,
    /// Whether a symbolic link at its end is followed.
    follow: bool,
    /// The descriptor, if the place is nothing else.
    descriptor: Option<i32>,
}

/// Where a caller finds its own entry in `/proc`. To the supervisor these would be its own.
const OWN: [&[u8]; 2] = [b"/proc/self/", b"/proc/thread-self/"];

/// The largest value of an attribute (`XATTR_SIZE_MAX`).
const LARGEST_VALUE: usize = 65536;

/// Other names for descriptors, as `/dev` has them.
const DESCRIPTORS: [(&[u8], &str); 3] = [(b"/dev/stdin", "0"), (b"/dev/stdout", "1"), (b"/dev/stderr", "2")];

impl Place {
    /// What a descriptor of the caller is open on.
    pub(super) fn of_descriptor(call: &Notification, descriptor: i32) -> Self {
        let path = text(format!("{}/fd/{descriptor}", call.thread).into_bytes());
        Self { path, follow: true, descriptor: Some(descriptor) }
    }

    /// What a path in the caller's memory names; `flags` are `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`.
    pub(super) fn of_path(call: &Notification, directory: i32, pointer: u64, flags: i32) -> Result<Self, Answer> {
        let may_be_empty = flags & libc::AT_EMPTY_PATH != 0;
        let path = match pointer {
            // Since Linux 6.11 no path is as good as an empty one.
            0 if may_be_empty => CString::default(),
            _ => memory::read_text(call, pointer).map_err(kernel_says)?,
        };
        let path = path.as_bytes();
        if path.is_empty() {
            return match directory {
                _ if !may_be_empty => Err(Answer::Continue),
                libc::AT_FDCWD => Ok(Self::followed(format!("{}/cwd", call.thread).into_bytes())),
                descriptor => Ok(Self::of_descriptor(call, descriptor)),
            };
        }
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        if path[0] == b'/' {
            return Ok(Self::absolute(call, path, follow));
        }
        let start = match directory {
            libc::AT_FDCWD => format!("{}/cwd/", call.thread),
            descriptor => format!("{}/fd/{descriptor}/", call.thread),
        };
        Ok(Self { path: text([start.as_bytes(), path].concat()), follow, descriptor: None })
    }

    fn followed(path: Vec<u8>) -> Self {
        Self { path: text(path), follow: true, descriptor: None }
    }

    fn absolute(call: &Notification, path: &[u8], follow: bool) -> Self {
        let thread = call.thread;
        let entry = |rest: &[u8]| text([format!("{thread}/").as_bytes(), rest].concat());
        let path = match OWN.iter().find_map(|own| path.strip_prefix(*own)) {
            Some(rest) => entry(rest),
            None => match path.strip_prefix(b"/dev/fd/") {
                Some(rest) => entry(&[b"fd/", rest].concat()),
                None => match DESCRIPTORS.iter().find(|(name, _)| *name == path) {
                    Some((_, number)) if follow => entry(format!("fd/{number}").as_bytes()),
                    _ => text(path.to_vec()),
                },
            },
        };
        Self { path, follow, descriptor: None }
    }

    /// The path.
    pub(super) fn path(&self) -> &CStr {
        &self.path
    }

    /// Whether a symbolic link at its end is followed.
    pub(super) fn follows(&self) -> bool {
        self.follow
    }

    /// Opens it for looking.
    pub(super) fn open(&self, call: &Notification) -> Result<OwnedFd, Errno> {
        let flags = if self.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        match (open_path(&self.path, flags), self.descriptor) {
            // The entry of a process that may not be dumped belongs to nobody we are.
            (Err(Errno::ACCESS), Some(descriptor)) => Callers::default().descriptor(call, descriptor),
            (opened, _) => opened,
        }
    }

    /// The directory that a new file at this place would be in, and its name there.
    pub(super) fn split(&self) -> Option<(Self, CString)> {
        let path = self.path.as_bytes();
        let slash = path.iter().rposition(|byte| *byte == b'/')?;
        let (directory, name) = (&path[..=slash], &path[slash + 1..]);
        if self.descriptor.is_some() || [b"".as_slice(), b".", b".."].contains(&name) {
            return None;
        }
        Some((Self::followed(directory.to_vec()), text(name.to_vec())))
    }

    /// The same place without slashes at its end.
    pub(super) fn without_trailing_slashes(self) -> Self {
        let path = self.path.as_bytes();
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(path.len(), |last| last + 1);
        Self { path: text(path[..end].to_vec()), ..self }
    }

    /// The record that is stored with what is there, without opening it.
    pub(super) fn record(&self, call: &Notification, callers: &mut Callers) -> Result<Option<Record>, Errno> {
        if let Some(descriptor) = self.descriptor {
            let copy = callers.descriptor(call, descriptor);
            // A descriptor that is only for looking has no attributes; the path below leads to them.
            match copy.and_then(|copy| read_record(|name, buffer| rustix::fs::fgetxattr(&copy, name, buffer))) {
                Err(_) => {}
                record => return record,
            }
        }
        let path = self.path.as_c_str();
        match self.follow {
            true => read_record(|name, buffer| rustix::fs::getxattr(path, name, buffer)),
            false => read_record(|name, buffer| rustix::fs::lgetxattr(path, name, buffer)),
        }
    }
}

/// Reads a record with a call of the family of `getxattr`.
fn read_record(get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>) -> Result<Option<Record>, Errno> {
    const NAME: &CStr = c"user.drystone";
    const { assert!(NAME.count_bytes() == RECORD_XATTR.len()) };
    let mut buffer = [0; 256];
    let mut large = Vec::new();
    let length = match get(NAME, &mut buffer) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {
            large.resize(LARGEST_VALUE, 0);
            get(NAME, &mut large)?
        }
        length => length?,
    };
    let value = if large.is_empty() { &buffer[..length] } else { &large[..length] };
    Record::decode(value).map(Some).ok_or(Errno::IO)
}

/// Handles on callers, by which their descriptors are copied; far cheaper than their entries in `/proc`.
#[derive(Default)]
pub(super) struct Callers {
    last: Option<(u32, OwnedFd)>,
}

impl Callers {
    /// A copy of a caller's descriptor.
    fn descriptor(&mut self, call: &Notification, descriptor: i32) -> Result<OwnedFd, Errno> {
        if let Some((thread, handle)) = &self.last
            && *thread == call.thread
        {
            match rustix::process::pidfd_getfd(handle, descriptor, PidfdGetfdFlags::empty()) {
                // The handle's process has gone, and another has its number.
                Err(Errno::SRCH) => {}
                copy => return copy,
            }
        }
        let thread = Pid::from_raw(call.thread.cast_signed()).ok_or(Errno::SRCH)?;
        let handle = rustix::process::pidfd_open(thread, PIDFD_THREAD).or_else(|errno| match errno {
            // Linux before 6.9 has handles on whole processes only.
            Errno::INVAL => rustix::process::pidfd_open(thread, PidfdFlags::empty()),
            errno => Err(errno),
        })?;
        let copy = rustix::process::pidfd_getfd(&handle, descriptor, PidfdGetfdFlags::empty());
        self.last = Some((call.thread, handle));
        copy
    }
}

/// A handle on one thread, which need not be the first of its process.
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());

/// Every part comes from a C string or is a number.
fn text(bytes: Vec<u8>) -> CString {
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Notification {
        Notification { id: 0, thread: 7, number: 0, arguments: [0; 6] }
    }

    #[test]
    fn a_callers_own_entry_is_found_under_its_number() {
        let cases = [
            (b"/etc/passwd".as_slice(), c"/etc/passwd"),
            (b"/proc/self/fd/5", c"7/fd/5"),
            (b"/proc/thread-self/fd/5/x", c"7/fd/5/x"),
            (b"/proc/selfish", c"/proc/selfish"),
            (b"/dev/fd/3", c"7/fd/3"),
            (b"/dev/stdout", c"7/fd/1"),
        ];
        for (path, expected) in cases {
            assert_eq!(Place::absolute(&call(), path, true).path(), expected);
        }
        assert_eq!(Place::absolute(&call(), b"/dev/stdout", false).path(), c"/dev/stdout");
    }

    #[test]
    fn a_new_file_is_in_the_directory_before_its_last_slash() {
        let split = |path: &[u8]| {
            let (directory, name) = Place::absolute(&call(), path, true).without_trailing_slashes().split()?;
            Some((directory.path, name))
        };
        assert_eq!(split(b"/a/b"), Some((c"/a/".into(), c"b".into())));
        assert_eq!(split(b"/a//"), Some((c"/".into(), c"a".into())));
        for path in [b"/".as_slice(), b"/a/.", b"/a/.."] {
            assert_eq!(split(path), None, "{path:?}");
        }
    }
}
