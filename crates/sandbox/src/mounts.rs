//! The root filesystem of a run: layers, `/dev`, `/proc`, `/sys`, and what the job asks for.
//!
//! Runs in process 1 of the run: nothing here allocates.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use layer::record::RECORD_XATTR;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount, open_tree, unmount,
};

use crate::child::{Failure, Step, at};
use crate::plan::{Plan, PlannedMount, PlannedSource};
use crate::sys;

/// Where the layers are mounted before they become the root, seen from the stage.
pub(crate) const MOUNT_POINT: &CStr = c"mount";

/// Where file systems in memory are mounted, one over the other, before a file of them is.
const MEMORY: &CStr = c"memory";

const NOTHING: u64 = 0;
const READ_ONLY: u64 = 1;
const NO_SETUID: u64 = 2;
const NO_DEVICES: u64 = 4;
const NO_PROGRAMS: u64 = 8;

/// Mounts everything, and makes it the root.
pub(crate) fn set_up(plan: &Plan) -> Result<(), Failure> {
    let root = layers(plan).map_err(at(Step::Overlay))?;
    devices(&root, plan.has_groups).map_err(at(Step::Devices))?;
    proc(&root).map_err(at(Step::Proc))?;
    // What a machine shows in /sys differs from machine to machine. Inside it is there, and empty.
    let sys = memory(c"0555", None, NO_SETUID | NO_DEVICES | NO_PROGRAMS | READ_ONLY).map_err(at(Step::Sys))?;
    place(&sys, &root, c"sys").map_err(at(Step::Sys))?;
    for (index, planned) in (0..).zip(&plan.mounts) {
        let named = |errno| Failure { step: Step::Mount, index, errno };
        wanted(&root, planned).map_err(named)?;
    }
    pivot(&root).map_err(at(Step::Pivot))
}

/// The overlay. Its parts are named relative to the stage: so no path above needs an escape, and many layers fit into
/// the page that the options may fill.
fn layers(plan: &Plan) -> Result<OwnedFd, Errno> {
    rustix::process::chdir(plan.stage.as_c_str())?;
    // Device nodes that a command makes, as root it may, must not lead to the machine's devices.
    mount(c"overlay", MOUNT_POINT, c"overlay", MountFlags::NODEV, plan.overlay.as_c_str())?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(MOUNT_POINT, directory, Mode::empty())
}

fn devices(root: &OwnedFd, has_groups: bool) -> Result<(), Errno> {
    let dev = memory(c"0755", None, NO_SETUID | NO_DEVICES | NO_PROGRAMS)?;
    place(&dev, root, c"dev")?;
    let nodes = [
        (c"/dev/null", c"null"),
        (c"/dev/zero", c"zero"),
        (c"/dev/full", c"full"),
        (c"/dev/random", c"random"),
        (c"/dev/urandom", c"urandom"),
        (c"/dev/tty", c"tty"),
    ];
    for (source, name) in nodes {
        let node = copy_of(CWD, source)?;
        // Read only concerns the node, not the device: nobody inside may change its owner or mode.
        sys::set_mount_attributes(node.as_fd(), READ_ONLY | NO_SETUID | NO_PROGRAMS, false)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666))?;
        place(&node, &dev, name)?;
    }
    terminals(&dev, has_groups)?;
    rustix::fs::mkdirat(&dev, c"shm", Mode::RWXU)?;
    place(&memory(c"1777", None, NO_SETUID | NO_DEVICES | NO_PROGRAMS)?, &dev, c"shm")?;
    let links = [
        (c"pts/ptmx", c"ptmx"),
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
    ];
    for (target, name) in links {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    Ok(())
}

fn terminals(dev: &OwnedFd, has_groups: bool) -> Result<(), Errno> {
    rustix::fs::mkdirat(dev, c"pts", Mode::RWXU)?;
    let context = fsopen(c"devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, c"newinstance")?;
    fsconfig_set_string(&context, c"ptmxmode", c"0666")?;
    fsconfig_set_string(&context, c"mode", c"0620")?;
    if has_groups {
        fsconfig_set_string(&context, c"gid", c"5")?;
    }
    fsconfig_create(&context)?;
    let terminals = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(NO_SETUID | NO_PROGRAMS))?;
    place(&terminals, dev, c"pts")
}

/// Files and directories of `/proc` that would let root of the inside change the machine.
const PROC_READ_ONLY: [&CStr; 5] = [c"sys", c"sysrq-trigger", c"irq", c"bus", c"fs"];

/// And those that tell what is none of the inside's business.
const PROC_HIDDEN: [&CStr; 10] = [
    c"acpi",
    c"asound",
    c"interrupts",
    c"kcore",
    c"keys",
    c"latency_stats",
    c"sched_debug",
    c"scsi",
    c"timer_list",
    c"timer_stats",
];

fn proc(root: &OwnedFd) -> Result<(), Errno> {
    let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let flags = attributes(NO_SETUID | NO_DEVICES | NO_PROGRAMS);
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    place(&proc, root, c"proc")?;
    for name in PROC_READ_ONLY {
        let part = match copy_of(proc.as_fd(), name) {
            Err(Errno::NOENT) => continue,
            part => part?,
        };
        sys::set_mount_attributes(part.as_fd(), READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS, true)?;
        place(&part, &proc, name)?;
    }
    for name in PROC_HIDDEN {
        let mask = match rustix::fs::statat(&proc, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat if FileType::from_raw_mode(stat?.st_mode) == FileType::Directory => {
                memory(c"0555", None, NO_SETUID | NO_DEVICES | NO_PROGRAMS | READ_ONLY)?
            }
            _ => copy_of(CWD, c"/dev/null")?,
        };
        place(&mask, &proc, name)?;
    }
    Ok(())
}

fn wanted(root: &OwnedFd, planned: &PlannedMount) -> Result<(), Errno> {
    let read_only = if planned.read_only { READ_ONLY } else { NOTHING };
    let source = match &planned.source {
        PlannedSource::Path(path) => {
            let source = copy_of(CWD, path)?;
            sys::set_mount_attributes(source.as_fd(), read_only | NO_SETUID | NO_DEVICES, true)?;
            source
        }
        PlannedSource::Memory { size } => memory(c"1777", size.as_deref(), read_only | NO_SETUID | NO_DEVICES)?,
        PlannedSource::File { content, mode, owner, record } => {
            file_in_memory(content.reveal(), *mode, *owner, record)?
        }
    };
    place(&source, root, &planned.target)
}

/// A file of a file system in memory that has nothing else in it. It is read-only to everybody.
fn file_in_memory(content: &[u8], mode: Mode, owner: Option<(Uid, Gid)>, record: &[u8]) -> Result<OwnedFd, Errno> {
    let directory = memory(c"0755", None, NO_SETUID | NO_DEVICES | NO_PROGRAMS)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, c"file", flags, Mode::RUSR)?;
    let mut rest = content;
    while !rest.is_empty() {
        let length = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(length..).unwrap_or_default();
    }
    match owner {
        Some((uid, gid)) => rustix::fs::fchown(&file, Some(uid), Some(gid))?,
        // Before Linux 6.6 such file systems have no such attributes; then the file seems to be root's, and is read
        // all the same.
        None => drop(rustix::fs::fsetxattr(&file, RECORD_XATTR, record, XattrFlags::empty())),
    }
    // After the owner, whose change would take bits away.
    rustix::fs::fchmod(&file, mode)?;
    // A single file can be mounted elsewhere only from where it is seen. Here that is the stage, which is left when
    // the layers become the root.
    move_mount(&directory, c"", CWD, MEMORY, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let file = copy_of(CWD, c"memory/file")?;
    sys::set_mount_attributes(file.as_fd(), READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS, false)?;
    Ok(file)
}

/// A file system in memory that is mounted nowhere yet.
fn memory(mode: &CStr, size: Option<&CStr>, flags: u64) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"mode", mode)?;
    if let Some(size) = size {
        fsconfig_set_string(&context, c"size", size)?;
    }
    // What is in memory should not get to a disk when memory is short. Linux 6.4 can do that, for real root.
    let _ = fsconfig_set_flag(&context, c"noswap");
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))
}

fn attributes(flags: u64) -> MountAttrFlags {
    // The bits are the same; `mount_setattr` takes 64 of them, `fsmount` 32.
    MountAttrFlags::from_bits_retain(flags as u32)
}

/// A second mount of a file or directory and all that is mounted in it, which is seen nowhere yet.
fn copy_of(directory: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(directory, path, flags)
}

/// Makes a mount seen at `path` below `directory`, and never outside of it whatever links there are.
fn place(mount: &OwnedFd, directory: &OwnedFd, path: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat2(directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &target, c"", flags)
}

/// Makes the layers the root, and forgets the old one.
fn pivot(root: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // Both at the same place: the old root is then mounted over the new one, and can be taken off at once.
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}
