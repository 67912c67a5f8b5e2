//! System calls that have no safe wrapper, one small function each.
//!
//! Everything here may be called between `clone` and `execve`: nothing allocates or takes a lock.
#![expect(unsafe_code, reason = "fork, exec, signal actions and raw system calls have no safe form")]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

/// Which side of a clone this is.
pub(crate) enum Cloned {
    /// The new process. It shares nothing, and may do nothing but system calls until it executes a program.
    Child,
    /// The process that called, and what it has made.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Makes a process, in new namespaces if `flags` say so.
///
/// This goes around the C library, which has no call for namespaces: handlers registered for fork do not run, and so
/// locks that other threads held stay locked in the child for ever. That is why the child may not allocate.
pub(crate) fn clone_process(flags: u32) -> Result<Cloned, Errno> {
    let flags = u64::from(flags) | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
    let mut pidfd: RawFd = -1;
    // SAFETY: without CLONE_VM the child has its own copy of all memory, and a null stack means that it goes on with a
    // copy of this one. The kernel writes a descriptor to `pidfd`, which lives long enough.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // SAFETY: the kernel has just opened `pidfd` for us, and nobody else knows of it.
        Some(pid) if pid.as_raw_nonzero().get() > 0 => {
            Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ if pid == 0 => Ok(Cloned::Child),
        _ => Err(last_errno()),
    }
}

/// Ends this process at once, without running anything that its parent has registered for its end.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Gives every signal its default action, and blocks none.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: an all-zero action is SIG_DFL without flags. Signals that do not exist or cannot be changed are
        // refused with an error, which does not matter.
        unsafe {
            let action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
    // SAFETY: `none` is a signal set that `sigemptyset` has initialised.
    unsafe {
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Makes these descriptors 0, 1 and 2, and 3, and closes all others. Only 3 is closed when a program is executed.
pub(crate) fn arrange_descriptors(
    stdin: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
) -> Result<(), Errno> {
    const ABOVE: RawFd = 8;
    // SAFETY: duplicating and closing descriptors touches no memory. Nothing in the child uses the descriptors that are
    // closed here: it only knows the three it was given, by their new numbers.
    unsafe {
        let copies = [stdin, output, output, control].map(|fd| libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, ABOVE));
        for (number, copy) in (0..).zip(copies) {
            let flags = if number == CONTROL { libc::O_CLOEXEC } else { 0 };
            if copy < 0 || libc::dup3(copy, number, flags) < 0 {
                return Err(last_errno());
            }
        }
        match libc::syscall(libc::SYS_close_range, CONTROL + 1, u32::MAX, 0) {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }
}

/// The number of the control socket in a child.
const CONTROL: RawFd = 3;

/// The control socket of a child, after [`arrange_descriptors`].
pub(crate) fn control() -> BorrowedFd<'static> {
    // SAFETY: `arrange_descriptors` has put the socket there, and nothing in the child closes it.
    unsafe { BorrowedFd::borrow_raw(CONTROL) }
}

/// Kills every process that this one can see, except itself. Only for process 1 of a namespace.
pub(crate) fn kill_everyone() {
    // SAFETY: sending a signal touches no memory.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Sets properties of a mount: `MOUNT_ATTR_*` bits.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> Result<(), Errno> {
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const AT_RECURSIVE: i32 = 0x8000;
    let wanted = MountAttributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `wanted` is `struct mount_attr` of the kernel, and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Switches the loopback interface on.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: an interface request is plain data, for which zeros are valid; the kernel reads the name and flags.
    unsafe {
        let mut request: libc::ifreq = MaybeUninit::zeroed().assume_init();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        match libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }
}

/// Loads a system call filter. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` the answer is a listener.
pub(crate) fn load_filter(program: &[libc::sock_filter], flags: u64) -> Result<Option<OwnedFd>, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        // SAFETY: the kernel has just opened this descriptor for us.
        Ok(listener) if listener > 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(listener) })),
        _ => Err(last_errno()),
    }
}

/// Whether the kernel knows the seccomp action of user notification.
pub(crate) fn has_notification() -> Result<(), Errno> {
    let action = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads one `u32`.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Strings in the form that `execve` wants, made before the child is.
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    _strings: Vec<std::ffi::CString>,
}

impl Strings {
    /// Keeps the strings alive beside the pointers.
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        // The bytes of a CString stay where they are when the vector that owns them is moved.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Becomes another program; returns only if that is impossible.
pub(crate) fn execute(program: &CStr, arguments: &Strings, environment: &Strings) -> Errno {
    // SAFETY: both arrays end with a null pointer and point to strings that `Strings` keeps alive.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    last_errno()
}

/// Becomes another program of this name, found as a shell finds it, in the environment that this process has; returns
/// only if that is impossible.
pub(crate) fn execute_from_path(name: &CStr, arguments: &Strings) -> Errno {
    // SAFETY: the array ends with a null pointer and points to strings that `Strings` keeps alive. The C library looks
    // for the program with memory of its own stack only.
    unsafe { libc::execvp(name.as_ptr(), arguments.pointers.as_ptr()) };
    last_errno()
}

/// Becomes another program, in the environment that this process has; returns only if that is impossible.
pub(crate) fn execute_with_environment(program: &CStr, arguments: &Strings) -> Errno {
    // SAFETY: the array ends with a null pointer and points to strings that `Strings` keeps alive.
    unsafe { libc::execv(program.as_ptr(), arguments.pointers.as_ptr()) };
    last_errno()
}

/// Enters the mount namespace of another process with this thread alone.
pub(crate) fn enter_mount_namespace(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: from here on this thread has a root, a working directory and a umask of its own; no memory is touched.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(last_errno());
    }
    rustix::thread::move_into_link_name_space(namespace, Some(rustix::thread::LinkNameSpaceType::Mount))
}

/// Leaves the namespaces of the parent. For a process with one thread.
pub(crate) fn unshare(flags: i32) -> Result<(), Errno> {
    // SAFETY: namespaces do not concern memory, and file descriptors stay shared (no CLONE_FILES).
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The reason for which the last call failed.
pub(crate) fn last_errno() -> Errno {
    // SAFETY: the C library gives each thread an errno.
    errno_of(unsafe { *libc::__errno_location() }).unwrap_or(Errno::IO)
}

/// A number as the reason of a failure, if it can be one.
pub(crate) fn errno_of(number: i32) -> Option<Errno> {
    (1..4096).contains(&number).then(|| Errno::from_raw_os_error(number))
}

/// Blocks the signal that a child has ended, and returns a descriptor that tells of it instead.
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: `set` is a signal set that `sigemptyset` has initialised, and the kernel opens a new descriptor for us.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
        match libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_errno()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Takes the ids that count for files, with this thread alone. Ids that may not be taken are not.
pub(crate) fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: the raw calls take plain values, and concern the calling thread only.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Sends a signal to a process, or tries whether that may be done if it is 0.
pub(crate) fn signal(process: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: sending a signal touches no memory.
    if unsafe { libc::kill(process, signal) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Waits for a child and forgets it.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<(), Errno> {
    reap_status(pidfd).map(drop)
}

/// The same, and what the child has exited with; none if it was killed.
pub(crate) fn reap_status(pidfd: &OwnedFd) -> Result<Option<i32>, Errno> {
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    loop {
        match rustix::process::waitid(id.clone(), rustix::process::WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            done => return done.map(|status| status.and_then(|status| status.exit_status())),
        }
    }
}
