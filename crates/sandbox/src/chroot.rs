//! The rung `chroot`: root in a container that forbids namespaces and mounts.
//!
//! The trees are copied into one directory, the command runs with that directory as its root, and what is different
//! afterwards is moved into the upper tree. What namespaces do elsewhere is done by two stand-ins:
//!
//! - `watcher` (a process): adopts and kills what the command leaves behind, also when the builder dies;
//! - `supervisor` (a thread): answers for the host name, for addresses outside, for processes outside, and (`proc`) for
//!   what there is to know in `/proc`.
//!
//! `copy` and `collect` are the way in and out, `root` is what stands between them.

mod collect;
mod copy;
mod memory;
mod probe;
mod proc;
mod root;
mod supervisor;
mod watcher;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use crate::child::Descriptors;
use crate::filter;
use crate::job::{Job, Outcome, User};
use crate::plan::{BecomeUser, Command, c_string, open_files};
use crate::run::{Ending, Killer, RunError, Started, Watch, open_stdin, watching};
use crate::sys::{self, Cloned};
use crate::wire;
use root::Root;
use supervisor::Supervisor;

pub(crate) use probe::{attempt, try_here};

/// Runs a command to its end, as [`crate::Sandbox::run`] promises.
pub(crate) fn run(job: &Job, output: &mut dyn FnMut(&[u8])) -> Result<Outcome, RunError> {
    let root = Root::prepare(job)?;
    if job.interrupt.load(Ordering::Relaxed) {
        return Err(RunError::Interrupted);
    }
    let plan = plan(job, &root)?;
    let started = start(job, &plan)?;
    let watch = Watch { job, targets: root.targets(), started: &started, ending: Ending::Ask };
    let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(watching)?;
    let outcome = thread::scope(|scope| {
        // Dropped first, also when `output` panics.
        let _killer = Killer { started: &started, ending: Ending::Ask, stop: &stop };
        let mut served = None;
        let outcome = watch.until_the_end(output, &mut |run| {
            let supervisor = Supervisor::new(run.listener, job.hostname.as_bytes(), started.pid, root.path());
            let stop = &stop;
            served = Some(scope.spawn(move || supervisor.serve(stop)));
            Ok(())
        })?;
        let _ = rustix::io::write(&stop, &1u64.to_ne_bytes());
        match served.map(thread::ScopedJoinHandle::join) {
            Some(Ok(Err(errno))) => Err(RunError::Supervisor { source: errno.into() }),
            Some(Err(_panic)) => Err(RunError::Supervisor { source: std::io::Error::other("it panicked") }),
            Some(Ok(Ok(()))) | None => Ok(outcome),
        }
    })?;
    root.collect(job)?;
    Ok(outcome)
}

fn plan(job: &Job, root: &Root) -> Result<watcher::Plan, RunError> {
    let User { uid, gid, groups } = &job.user;
    let (most, _) = open_files();
    // The highest number that a program gets which asks for no more.
    let handover = i32::try_from(most.saturating_sub(1)).unwrap_or(i32::MAX);
    let become_user = BecomeUser::Unprivileged {
        uid: Uid::from_raw(*uid),
        gid: Gid::from_raw(*gid),
        groups: groups.iter().map(|group| Gid::from_raw(*group)).collect(),
        handover,
        without_listener: filter::without_answers(job.network),
    };
    let filter = filter::without_namespaces(job.network, handover.cast_unsigned());
    Ok(watcher::Plan {
        root: c_string(root.path().as_os_str())?,
        copied_files: root.copied_files().map(|path| c_string(path.as_os_str())).collect::<Result<_, _>>()?,
        command: Command::new(job, become_user, filter, false)?,
    })
}

fn start(job: &Job, plan: &watcher::Plan) -> Result<Started, RunError> {
    let stdin = open_stdin(&job.stdin).map_err(watching)?;
    let (output, written) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(watching)?;
    let (control, theirs) = wire::pair().map_err(watching)?;
    let set_up = |errno: Errno| RunError::SetUp { step: "start the watcher", source: errno.into() };
    match sys::clone_process(0).map_err(set_up)? {
        Cloned::Child => {
            let (stdin, output, control) = (stdin.as_fd(), written.as_fd(), theirs.as_fd());
            watcher::watch(plan, &Descriptors { stdin, output, control })
        }
        Cloned::Parent { pid, pidfd } => {
            let started = Started { pid, first: pidfd, control, output };
            match wire::send_go(&started.control) {
                Ok(()) => Ok(started),
                Err(errno) => {
                    // It waits for the word, or is gone.
                    started.end(Ending::Ask);
                    let _ = sys::reap(&started.first);
                    Err(watching(errno))
                }
            }
        }
    }
}
