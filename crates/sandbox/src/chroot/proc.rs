//! A `/proc` for those who cannot mount one, as far as real packages ask for it.
//!
//! Inside, `/proc` is a directory with a few plain files ([`FILES`]). Beside them the supervisor answers, by the text
//! of a path, calls about `/proc/self/fd/N`, `/dev/fd/N` and `/dev/stdin`, `stdout` and `stderr`: the C library changes
//! modes of symbolic links and devices by such paths, and systemd's tools nearly everything; and calls that read what
//! is in `/proc` of the caller, of other processes inside, and of the machine where it concerns nobody ([`MACHINE`]).
//! Calls that only look (`stat`, `access`) and listings are not answered: they are too many, and find what is in the
//! directory.

use std::ffi::CString;
use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::memory::Memory;
use crate::notify::{Answer, Listener, Notification};
use crate::sys;

/// Plain files; the same on every machine.
pub(super) const FILES: [(&str, &str); 8] = [
    ("filesystems", "nodev\tproc\nnodev\ttmpfs\n\text4\n"),
    ("cmdline", "\n"),
    ("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    ("mounts", "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n"),
    ("self/mounts", "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n"),
    ("self/mountinfo", "1 0 0:1 / / rw - overlay overlay rw\n2 1 0:2 / /proc rw - proc proc rw\n"),
    ("sys/kernel/ostype", "Linux\n"),
    ("net/route", ROUTES),
];

/// The routes of a machine that has none: the heading, filled up as the kernel does it.
const ROUTES: &str = concat!(
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
    "                                                       \n"
);

/// What is read of the machine.
const MACHINE: [&str; 8] =
    ["cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "sys/kernel/random/uuid", "sys/kernel/cap_last_cap"];

/// What is read of a process.
const OF_PROCESS: [&str; 12] = [
    "status",
    "stat",
    "statm",
    "maps",
    "cmdline",
    "comm",
    "environ",
    "limits",
    "cgroup",
    "uid_map",
    "gid_map",
    "oom_score_adj",
];

/// Links of a process.
const LINKS: [&str; 3] = ["exe", "cwd", "root"];

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    /// An open file of the caller.
    Descriptor(i32),
    /// A file or link of a process; none is the caller.
    Of(Option<i32>, &'static str),
    Machine(&'static str),
}

/// A caller that names something in `/proc`.
pub(super) struct Asked<'a> {
    call: &'a Notification,
    listener: &'a Listener,
    meaning: Meaning,
    /// The way to it, in the builder's `/proc`.
    path: PathBuf,
    /// The copied root, as a prefix that nobody inside sees.
    root: &'a Path,
}

/// As many bytes of a path as tell whether it is about `/proc`.
const ENOUGH: usize = 64;

impl<'a> Asked<'a> {
    /// Looks at a path argument; none if it is not about `/proc`, or about what is not answered.
    pub(super) fn of(
        call: &'a Notification,
        listener: &'a Listener,
        root: &'a Path,
        pointer: usize,
        is_inside: impl Fn(i32) -> bool,
    ) -> Option<Self> {
        let mut text = [0; ENOUGH];
        let length = Memory::read_some(call, call.arguments[pointer], &mut text).ok()?;
        let end = text.get(..length)?.iter().position(|byte| *byte == 0)?;
        let meaning = meaning(std::str::from_utf8(&text[..end]).ok()?)?;
        let path = match &meaning {
            Meaning::Descriptor(number) => PathBuf::from(format!("/proc/{}/fd/{number}", call.thread)),
            Meaning::Of(None, name) => PathBuf::from(format!("/proc/{}/{name}", call.thread)),
            Meaning::Of(Some(pid), name) if is_inside(*pid) => PathBuf::from(format!("/proc/{pid}/{name}")),
            Meaning::Of(..) => return None,
            Meaning::Machine(name) => Path::new("/proc").join(name),
        };
        Some(Self { call, listener, meaning, path, root })
    }

    /// Answers `open`.
    pub(super) fn open(&self, flags: u32) -> Answer {
        let close_on_exec = flags & libc::O_CLOEXEC as u32 != 0;
        let without = (libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC) as u32;
        let mut flags = OFlags::from_bits_retain(flags & !without) | OFlags::CLOEXEC;
        match &self.meaning {
            Meaning::Descriptor(_) => {}
            Meaning::Of(_, name) if LINKS.contains(name) && *name != "exe" => return Answer::Continue,
            Meaning::Of(..) | Meaning::Machine(_) if flags.intersects(OFlags::WRONLY | OFlags::RDWR) => {
                return Answer::Error(Errno::ACCESS);
            }
            Meaning::Of(..) | Meaning::Machine(_) => flags.remove(OFlags::TRUNC),
        }
        self.answer(|| {
            // Nobody waits here for the other end of a fifo: all others would wait for us.
            let at_once = flags | OFlags::NOCTTY | OFlags::NONBLOCK;
            let file: OwnedFd = rustix::fs::open(&self.path, at_once, Mode::empty())?;
            if !flags.intersects(OFlags::NONBLOCK | OFlags::PATH) {
                rustix::fs::fcntl_setfl(&file, flags & OFlags::APPEND)?;
            }
            self.listener.answer_with_descriptor(self.call, file.as_fd(), close_on_exec)?;
            Ok(Answer::Sent)
        })
    }

    /// Answers `readlink`.
    pub(super) fn read_link(&self, buffer: usize) -> Answer {
        let is_link = match &self.meaning {
            Meaning::Descriptor(_) => true,
            Meaning::Of(_, name) => LINKS.contains(name),
            Meaning::Machine(_) => false,
        };
        if !is_link {
            return Answer::Continue;
        }
        self.answer(|| {
            let target = rustix::fs::readlink(&self.path, Vec::new())?;
            let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
            let seen = target.strip_prefix(self.root).map_or(target.to_path_buf(), |path| Path::new("/").join(path));
            let most = usize::try_from(self.call.arguments[buffer + 1] as i32).map_err(|_| Errno::INVAL)?;
            let bytes = seen.as_os_str().as_bytes();
            let bytes = &bytes[..bytes.len().min(most)];
            Memory::of(self.call)?.write(self.call.arguments[buffer], bytes)?;
            Ok(Answer::Value(bytes.len() as i64))
        })
    }

    /// Answers `chmod`.
    pub(super) fn change_mode(&self, mode: u32) -> Answer {
        self.on_descriptor(|path| std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777)).map_err(errno))
    }

    /// Answers `chown`.
    pub(super) fn change_owner(&self, uid: u32, gid: u32) -> Answer {
        let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        self.on_descriptor(|path| rustix::fs::chown(path, uid, gid))
    }

    /// Answers `utimensat`.
    pub(super) fn change_times(&self, pointer: u64) -> Answer {
        self.on_descriptor(|path| {
            let mut times = [0; 32];
            if pointer == 0 {
                let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
                let times = Timestamps { last_access: now, last_modification: now };
                return rustix::fs::utimensat(CWD, path, &times, AtFlags::empty());
            }
            Memory::of(self.call)?.read(pointer, &mut times)?;
            let number = |at: usize| times[at..at + 8].try_into().map_or(0, i64::from_ne_bytes);
            let time = |at: usize| rustix::fs::Timespec { tv_sec: number(at), tv_nsec: number(at + 8) };
            let times = Timestamps { last_access: time(0), last_modification: time(16) };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())
        })
    }

    /// Answers `setxattr`.
    pub(super) fn set_attribute(&self) -> Answer {
        let [_, name, value, size, flags, _] = self.call.arguments;
        self.on_descriptor(|path| {
            let name = Memory::text(self.call, name)?;
            let mut bytes = vec![0; usize::try_from(size).ok().filter(|size| *size <= MOST).ok_or(Errno::TOOBIG)?];
            Memory::of(self.call)?.read(value, &mut bytes)?;
            rustix::fs::setxattr(path, name.as_c_str(), &bytes, XattrFlags::from_bits_retain(flags as u32))
        })
    }

    /// Answers `getxattr`.
    pub(super) fn get_attribute(&self) -> Answer {
        let [_, name, value, size, ..] = self.call.arguments;
        if !matches!(self.meaning, Meaning::Descriptor(_)) {
            return Answer::Continue;
        }
        self.answer(|| {
            let name: CString = Memory::text(self.call, name)?;
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(MOST).min(MOST)];
            let length = rustix::fs::getxattr(&self.path, name.as_c_str(), bytes.as_mut_slice())?;
            if !bytes.is_empty() {
                Memory::of(self.call)?.write(value, &bytes[..length])?;
            }
            Ok(Answer::Value(length as i64))
        })
    }

    fn on_descriptor(&self, act: impl FnOnce(&Path) -> Result<(), Errno>) -> Answer {
        if !matches!(self.meaning, Meaning::Descriptor(_)) {
            return Answer::Continue;
        }
        self.answer(|| act(&self.path).map(|()| Answer::Value(0)))
    }

    /// Acts as the caller may.
    fn answer(&self, act: impl FnOnce() -> Result<Answer, Errno>) -> Answer {
        let Some(ids) = super::memory::ids(self.call.thread) else { return Answer::Continue };
        if !self.listener.is_waiting(self.call) {
            return Answer::Continue;
        }
        sys::set_file_ids(ids.0, ids.1);
        let answer = act();
        sys::set_file_ids(0, 0);
        answer.unwrap_or_else(Answer::Error)
    }
}

/// The largest value of an extended attribute.
const MOST: usize = 65536;

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn meaning(path: &str) -> Option<Meaning> {
    if let Some(name) = path.strip_prefix("/dev/") {
        return match name {
            "stdin" => Some(Meaning::Descriptor(0)),
            "stdout" => Some(Meaning::Descriptor(1)),
            "stderr" => Some(Meaning::Descriptor(2)),
            name => descriptor(name.strip_prefix("fd/")?),
        };
    }
    let name = path.strip_prefix("/proc/")?;
    if FILES.iter().any(|(known, _)| *known == name) {
        return None;
    }
    if let Some(known) = MACHINE.into_iter().find(|known| *known == name) {
        return Some(Meaning::Machine(known));
    }
    let (process, name) = name.split_once('/')?;
    let process = match process {
        "self" | "thread-self" => None,
        number => Some(number.parse().ok()?),
    };
    if let (None, Some(number)) = (process, name.strip_prefix("fd/")) {
        return descriptor(number);
    }
    let known = OF_PROCESS.into_iter().chain(LINKS).find(|known| *known == name)?;
    Some(Meaning::Of(process, known))
}

fn descriptor(number: &str) -> Option<Meaning> {
    number.parse().ok().filter(|number| *number >= 0).map(Meaning::Descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_say() {
        let cases = [
            ("/proc/self/fd/7", Some(Meaning::Descriptor(7))),
            ("/dev/fd/63", Some(Meaning::Descriptor(63))),
            ("/dev/stderr", Some(Meaning::Descriptor(2))),
            ("/proc/self/exe", Some(Meaning::Of(None, "exe"))),
            ("/proc/12/stat", Some(Meaning::Of(Some(12), "stat"))),
            ("/proc/meminfo", Some(Meaning::Machine("meminfo"))),
            ("/proc/mounts", None),
            ("/proc/12/fd/1", None),
            ("/proc/self/fd/-1", None),
            ("/proc/kcore", None),
            ("/proc/net/dev", None),
            ("/dev/null", None),
            ("/etc/passwd", None),
        ];
        for (path, expected) in cases {
            assert_eq!(meaning(path), expected, "{path}");
        }
    }
}
