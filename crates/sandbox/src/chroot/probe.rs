//! Whether the rung works here, found out in a child that does what a run does.

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::obstacle::Obstacle;
use crate::probe::{Attempt, Step, require_all_ids, try_in_child};
use crate::sys;

/// What is needed, beside being root.
const NEEDED: [(CapabilitySet, &str); 8] = [
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::MKNOD, "MKNOD"),
    (CapabilitySet::SETFCAP, "SETFCAP"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SYS_CHROOT, "SYS_CHROOT"),
];

/// Tries what a run needs, the file system of the trees excepted, which nobody has named yet.
pub(crate) fn try_here() -> Result<(), Obstacle> {
    let uid = rustix::process::geteuid();
    if !uid.is_root() {
        return Err(Obstacle::NotRoot { uid: uid.as_raw() });
    }
    let has = rustix::thread::capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(capability, _)| !has.contains(*capability)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(Obstacle::Capabilities { missing: missing.join(",") });
    }
    require_all_ids()?;
    try_in_child(&Attempt::Chroot)
}

/// In a child: allocates nothing.
pub(crate) fn attempt() -> Result<(), (Step, Errno)> {
    let at = |step| move |errno| (step, errno);
    // A name for as long as it takes, in a directory that everybody may write to; whatever is there already is no
    // obstacle, and stays.
    let name = c"/dev/shm/.drystone-probe";
    match rustix::fs::mknodat(CWD, name, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(1, 3)) {
        Ok(()) => rustix::fs::unlinkat(CWD, name, AtFlags::empty()).map_err(at(Step::Node))?,
        Err(Errno::EXIST | Errno::NOENT | Errno::ROFS) => {}
        Err(errno) => return Err((Step::Node, errno)),
    }
    rustix::process::chroot(c"/").map_err(at(Step::Chroot))?;
    rustix::thread::set_no_new_privs(true).map_err(at(Step::Filter))?;
    sys::load_filter(&[ALLOW], 0).map(drop).map_err(at(Step::Filter))
}

/// A filter that allows everything.
const ALLOW: libc::sock_filter =
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
