//! The two processes of ours in a run without namespaces: the watcher, and the command before it is one.
//!
//! Where no process can be the first of a namespace, the watcher stands in for it: it adopts every process whose parent
//! has gone, and when the command ends, or the builder does, it kills its children until it has none. It holds the
//! other end of the builder's socket, and sees there that the builder is gone.
//!
//! As in `child`, nothing here allocates, locks or panics.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

use crate::child::{self, Descriptors, Failure, Step, at};
use crate::plan::Command;
use crate::sys::{self, Cloned};
use crate::wire;

/// What the watcher needs to know.
pub(crate) struct Plan {
    pub(crate) root: CString,
    /// Files that may be secrets.
    pub(crate) copied_files: Vec<CString>,
    pub(crate) command: Command,
}

/// The watcher, from its first instruction to its end.
pub(crate) fn watch(plan: &Plan, descriptors: &Descriptors<'_>) -> ! {
    let status = match begin(plan, descriptors) {
        Ok(watched) => {
            let end = watched.wait();
            end_everybody();
            match end {
                Some(status) => {
                    let _ = wire::send_end(sys::control(), status);
                }
                // Nobody else is left to do it.
                None => {
                    for file in &plan.copied_files {
                        let _ = rustix::fs::unlink(file.as_c_str());
                    }
                }
            }
            0
        }
        Err(Failure { step, index, errno }) => {
            let _ = wire::send_failure(sys::control(), step, index, errno);
            1
        }
    };
    sys::exit_now(status)
}

struct Watched {
    command: Pid,
    /// Tells of children that have ended.
    ended: OwnedFd,
}

fn begin(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<Watched, Failure> {
    sys::reset_signals();
    sys::arrange_descriptors(descriptors.stdin, descriptors.output, descriptors.control)
        .map_err(at(Step::Descriptors))?;
    wire::await_go(sys::control()).map_err(at(Step::Descriptors))?;
    // This process is a copy of the builder's memory. Nobody inside may look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Descriptors))?;
    // Signals that a terminal sends to the builder's group are not for this process: it has to see to the end.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(at(Step::Clone))?;
    let ended = sys::child_signals().map_err(at(Step::Clone))?;
    match sys::clone_process(0).map_err(at(Step::Clone))? {
        Cloned::Child => {
            drop(ended);
            sys::reset_signals();
            if let Err(Failure { step, index, errno }) = enter(plan) {
                let _ = wire::send_failure(sys::control(), step, index, errno);
                sys::exit_now(127)
            }
            child::command(&plan.command)
        }
        Cloned::Parent { pid, .. } => {
            // Readers of standard input and output must see the end when the command closes them.
            let _ = child::close_standard_descriptors();
            Ok(Watched { command: pid, ended })
        }
    }
}

fn enter(plan: &Plan) -> Result<(), Failure> {
    // Should the watcher be killed, at least the command goes with it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    rustix::process::chroot(plan.root.as_c_str()).map_err(at(Step::Pivot))?;
    rustix::process::chdir(c"/").map_err(at(Step::Pivot))
}

impl Watched {
    /// Waits for the end of the command, burying orphans meanwhile; nothing if the builder is gone or wants an end.
    fn wait(&self) -> Option<i32> {
        loop {
            loop {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) if pid == self.command => return Some(status.as_raw()),
                    Ok(Some(_)) | Err(Errno::INTR) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            let control = sys::control();
            let mut ready = [PollFd::new(&self.ended, PollFlags::IN), PollFd::from_borrowed_fd(control, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            let [ended, control] = ready.map(|ready| !ready.revents().is_empty());
            if ended {
                let mut signals = [0; 512];
                let _ = rustix::io::read(&self.ended, &mut signals);
            }
            // The builder says "go", and nothing else ever: this is the end of the socket.
            if control {
                return None;
            }
        }
    }
}

/// Kills children until there are none. Children of theirs become ours when they die, and die in the next round.
fn end_everybody() {
    const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return,
            Ok(None) => {
                let _ = kill_children();
                let _ = poll(&mut [], Some(&PAUSE));
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

fn kill_children() -> Result<(), Errno> {
    let own = rustix::process::getpid();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&proc, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Some(pid) = number(entry.file_name().to_bytes()).and_then(Pid::from_raw) else { continue };
        let Ok(process) = rustix::fs::openat(&proc, entry.file_name(), flags, Mode::empty()) else { continue };
        if parent(&process) == Some(own) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// The parent of a process, whose directory in `/proc` this is.
fn parent(process: &OwnedFd) -> Option<Pid> {
    let file = rustix::fs::openat(process.as_fd(), c"stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 512];
    let length = rustix::io::read(&file, &mut text).ok()?;
    stat_numbers(text.get(..length)?).map(|numbers| numbers.parent).and_then(Pid::from_raw)
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatNumbers {
    pub(crate) parent: i32,
    pub(crate) group: i32,
}

/// Reads the numbers after the name, which may hold anything.
pub(crate) fn stat_numbers(text: &[u8]) -> Option<StatNumbers> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut words = text.get(end + 1..)?.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1);
    Some(StatNumbers { parent: number(words.next()?)?, group: number(words.next()?)? })
}

fn number(digits: &[u8]) -> Option<i32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0i32, |number, digit| {
        let value = digit.checked_sub(b'0').filter(|value| *value < 10)?;
        number.checked_mul(10)?.checked_add(value.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse_their_numbers() {
        let cases = [
            ("12 (sh) S 7 8 9 0 -1", Some(StatNumbers { parent: 7, group: 8 })),
            ("12 (a) S 1 2 (b)) R 70 80 9", Some(StatNumbers { parent: 70, group: 80 })),
            ("12 (sh) S", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(stat_numbers(text.as_bytes()), expected, "{text}");
        }
    }
}
