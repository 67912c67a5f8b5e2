//! A run, seen from the builder: start, stream, wait, clean up.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use layer::record::Owners;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::child::{self, Descriptors, Step};
use crate::chroot;
use crate::enter::{CannotRun, Sandbox};
use crate::job::{Job, Network, Outcome, Stdin};
use crate::plan::Plan;
use crate::rung::Rung;
use crate::stage::{Stage, StagedMount};
use crate::supervisor::Supervisor;
use crate::sys::{self, Cloned};
use crate::wire::{self, Message, Supervise};

/// Why a command was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The rung is `none`; whoever asks [`Sandbox::may_run`] first does not see this.
    #[error("nothing can be run")]
    Impossible {
        /// Why.
        source: CannotRun,
    },
    /// The job names no program.
    #[error("the command is empty")]
    NoProgram,
    /// A text cannot be given to a program.
    #[error("`{}` holds a NUL byte", text.display())]
    Nul {
        /// The text.
        text: OsString,
    },
    /// More layers than overlayfs can stack.
    #[error("{found} layers, but at most {most} can be stacked")]
    TooManyLowers {
        /// How many the job has.
        found: usize,
        /// How many are possible.
        most: usize,
    },
    /// The directories of the run cannot be made.
    #[error("cannot prepare `{}`", path.display())]
    Prepare {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of the job's mounts is impossible.
    #[error("cannot mount at `{}`", target.display())]
    Mount {
        /// Where it was to be seen.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Changes cannot be kept where the upper tree is.
    #[error("`{}` is on {filesystem}, which cannot hold what a layer deletes; choose a directory on a disk or a volume", path.display())]
    UpperFilesystem {
        /// The upper tree.
        path: PathBuf,
        /// What it is on.
        filesystem: &'static str,
    },
    /// The sandbox cannot be set up.
    #[error("cannot {step} of the sandbox")]
    SetUp {
        /// What was tried.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The directory to start in.
    #[error("cannot start in the directory `{}`", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is not there, or is none.
    #[error("cannot execute `{}`", program.display())]
    Program {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// Process 1 was killed from outside, as the kernel does when memory is short.
    #[error("the sandbox was killed from outside, perhaps because memory was short")]
    Vanished,
    /// The job's interrupt was set.
    #[error("interrupted")]
    Interrupted,
    /// System calls of the command could not be answered.
    #[error("the supervisor of system calls gave up")]
    Supervisor {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused something that a running command needs.
    #[error("cannot watch the command")]
    Watch {
        /// Why.
        source: io::Error,
    },
}

/// How long an interrupt may stay unseen.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// As much output as is handed over at once.
const CHUNK: usize = 1 << 16;

impl Sandbox {
    /// Runs a command to its end, and hands over what it prints as it comes.
    ///
    /// When this returns, no process and no mount of the run is left, whatever the command has started. May be called
    /// from several threads at once, for different upper trees.
    pub fn run(&self, job: &Job, output: &mut dyn FnMut(&[u8])) -> Result<Outcome, RunError> {
        self.may_run().map_err(|source| RunError::Impossible { source })?;
        if self.rung() == Rung::Chroot {
            return chroot::run(job, output);
        }
        let mut stage = Stage::prepare(job, self.owners())?;
        let plan = Plan::new(job, &stage, self.rung())?;
        let started = Started::start(&plan, &job.stdin)?;
        let records = (std::mem::take(&mut stage.records), std::mem::take(&mut stage.records_below));
        let targets: Vec<PathBuf> = stage.mounts.iter().map(StagedMount::seen_at).collect();
        let watch = Watch { job, targets, started: &started, ending: Ending::Kill };
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(watching)?;
        thread::scope(|scope| {
            // Dropped first, also when `output` panics: only when nothing runs any more does the supervisor end.
            let _killer = Killer { started: &started, ending: Ending::Kill, stop: &stop };
            let mut supervisor = None;
            let mut records = Some(records);
            let end = watch.until_the_end(output, &mut |run| {
                let (own, below) = records.take().unwrap_or_default();
                let supervisor_of_run = Supervisor::new(run, self.owners(), &job.user, &job.upper, own, below)?;
                let stop = &stop;
                supervisor = Some(scope.spawn(move || supervisor_of_run.serve(stop)));
                Ok(())
            });
            let _ = rustix::io::write(&stop, &1u64.to_ne_bytes());
            let served = supervisor.map(thread::ScopedJoinHandle::join);
            let outcome = end?;
            match served {
                // Elsewhere there is no sidecar, and what may be in it concerns files that are gone.
                Some(Ok(Ok(_))) if self.owners() != Owners::Recorded => {}
                Some(Ok(Ok(records))) => {
                    records.save(&job.upper).map_err(|source| RunError::Prepare { path: job.upper.links(), source })?
                }
                Some(Ok(Err(errno))) => return Err(RunError::Supervisor { source: errno.into() }),
                Some(Err(_panic)) => return Err(RunError::Supervisor { source: io::Error::other("it panicked") }),
                None => {}
            }
            Ok(outcome)
        })
    }
}

pub(crate) fn watching(errno: Errno) -> RunError {
    RunError::Watch { source: errno.into() }
}

/// A run whose first process lives.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) first: OwnedFd,
    pub(crate) control: OwnedFd,
    pub(crate) output: OwnedFd,
}

/// How the first process is made to end.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    /// It is killed, and the kernel kills everybody else in its namespace.
    Kill,
    /// It sees the end of the socket, and kills everybody itself.
    Ask,
}

impl Started {
    fn start(plan: &Plan, stdin: &Stdin) -> Result<Self, RunError> {
        let terminal = matches!(stdin, Stdin::Terminal(_));
        let stdin = open_stdin(stdin).map_err(watching)?;
        let (output, written) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(watching)?;
        let (control, theirs) = wire::pair().map_err(watching)?;
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        let network = if plan.network == Network::None { libc::CLONE_NEWNET } else { 0 };
        let set_up = |errno: Errno| RunError::SetUp { step: "make the namespaces", source: errno.into() };
        match sys::clone_process((namespaces | network).cast_unsigned()).map_err(set_up)? {
            Cloned::Child => {
                let output = if terminal { stdin.as_fd() } else { written.as_fd() };
                let (stdin, control) = (stdin.as_fd(), theirs.as_fd());
                child::first_process(plan, &Descriptors { stdin, output, control })
            }
            Cloned::Parent { pid, pidfd } => {
                let started = Self { pid, first: pidfd, control, output };
                if let Err(errno) = wire::send_go(&started.control) {
                    started.end(Ending::Kill);
                    let _ = sys::reap(&started.first);
                    return Err(watching(errno));
                }
                Ok(started)
            }
        }
    }
}

pub(crate) fn open_stdin(stdin: &Stdin) -> Result<OwnedFd, Errno> {
    match stdin {
        Stdin::Null => rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        Stdin::Data(data) => {
            let file = rustix::fs::memfd_create(c"stdin", MemfdFlags::CLOEXEC)?;
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let length = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
                rest = rest.get(length..).unwrap_or_default();
            }
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
            Ok(file)
        }
        Stdin::Terminal(terminal) => rustix::io::fcntl_dupfd_cloexec(terminal.as_fd(), 0),
    }
}

impl Started {
    pub(crate) fn end(&self, ending: Ending) {
        let _ = match ending {
            Ending::Kill => rustix::process::pidfd_send_signal(&self.first, Signal::KILL),
            Ending::Ask => rustix::net::shutdown(&self.control, rustix::net::Shutdown::Write),
        };
    }
}

/// Ends a run on every way out, and waits until nothing of it is left.
pub(crate) struct Killer<'a> {
    pub(crate) started: &'a Started,
    pub(crate) ending: Ending,
    pub(crate) stop: &'a OwnedFd,
}

impl Drop for Killer<'_> {
    fn drop(&mut self) {
        self.started.end(self.ending);
        // The kernel lets go of process 1 only when all others of its namespace are gone; the watcher goes last.
        let _ = sys::reap(&self.started.first);
        let _ = rustix::io::write(self.stop, &1u64.to_ne_bytes());
    }
}

/// What the builder looks at while a command runs.
pub(crate) struct Watch<'a> {
    pub(crate) job: &'a Job,
    /// Where each mount of the plan is seen.
    pub(crate) targets: Vec<PathBuf>,
    pub(crate) started: &'a Started,
    pub(crate) ending: Ending,
}

/// What the children have told.
#[derive(Default)]
struct Told {
    failure: Option<(Step, u32, Errno)>,
    ended: Option<i32>,
}

pub(crate) type OnSupervise<'a> = dyn FnMut(Supervise) -> Result<(), Errno> + 'a;

impl Watch<'_> {
    pub(crate) fn until_the_end(
        &self,
        output: &mut dyn FnMut(&[u8]),
        supervise: &mut OnSupervise<'_>,
    ) -> Result<Outcome, RunError> {
        let pipe = &self.started.output;
        let mut told = Told::default();
        let mut buffer = vec![0; CHUNK];
        let mut open = true;
        let mut interrupted = false;
        loop {
            if !interrupted && self.job.interrupt.load(Ordering::Relaxed) {
                interrupted = true;
                self.started.end(self.ending);
            }
            let mut ready = [
                PollFd::new(&self.started.first, PollFlags::IN),
                PollFd::new(&self.started.control, PollFlags::IN),
                PollFd::new(pipe, PollFlags::IN),
            ];
            let watched = if open { ready.len() } else { ready.len() - 1 };
            match poll(&mut ready[..watched], Some(&PATIENCE)) {
                Err(Errno::INTR) => continue,
                done => done.map_err(watching)?,
            };
            let [ended, control, printed] = ready.map(|ready| !ready.revents().is_empty());
            if open && printed {
                open = pass_on(pipe, &mut buffer, output)?;
            }
            if control {
                self.listen(&mut told, supervise)?;
            }
            if ended {
                break;
            }
        }
        self.listen(&mut told, supervise)?;
        if interrupted {
            return Err(RunError::Interrupted);
        }
        // Nobody can write any more, but what was written may still be in the pipe.
        while open {
            open = pass_on(pipe, &mut buffer, output)?;
        }
        self.outcome(&told)
    }

    /// Hears what there is to hear, without waiting.
    fn listen(&self, told: &mut Told, supervise: &mut OnSupervise<'_>) -> Result<(), RunError> {
        loop {
            match wire::receive(&self.started.control) {
                Ok(Some(Message::Failed { step, index, errno })) => {
                    told.failure.get_or_insert((step, index, errno));
                }
                Ok(Some(Message::Supervise(run))) => {
                    supervise(run).map_err(|errno| RunError::Supervisor { source: errno.into() })?;
                }
                Ok(Some(Message::Ended(status))) => told.ended = Some(status),
                // The other end is closed: only the end of process 1 is still to be waited for.
                Ok(None) => {
                    thread::sleep(Duration::from_micros(100));
                    return Ok(());
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(()),
                Err(errno) => return Err(watching(errno)),
            }
        }
    }

    fn outcome(&self, told: &Told) -> Result<Outcome, RunError> {
        tracing::trace!("process {} has ended: {:?} {:?}", self.started.pid.as_raw_nonzero(), told.failure, told.ended);
        if let Some((step, index, errno)) = told.failure {
            return Err(self.failure(step, index, errno));
        }
        let Some(status) = told.ended else { return Err(RunError::Vanished) };
        Ok(if libc::WIFSIGNALED(status) {
            Outcome::Killed(libc::WTERMSIG(status))
        } else {
            Outcome::Exited(libc::WEXITSTATUS(status))
        })
    }

    fn failure(&self, step: Step, index: u32, errno: Errno) -> RunError {
        let source = io::Error::from(errno);
        match step {
            Step::Program => RunError::Program { program: self.job.argv.first().cloned().unwrap_or_default(), source },
            Step::Directory => RunError::Directory { directory: self.job.directory.clone(), source },
            Step::Mount => {
                RunError::Mount { target: self.targets.get(index as usize).cloned().unwrap_or_default(), source }
            }
            Step::Overlay => match unfit_filesystem(&self.job.upper.root()) {
                Some(filesystem) => RunError::UpperFilesystem { path: self.job.upper.path().to_path_buf(), filesystem },
                None => RunError::SetUp { step: step.description(), source },
            },
            step => RunError::SetUp { step: step.description(), source },
        }
    }
}

/// Hands over what the pipe holds; false once it will hold no more.
fn pass_on(pipe: &OwnedFd, buffer: &mut [u8], output: &mut dyn FnMut(&[u8])) -> Result<bool, RunError> {
    match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut *buffer)).map_err(watching)? {
        0 => Ok(false),
        length => {
            output(&buffer[..length]);
            Ok(true)
        }
    }
}

/// The kind of a file system that holds no upper tree.
pub(crate) fn unfit_filesystem(path: &std::path::Path) -> Option<&'static str> {
    const KNOWN: [(u64, &str); 4] =
        [(0x794c_7630, "overlayfs"), (0x6969, "NFS"), (0x0102_1997, "9p"), (0x6573_5546, "FUSE")];
    let found = rustix::fs::statfs(path).ok()?.f_type as u64;
    KNOWN.iter().find(|(number, _)| *number == found).map(|(_, name)| *name)
}
