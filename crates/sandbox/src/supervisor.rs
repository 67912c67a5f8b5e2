//! Answers the system calls that a plain user may not make, so that programs inside see the root filesystem of root.
//!
//! One thread for each run. It lives in the mount namespace of the run, with the run's root as its own, so that the
//! kernel finds every path as it would for the caller; but its working directory is the builder's `/proc`, from where
//! any caller's directories and descriptors are reached (`place`). What it may not do for real it writes into records
//! (`layer::record`).
//!
//! The rule for everything that goes wrong: let the kernel do the call after all. It will find the same reason, and
//! knows the right error.
//!
//! - [`identity`]: who a thread believes to be
//! - [`memory`], [`place`]: what a caller's pointers and paths mean
//! - [`owners`], [`create`], [`attributes`], [`stat`]: the calls
//! - [`device`]: what is different where owners are real (`Owners::Mapped`), and only device nodes are recorded
//!
//! Nothing here keeps anyone from anything: processes inside have the same rights, all of them the builder's own user,
//! and reach nothing but the root filesystem. So it does not matter that memory may change between look and act.

pub(crate) mod identity;

mod attributes;
mod create;
mod device;
pub(crate) mod memory;
mod owners;
mod place;
mod stat;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use layer::record::{Node, NodeKey, Owners, Record, Sidecar, TreeDir};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid};
use rustix::io::Errno;

use crate::filter::MOVES;
use crate::job::User;
use crate::notify::{Answer, Listener, Notification};
use crate::sys;
use crate::wire::Supervise;
use identity::Identities;
use place::{Callers, Place};

/// The supervisor of one run.
pub(crate) struct Supervisor {
    listener: Listener,
    owners: Owners,
    /// The mount namespace of the run.
    mounts: OwnedFd,
    /// The builder's `/proc`.
    proc: OwnedFd,
    /// The root of the upper tree.
    upper: OwnedFd,
    identities: Identities,
    /// The upper tree's sidecar.
    records: Sidecar,
    /// Those of the trees below.
    below: Sidecar,
}

/// What is known about a run.
struct State {
    owners: Owners,
    identities: Identities,
    records: Sidecar,
    below: Sidecar,
    roots: Roots,
    callers: Callers,
}

/// Answers or says why not; both are answers.
type Reply = Result<Answer, Answer>;

impl From<Errno> for Answer {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// For refusals that the kernel will find too: let it.
fn kernel_says<E>(_: E) -> Answer {
    Answer::Continue
}

impl Supervisor {
    /// Gets ready to answer for a run over `upper`.
    pub(crate) fn new(
        run: Supervise,
        owners: Owners,
        user: &User,
        upper: &TreeDir,
        records: Sidecar,
        below: Sidecar,
    ) -> Result<Self, Errno> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            listener: Listener::new(run.listener),
            owners,
            mounts: run.mounts,
            proc: rustix::fs::open(c"/proc", directory, Mode::empty())?,
            upper: rustix::fs::open(upper.root(), directory, Mode::empty())?,
            identities: Identities::new(user),
            records,
            below,
        })
    }

    /// Answers until the last caller has gone, or `stop` becomes readable. Returns the upper tree's records.
    pub(crate) fn serve(self, stop: &OwnedFd) -> Result<Sidecar, Errno> {
        let Self { listener, owners, mounts, proc, upper, identities, records, below } = self;
        sys::enter_mount_namespace(mounts.as_fd())?;
        rustix::process::fchdir(&proc)?;
        let (roots, callers) = (Roots::new(proc, upper)?, Callers::default());
        let mut state = State { owners, identities, records, below, roots, callers };
        loop {
            let mut ready =
                [PollFd::from_borrowed_fd(listener.descriptor(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            let [calls, stop] = ready.map(|ready| ready.revents());
            if calls.contains(PollFlags::IN) {
                if let Some(call) = listener.receive()? {
                    let answer = Handling { call: &call, listener: &listener, state: &mut state }.answer()?;
                    listener.answer(&call, answer)?;
                }
            } else if !calls.is_empty() || !stop.is_empty() {
                return Ok(state.records);
            }
        }
    }
}

/// The run's root, from inside and from below, and the supervisor's own.
struct Roots {
    proc: OwnedFd,
    /// The root of the upper tree, seen from outside.
    upper: OwnedFd,
    /// The root of the run.
    own: OwnedFd,
    own_place: FilePlace,
    /// The root of a caller who has another, while its call is handled.
    caller: Option<OwnedFd>,
    /// Whether anyone inside has ever asked for another root.
    differ: bool,
}

/// Which mount a file is seen in, and which file of it that is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FilePlace {
    mount: u64,
    inode: u64,
}

impl FilePlace {
    fn of(file: &OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
        Ok(Self { mount: stat.stx_mnt_id, inode: stat.stx_ino })
    }
}

impl Roots {
    fn new(proc: OwnedFd, upper: OwnedFd) -> Result<Self, Errno> {
        let own = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let own_place = FilePlace::of(&own)?;
        Ok(Self { proc, upper, own, own_place, caller: None, differ: false })
    }

    /// Takes the caller's root, if it is not the one we have.
    fn enter(&mut self, call: &Notification) -> Result<(), Errno> {
        if !self.differ {
            return Ok(());
        }
        let path = format!("{}/root", call.thread);
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if FilePlace::of(&root)? != self.own_place {
            self.take(&root)?;
            self.caller = Some(root);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Errno> {
        match self.caller.take() {
            Some(_) => self.take(&self.own),
            None => Ok(()),
        }
    }

    fn take(&self, root: &OwnedFd) -> Result<(), Errno> {
        rustix::process::fchdir(root)?;
        let taken = rustix::process::chroot(c".");
        rustix::process::fchdir(&self.proc)?;
        taken
    }

    /// The node of the upper tree that is seen as this file inside; none if it is not in the upper tree.
    ///
    /// Overlayfs keeps the inode number of a file that it copies up for as long as it is mounted. So the number says
    /// nothing, and only the path leads to the inode that will be there afterwards.
    fn in_upper(&self, file: &OwnedFd, node: &Node<'_>) -> Result<Option<NodeKey>, Errno> {
        if FilePlace::of(file)?.mount != self.own_place.mount {
            return Ok(None);
        }
        if self.caller.is_some() {
            self.take(&self.own)?;
        }
        let path = rustix::fs::readlink(node.link(), Vec::new());
        if let Some(root) = &self.caller {
            self.take(root)?;
        }
        let path = path?;
        let Some(path) = path.as_bytes().strip_prefix(b"/") else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The path is that of a file, in which no directory is a link; and no file named so but deleted is there.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.upper, path, flags, Mode::empty(), resolve) {
            Ok(found) => {
                let found = self::node(&found)?;
                Ok((found.file_type() == node.file_type()).then_some(found.key()))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// One call while it is handled.
struct Handling<'a> {
    call: &'a Notification,
    listener: &'a Listener,
    state: &'a mut State,
}

impl Handling<'_> {
    fn answer(&mut self) -> Result<Answer, Errno> {
        let answer = match self.state.roots.enter(self.call) {
            Ok(()) => self.reply().unwrap_or_else(|answer| answer),
            Err(_) => Answer::Continue,
        };
        self.state.roots.leave()?;
        self.state.roots.differ |= self.call.number == libc::SYS_chroot;
        Ok(answer)
    }

    fn reply(&mut self) -> Reply {
        match self.call.number {
            libc::SYS_newfstatat => self.stat(self.place(0, 1, 3)?, 2),
            libc::SYS_fstat => self.stat(Place::of_descriptor(self.call, self.int(0)), 1),
            libc::SYS_statx => self.statx(self.place(0, 1, 2)?),

            libc::SYS_fchownat => self.chown(self.place(0, 1, 4)?, 2),
            libc::SYS_fchown => self.chown(Place::of_descriptor(self.call, self.int(0)), 1),

            libc::SYS_openat => self.open(self.place_of(0, 1, 0)?, self.int(2), self.word(3)),
            libc::SYS_openat2 => self.openat2(),
            libc::SYS_mkdirat => self.make_directory(self.place_of(0, 1, 0)?, self.word(2)),
            libc::SYS_mknodat => self.make_node(self.place_of(0, 1, 0)?, self.word(2), self.call.arguments[3]),
            libc::SYS_symlinkat => self.make_link(0, self.place_of(1, 2, 0)?),

            libc::SYS_getxattr => self.get_attribute(self.path(0, true)?),
            libc::SYS_lgetxattr => self.get_attribute(self.path(0, false)?),
            libc::SYS_fgetxattr => self.get_attribute(Place::of_descriptor(self.call, self.int(0))),
            libc::SYS_setxattr => self.set_attribute(self.path(0, true)?),
            libc::SYS_lsetxattr => self.set_attribute(self.path(0, false)?),
            libc::SYS_fsetxattr => self.set_attribute(Place::of_descriptor(self.call, self.int(0))),
            libc::SYS_listxattr => self.list_attributes(&self.path(0, true)?),
            libc::SYS_llistxattr => self.list_attributes(&self.path(0, false)?),
            libc::SYS_flistxattr => self.list_attributes(&Place::of_descriptor(self.call, self.int(0))),
            libc::SYS_removexattr => self.remove_attribute(self.path(0, true)?),
            libc::SYS_lremovexattr => self.remove_attribute(self.path(0, false)?),
            libc::SYS_fremovexattr => self.remove_attribute(Place::of_descriptor(self.call, self.int(0))),

            libc::SYS_execve => self.execute(&self.path(0, true)?),
            libc::SYS_execveat => self.execute(&self.place(0, 1, 4)?),
            libc::SYS_chroot => Ok(Answer::Continue),
            number if MOVES.contains(&number) => self.keep_record(),
            _ => self.old_call(),
        }
    }

    /// Calls that only old architectures have.
    #[cfg(target_arch = "x86_64")]
    fn old_call(&mut self) -> Reply {
        match self.call.number {
            libc::SYS_stat => self.stat(self.path(0, true)?, 1),
            libc::SYS_lstat => self.stat(self.path(0, false)?, 1),
            libc::SYS_chown => self.chown(self.path(0, true)?, 1),
            libc::SYS_lchown => self.chown(self.path(0, false)?, 1),
            libc::SYS_open => self.open(self.path(0, true)?, self.int(1), self.word(2)),
            libc::SYS_creat => {
                self.open(self.path(0, true)?, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, self.word(1))
            }
            libc::SYS_mkdir => self.make_directory(self.path(0, true)?, self.word(1)),
            libc::SYS_mknod => self.make_node(self.path(0, true)?, self.word(1), self.call.arguments[2]),
            libc::SYS_symlink => self.make_link(0, self.path(1, true)?),
            _ => self.identity_call(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn old_call(&mut self) -> Reply {
        self.identity_call()
    }

    /// An argument as the C type `int`.
    fn int(&self, index: usize) -> i32 {
        self.word(index).cast_signed()
    }

    /// An argument as 32 bits: the kernel does not look at the others.
    fn word(&self, index: usize) -> u32 {
        self.call.arguments[index] as u32
    }

    /// A path argument that is relative to the working directory.
    fn path(&self, pointer: usize, follow: bool) -> Result<Place, Answer> {
        let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        Place::of_path(self.call, libc::AT_FDCWD, self.call.arguments[pointer], flags)
    }

    /// A path argument that is relative to a descriptor, with flags in a third argument.
    fn place(&self, directory: usize, pointer: usize, flags: usize) -> Result<Place, Answer> {
        self.place_of(directory, pointer, self.int(flags))
    }

    /// The same with these flags.
    fn place_of(&self, directory: usize, pointer: usize, flags: i32) -> Result<Place, Answer> {
        Place::of_path(self.call, self.int(directory), self.call.arguments[pointer], flags)
    }

    /// Opens what is at a place, without any right to it.
    fn file(&self, place: &Place) -> Result<OwnedFd, Answer> {
        place.open(self.call).map_err(kernel_says)
    }

    /// Makes sure that everything read so far was about the caller.
    fn still_there(&self) -> Result<(), Answer> {
        if self.listener.is_waiting(self.call) { Ok(()) } else { Err(Answer::Error(Errno::SRCH)) }
    }

    /// Does nothing but see to it that records of symbolic links and the like go where the link goes.
    fn keep_record(&mut self) -> Reply {
        let place = match self.call.number {
            libc::SYS_renameat | libc::SYS_renameat2 => self.place_of(0, 1, libc::AT_SYMLINK_NOFOLLOW)?,
            libc::SYS_linkat => {
                let follow = self.int(4) & libc::AT_SYMLINK_FOLLOW != 0;
                let nofollow = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                self.place_of(0, 1, nofollow | self.int(4) & libc::AT_EMPTY_PATH)?
            }
            libc::SYS_utimensat if self.call.arguments[1] == 0 => return Ok(Answer::Continue),
            libc::SYS_utimensat | libc::SYS_fchmodat2 => self.place(0, 1, 3)?,
            libc::SYS_fchmodat => self.place_of(0, 1, 0)?,
            _ => self.path(0, false)?,
        };
        let file = self.file(&place)?;
        let node = node(&file).map_err(kernel_says)?;
        if !node.carries_record() && self.state.roots.in_upper(&file, &node).map_err(kernel_says)?.is_none() {
            let record = self.state.record(&file, &node).map_err(kernel_says)?;
            self.still_there()?;
            self.state.set_first_record(&file, &record).map_err(kernel_says)?;
        }
        Ok(Answer::Continue)
    }
}

/// Looks at an open file. Our working directory is `/proc`.
fn node(file: &OwnedFd) -> Result<Node<'_>, Errno> {
    Node::reached_by(file.as_fd(), link(file)).map_err(errno)
}

fn link(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("self/fd/{}", file.as_raw_fd()))
}

/// The kernel's reason in an error.
fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl State {
    fn record(&self, file: &OwnedFd, node: &Node<'_>) -> Result<Record, Errno> {
        if node.carries_record() {
            return node.record(&self.records).map_err(errno);
        }
        let found = match self.roots.in_upper(file, node)? {
            Some(key) => self.records.get(key),
            // Records of what is in no tree at all, such as a terminal, are with those of the upper tree.
            None => self.below.get(node.key()).or_else(|| self.records.get(node.key())),
        };
        Ok(found.cloned().unwrap_or_default())
    }

    fn set_record(&mut self, file: &OwnedFd, node: &Node<'_>, record: &Record) -> Result<(), Errno> {
        if node.carries_record() {
            return node.set_record(&mut self.records, record).map_err(errno);
        }
        // The record belongs to the inode in the upper tree. A change of owner that changes nothing makes overlayfs
        // copy the node up, and finds out whether it may be changed at all.
        rustix::fs::chownat(file, c"", Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::EMPTY_PATH)?;
        let key = self.roots.in_upper(file, node)?.unwrap_or_else(|| node.key());
        self.records.set(key, record.clone());
        Ok(())
    }

    /// Writes the record of a file that had none, if there is anything to say.
    fn set_first_record(&mut self, file: &OwnedFd, record: &Record) -> Result<(), Errno> {
        if *record == Record::default() {
            return Ok(());
        }
        self.set_record(file, &node(file)?, record)
    }

    fn has_sidecars(&self) -> bool {
        !self.records.is_empty() || !self.below.is_empty()
    }

    /// The record of what is at a place, read the shortest way; none if there is none.
    fn record_at(&mut self, call: &Notification, place: &Place) -> Result<Option<Record>, Answer> {
        match place.record(call, &mut self.callers).map_err(kernel_says)? {
            None if self.has_sidecars() => {
                let file = place.open(call).map_err(kernel_says)?;
                let record = self.record(&file, &node(&file).map_err(kernel_says)?).map_err(kernel_says)?;
                Ok(Some(record).filter(|record| *record != Record::default()))
            }
            record => Ok(record),
        }
    }
}

/// Opens `path` seen from `/proc`, for looking only.
fn open_path(path: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
}
