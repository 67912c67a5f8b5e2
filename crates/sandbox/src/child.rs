//! The two processes of ours inside: process 1, and the command before it is one.
//!
//! Both are copies of a process with threads, of which only one came along: nothing here allocates, locks or panics.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::job::Network;
use crate::mounts;
use crate::plan::{BecomeUser, Command, Plan};
use crate::sys::{self, Cloned};
use crate::wire;

/// What a child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    Descriptors,
    Hostname,
    Loopback,
    Overlay,
    Devices,
    Proc,
    Sys,
    Mount,
    Pivot,
    Clone,
    Terminal,
    Directory,
    Limits,
    Filter,
    Listener,
    Capabilities,
    User,
    Program,
}

impl Step {
    const ALL: [Self; 18] = [
        Self::Descriptors,
        Self::Hostname,
        Self::Loopback,
        Self::Overlay,
        Self::Devices,
        Self::Proc,
        Self::Sys,
        Self::Mount,
        Self::Pivot,
        Self::Clone,
        Self::Terminal,
        Self::Directory,
        Self::Limits,
        Self::Filter,
        Self::Listener,
        Self::Capabilities,
        Self::User,
        Self::Program,
    ];

    /// The step with this number, as it arrives from a child.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// Completes "cannot ...".
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Descriptors => "arrange file descriptors",
            Self::Hostname => "set the host name",
            Self::Loopback => "switch the loopback interface on",
            Self::Overlay => "mount the layers",
            Self::Devices => "make /dev",
            Self::Proc => "mount /proc",
            Self::Sys => "mount /sys",
            Self::Mount => "mount what the job asks for",
            Self::Pivot => "enter the root filesystem",
            Self::Clone => "start the command's process",
            Self::Terminal => "take the terminal",
            Self::Directory => "enter the working directory",
            Self::Limits => "set limits",
            Self::Filter => "load the system call filter",
            Self::Listener => "hand the listener over",
            Self::Capabilities => "drop capabilities",
            Self::User => "become the user",
            Self::Program => "execute the program",
        }
    }
}

/// Why a child gives up; `index` says which mount.
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: Errno,
}

/// Names the step that an errno belongs to.
pub(crate) fn at(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { step, index: 0, errno }
}

/// Descriptors that come from the builder.
pub(crate) struct Descriptors<'a> {
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) output: BorrowedFd<'a>,
    pub(crate) control: BorrowedFd<'a>,
}

/// Process 1 of a run, from its first instruction to its end.
pub(crate) fn first_process(plan: &Plan, descriptors: &Descriptors<'_>) -> ! {
    let status = match begin(plan, descriptors) {
        Ok(command) => {
            let status = wait_for(command);
            // Whatever the command has left behind ends here; it may not write to the layer or hold the output open.
            sys::kill_everyone();
            while rustix::process::wait(WaitOptions::empty()).is_ok() {}
            let _ = wire::send_end(sys::control(), status);
            0
        }
        Err(Failure { step, index, errno }) => {
            let _ = wire::send_failure(sys::control(), step, index, errno);
            1
        }
    };
    sys::exit_now(status)
}

fn begin(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<rustix::process::Pid, Failure> {
    // When the builder dies, however it dies, so does this process, and with process 1 everything else inside.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    sys::reset_signals();
    sys::arrange_descriptors(descriptors.stdin, descriptors.output, descriptors.control)
        .map_err(at(Step::Descriptors))?;
    // The builder may have died before the line above the last; then there is nobody who says "go".
    wire::await_go(sys::control()).map_err(at(Step::Descriptors))?;
    // This process is a copy of the builder's memory. Nobody inside may look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Descriptors))?;
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    rustix::system::sethostname(&plan.hostname).map_err(at(Step::Hostname))?;
    if plan.network == Network::None {
        loopback().map_err(at(Step::Loopback))?;
    }
    mounts::set_up(plan)?;
    match sys::clone_process(0).map_err(at(Step::Clone))? {
        Cloned::Child => command(&plan.command),
        Cloned::Parent { pid, .. } => {
            // Readers of standard input and output must see the end when the command closes them.
            let _ = close_standard_descriptors();
            Ok(pid)
        }
    }
}

fn loopback() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::loopback_up(socket.as_fd())
}

pub(crate) fn close_standard_descriptors() -> Result<(), Errno> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)
}

/// Waits until this child has ended, burying orphans meanwhile.
fn wait_for(command: rustix::process::Pid) -> i32 {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => return status.as_raw(),
            Ok(_) | Err(Errno::INTR) => {}
            // Without children there is no command; this cannot be, but waiting for ever would be worse.
            Err(_) => return libc::SIGKILL,
        }
    }
}

/// The command's process, until it becomes the command.
pub(crate) fn command(command: &Command) -> ! {
    let Failure { step, index, errno } = match become_command(command) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let _ = wire::send_failure(sys::control(), step, index, errno);
    sys::exit_now(127)
}

enum Never {}

fn become_command(command: &Command) -> Result<Never, Failure> {
    let _ = rustix::process::setsid();
    if command.on_terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(at(Step::Terminal))?;
    }
    rustix::process::chdir(command.directory.as_c_str()).map_err(at(Step::Directory))?;
    rustix::process::setrlimit(Resource::Nofile, command.open_files).map_err(at(Step::Limits))?;
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, no_core).map_err(at(Step::Limits))?;
    match &command.become_user {
        BecomeUser::Really { uid, gid, groups } => {
            // Without "no new privileges", which would break su and sudo, only CAP_SYS_ADMIN may load a filter: first.
            load_filter(command)?;
            drop_from_bounding_set().map_err(at(Step::Capabilities))?;
            rustix::thread::set_thread_groups(groups).map_err(at(Step::User))?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid).map_err(at(Step::User))?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid).map_err(at(Step::User))?;
            keep_capabilities(uid.is_root()).map_err(at(Step::Capabilities))?;
        }
        BecomeUser::Supervised { slack } => {
            // The filter answers to capset and to changes of the timer slack, so it comes last.
            drop_from_bounding_set().map_err(at(Step::Capabilities))?;
            keep_capabilities(true).map_err(at(Step::Capabilities))?;
            rustix::thread::set_current_timer_slack(Some(*slack)).map_err(at(Step::User))?;
            rustix::thread::set_no_new_privs(true).map_err(at(Step::Filter))?;
            load_filter(command)?;
        }
        BecomeUser::Unprivileged { uid, gid, groups, handover, without_listener } => {
            drop_from_bounding_set().map_err(at(Step::Capabilities))?;
            rustix::thread::set_thread_groups(groups).map_err(at(Step::User))?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid).map_err(at(Step::User))?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid).map_err(at(Step::User))?;
            keep_capabilities(uid.is_root()).map_err(at(Step::Capabilities))?;
            // Nobody here has CAP_SYS_ADMIN, without which a filter may be loaded by those only who gain nothing by
            // set-ID programs.
            rustix::thread::set_no_new_privs(true).map_err(at(Step::Filter))?;
            // The filter stops messages on all sockets but this number, until somebody answers.
            let socket = rustix::io::fcntl_dupfd_cloexec(sys::control(), *handover).map_err(at(Step::Listener))?;
            let root =
                rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at(Step::Listener))?;
            match load_notifying_filter(command) {
                Ok(listener) => {
                    wire::send_supervise(socket.as_fd(), listener.as_fd(), root.as_fd()).map_err(at(Step::Listener))?
                }
                Err(_) => drop(sys::load_filter(without_listener, 0).map_err(at(Step::Filter))?),
            }
        }
    }
    Err(at(Step::Program)(execute(command)))
}

/// Loads the filter, and hands the listener over if there is one.
fn load_filter(command: &Command) -> Result<(), Failure> {
    if !command.asks {
        return sys::load_filter(&command.filter, 0).map(drop).map_err(at(Step::Filter));
    }
    let mounts = rustix::fs::open(c"/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at(Step::Listener))?;
    let listener = load_notifying_filter(command).map_err(at(Step::Filter))?;
    wire::send_supervise(sys::control(), listener.as_fd(), mounts.as_fd()).map_err(at(Step::Listener))
}

fn load_notifying_filter(command: &Command) -> Result<OwnedFd, Errno> {
    // Without the second flag, which is of Linux 5.19, a signal that arrives while the supervisor works interrupts the
    // call, and the caller's second try finds the work done: "file exists".
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let flags = [listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, listener];
    let mut result = Err(Errno::INVAL);
    for flags in flags {
        result = sys::load_filter(&command.filter, flags);
        if !matches!(result, Err(Errno::INVAL)) {
            break;
        }
    }
    result?.ok_or(Errno::PROTO)
}

/// What root may do inside: Docker's default.
pub(crate) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

fn drop_from_bounding_set() -> Result<(), Errno> {
    let _ = rustix::thread::clear_ambient_capability_set();
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no capability with this number or a higher one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn keep_capabilities(root: bool) -> Result<(), Errno> {
    let kept = if root { KEPT } else { CapabilitySet::empty() };
    let had = rustix::thread::capabilities(None)?;
    let kept = kept.intersection(had.permitted);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// Executes the first of the candidates that is there, as `execvp` does.
fn execute(command: &Command) -> Errno {
    let mut refused = Errno::NOENT;
    for program in &command.programs {
        match sys::execute(program, &command.arguments, &command.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => refused = Errno::ACCESS,
            errno => return errno,
        }
    }
    refused
}
