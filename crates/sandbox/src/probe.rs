//! What this machine allows, found out by trying in a child, so that the caller stays as it is.

use std::fs;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsmount, fsopen, mount, mount_change, move_mount,
};
use rustix::thread::CapabilitySet;

use crate::chroot;
use crate::helpers::Helpers;
use crate::obstacle::Obstacle;
use crate::ranges::Ranges;
use crate::rung::Rung;
use crate::sys::{self, Cloned};

/// Whether a rung works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RungReport {
    /// The rung.
    pub rung: Rung,
    /// Nothing, or why not.
    pub usable: Result<(), Obstacle>,
}

/// Tries every rung. The calling process is not changed.
pub fn probe() -> Vec<RungReport> {
    Rung::ALL.into_iter().map(|rung| RungReport { rung, usable: try_rung(rung) }).collect()
}

/// Tries one rung.
pub(crate) fn try_rung(rung: Rung) -> Result<(), Obstacle> {
    match rung {
        Rung::Root => {
            let may = rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN));
            if !may {
                return Err(Obstacle::NotPrivileged);
            }
            require_all_ids()?;
            try_in_child(&Attempt::Namespaces { user_namespace: UserNamespace::None })
        }
        Rung::Userns => {
            let user_namespace = UserNamespace::Range(Ranges::of_this_user()?);
            try_in_child(&Attempt::Namespaces { user_namespace })
        }
        Rung::UsernsSingle => {
            let user_namespace = UserNamespace::OneId(Maps::of_this_user());
            try_in_child(&Attempt::Namespaces { user_namespace })
        }
        Rung::Chroot => chroot::try_here(),
        Rung::None => Ok(()),
    }
}

/// As many ids as an image may use.
const ALL_IDS: u64 = 65536;

/// Fails where files cannot be given to any user of an image.
pub(crate) fn require_all_ids() -> Result<(), Obstacle> {
    match mapped_ids() {
        ALL_IDS.. => Ok(()),
        mapped => Err(Obstacle::FewIds { mapped }),
    }
}

fn mapped_ids() -> u64 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// A field of `/proc/self/status`.
pub(crate) fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The one id of each kind that a plain user may map.
pub(crate) struct Maps {
    pub(crate) uid: String,
    pub(crate) gid: String,
}

impl Maps {
    /// Root inside is the caller outside.
    pub(crate) fn of_this_user() -> Self {
        let uid = format!("0 {} 1\n", rustix::process::geteuid().as_raw());
        let gid = format!("0 {} 1\n", rustix::process::getegid().as_raw());
        Self { uid, gid }
    }

    /// Maps the ids in the new user namespace of this process. Allocates nothing.
    pub(crate) fn write(&self) -> Result<(), Errno> {
        put(c"/proc/self/setgroups", b"deny\n")?;
        put(c"/proc/self/uid_map", self.uid.as_bytes())?;
        put(c"/proc/self/gid_map", self.gid.as_bytes())
    }
}

fn put(path: &std::ffi::CStr, text: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::io::write(&file, text)? {
        length if length == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

/// One thing that a probe tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// The probe itself.
    Fork,
    /// `unshare(CLONE_NEWUSER)`.
    UserNamespace,
    /// `/proc/self/uid_map`.
    IdMap,
    /// Mounts of its own.
    PrivateMounts,
    /// A file system in memory.
    Memory,
    /// Overlayfs.
    Overlay,
    /// Process, network and other namespaces.
    Namespaces,
    /// A new `/proc`.
    Proc,
    /// Seccomp user notification.
    Notify,
    /// Reading what identities ride on (see `supervisor::identity`).
    TimerSlack,
    /// A device node.
    Node,
    /// Another root.
    Chroot,
    /// A system call filter, without privileges.
    Filter,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Fork,
        Self::UserNamespace,
        Self::IdMap,
        Self::PrivateMounts,
        Self::Memory,
        Self::Overlay,
        Self::Namespaces,
        Self::Proc,
        Self::Notify,
        Self::TimerSlack,
        Self::Node,
        Self::Chroot,
        Self::Filter,
    ];

    /// Those that concern rungs which make no namespaces.
    pub(crate) fn without_namespaces() -> impl Iterator<Item = Self> {
        [Self::Node, Self::Chroot, Self::Filter].into_iter()
    }

    /// Completes "the kernel refuses to ...".
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Fork => "make a process",
            Self::UserNamespace => "make a user namespace",
            Self::IdMap => "map ids in a user namespace",
            Self::PrivateMounts => "make mounts of our own",
            Self::Memory => "mount a file system in memory",
            Self::Overlay => "mount overlayfs",
            Self::Namespaces => "make namespaces for processes and network",
            Self::Proc => "mount a /proc of our own",
            Self::Notify => "let a supervisor answer system calls",
            Self::TimerSlack => "read another process' timer slack",
            Self::Node => "make a device node",
            Self::Chroot => "change the root directory",
            Self::Filter => "filter system calls",
        }
    }
}

/// What a child tries.
pub(crate) enum Attempt {
    /// What `enter` and a run do that mount.
    Namespaces { user_namespace: UserNamespace },
    /// What a run does that may not.
    Chroot,
}

/// In which user namespace something is tried.
pub(crate) enum UserNamespace {
    /// That of the caller.
    None,
    /// A new one, which maps a range of ids.
    Range(Ranges),
    /// A new one, which maps one id.
    OneId(Maps),
}

pub(crate) fn try_in_child(attempt: &Attempt) -> Result<(), Obstacle> {
    let report = |errno| Obstacle::of(Step::Fork, errno);
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(report)?;
    let (told, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(report)?;
    let (pid, pidfd) = match sys::clone_process(0).map_err(report)? {
        Cloned::Child => {
            // Otherwise the end of the other process would not be seen.
            drop((ours, go));
            if let Err((step, errno)) = attempt.all(&Mapper { theirs: &theirs, told: &told }) {
                let _ = send_report(&theirs, step, errno.raw_os_error());
            }
            sys::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, told));
    let outcome = outcome_of(attempt, pid, &ours, go);
    sys::reap(&pidfd).map_err(report)?;
    outcome
}

/// Waits for what a child reports, and maps its ids when it asks for that.
fn outcome_of(attempt: &Attempt, pid: rustix::process::Pid, reports: &OwnedFd, go: OwnedFd) -> Result<(), Obstacle> {
    let fork = |errno| Obstacle::of(Step::Fork, errno);
    loop {
        match (read_report(reports).map_err(fork)?, attempt) {
            (None, _) => return Ok(()),
            (Some((_, None)), Attempt::Namespaces { user_namespace: UserNamespace::Range(ranges) }) => {
                Helpers::start(pid, ranges).map_err(fork)?.map()?;
                rustix::io::write(&go, b"g").map_err(fork)?;
            }
            (Some((_, None)), _) => return Err(fork(Errno::PROTO)),
            (Some((step, Some(errno))), _) => return Err(Obstacle::of(step, errno)),
        }
    }
}

/// How a child in a new user namespace has its ids mapped from outside.
struct Mapper<'a> {
    theirs: &'a OwnedFd,
    told: &'a OwnedFd,
}

impl Mapper<'_> {
    /// Asks for it, and waits. An error if the parent could not do it, which knows why.
    fn map(&self) -> Result<(), Errno> {
        send_report(self.theirs, Step::IdMap, 0)?;
        match rustix::io::retry_on_intr(|| rustix::io::read(self.told, &mut [0; 1]))? {
            1 => Ok(()),
            _ => Err(Errno::PIPE),
        }
    }
}

/// An errno of 0 is no failure: the child is in its namespace and waits.
fn send_report(pipe: &OwnedFd, step: Step, errno: i32) -> Result<(), Errno> {
    let errno = errno.to_ne_bytes();
    rustix::io::write(pipe, &[step as u8, errno[0], errno[1], errno[2], errno[3]]).map(drop)
}

fn read_report(pipe: &OwnedFd) -> Result<Option<(Step, Option<Errno>)>, Errno> {
    let mut failure = [0; 5];
    match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut failure))? {
        0 => Ok(None),
        5 => {
            let [step, errno @ ..] = failure;
            let step = Step::ALL.get(usize::from(step)).copied().ok_or(Errno::PROTO)?;
            match i32::from_ne_bytes(errno) {
                0 => Ok(Some((step, None))),
                errno => Ok(Some((step, Some(sys::errno_of(errno).ok_or(Errno::PROTO)?)))),
            }
        }
        _ => Err(Errno::PROTO),
    }
}

type Tried = Result<(), (Step, Errno)>;

/// Turns a kernel's refusal into one that says what was tried.
fn at(step: Step) -> impl Fn(Errno) -> (Step, Errno) {
    move |errno| (step, errno)
}

impl Attempt {
    /// Does once what `enter` and a run do. In a child: allocates nothing.
    fn all(&self, mapper: &Mapper<'_>) -> Tried {
        match self {
            Self::Namespaces { user_namespace } => try_namespaces(user_namespace, mapper),
            Self::Chroot => chroot::attempt(),
        }
    }
}

fn try_namespaces(user_namespace: &UserNamespace, mapper: &Mapper<'_>) -> Tried {
    match user_namespace {
        UserNamespace::None => {}
        UserNamespace::Range(_) => {
            sys::unshare(libc::CLONE_NEWUSER).map_err(at(Step::UserNamespace))?;
            mapper.map().map_err(at(Step::IdMap))?;
            sys::has_notification().map_err(at(Step::Notify))?;
        }
        UserNamespace::OneId(maps) => {
            sys::unshare(libc::CLONE_NEWUSER).map_err(at(Step::UserNamespace))?;
            maps.write().map_err(at(Step::IdMap))?;
            sys::has_notification().map_err(at(Step::Notify))?;
        }
    }
    sys::unshare(libc::CLONE_NEWNS).map_err(at(Step::PrivateMounts))?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change(c"/", private).map_err(at(Step::PrivateMounts))?;
    let scratch = scratch().map_err(at(Step::Memory))?;
    overlay(&scratch).map_err(at(Step::Overlay))?;
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(at(Step::Namespaces))?;
    match sys::clone_process(namespaces as u32).map_err(at(Step::Namespaces))? {
        Cloned::Child => first_process(&scratch, theirs.as_fd()),
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let proc = report_of(&ours).map_err(at(Step::Proc));
            let slack = match user_namespace {
                UserNamespace::OneId(_) => read_slack(pid).map_err(at(Step::TimerSlack)),
                UserNamespace::None | UserNamespace::Range(_) => Ok(()),
            };
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let _ = sys::reap(&pidfd);
            proc.and(slack)
        }
    }
}

/// A file system in memory, mounted over the root and the working directory afterwards.
fn scratch() -> Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let scratch = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&scratch, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&scratch)?;
    Ok(scratch)
}

fn overlay(scratch: &OwnedFd) -> Result<(), Errno> {
    for name in [c"lower", c"upper", c"work", c"merged", c"proc"] {
        rustix::fs::mkdirat(scratch, name, Mode::RWXU)?;
    }
    let options = c"userxattr,lowerdir=lower,upperdir=upper,workdir=work";
    mount(c"overlay", c"merged", c"overlay", MountFlags::NODEV, options)
}

/// The first process of the new namespaces: mounts a `/proc`, tells how that went, and waits to be killed.
fn first_process(scratch: &OwnedFd, report: BorrowedFd<'_>) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(SLACK));
    let errno = match mount_proc(scratch) {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    };
    let _ = rustix::io::write(report, &errno.to_ne_bytes());
    loop {
        rustix::event::pause();
    }
}

fn mount_proc(scratch: &OwnedFd) -> Result<(), Errno> {
    let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&proc, c"", scratch, c"proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn report_of(pipe: &OwnedFd) -> Result<(), Errno> {
    let mut report = [0; 4];
    match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut report))? {
        4 => match i32::from_ne_bytes(report) {
            0 => Ok(()),
            errno => Err(sys::errno_of(errno).unwrap_or(Errno::PROTO)),
        },
        _ => Err(Errno::PROTO),
    }
}

/// A timer slack that nobody has by default.
const SLACK: u64 = 50_123;

/// Reads the timer slack of another process through `/proc`, which needs the right over that process' namespace.
fn read_slack(pid: rustix::process::Pid) -> Result<(), Errno> {
    let path = slack_path(pid.as_raw_nonzero().get().cast_unsigned());
    let path = std::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| Errno::INVAL)?;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 32];
    let length = rustix::io::read(&file, &mut text)?;
    match text.get(..length) {
        Some(b"50123\n") => Ok(()),
        _ => Err(Errno::PROTO),
    }
}

/// `/proc/PID/timerslack_ns`, written without allocating.
fn slack_path(pid: u32) -> [u8; 64] {
    let mut digits = [0; 10];
    let mut rest = pid;
    let mut first = digits.len();
    while first > 0 && (rest > 0 || first == digits.len()) {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let text = b"/proc/".iter().chain(&digits[first..]).chain(b"/timerslack_ns\0");
    let mut path = [0; 64];
    for (place, byte) in path.iter_mut().zip(text) {
        *place = *byte;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_timer_slack_names_the_process() {
        for (pid, expected) in [(7, c"/proc/7/timerslack_ns"), (u32::MAX, c"/proc/4294967295/timerslack_ns")] {
            assert_eq!(std::ffi::CStr::from_bytes_until_nul(&slack_path(pid)).unwrap(), expected);
        }
    }

    #[test]
    fn probing_reports_every_rung_in_order() {
        let rungs: Vec<Rung> = probe().into_iter().map(|report| report.rung).collect();
        assert_eq!(rungs, Rung::ALL);
    }

    #[test]
    fn what_runs_nothing_needs_nothing() {
        assert_eq!(probe().last(), Some(&RungReport { rung: Rung::None, usable: Ok(()) }));
    }
}
