//! Everything a child needs to know, in the form in which system calls want it. Made before the child exists.

use std::ffi::{CString, OsStr, OsString};
use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use layer::record::Record;
use libc::sock_filter;
use rustix::fs::{Gid, Mode, Uid};
use rustix::process::Rlimit;

use crate::filter;
use crate::job::{Hidden, Job, MountSource, Network, Stdin, User};
use crate::run::RunError;
use crate::rung::Rung;
use crate::stage::{Stage, StagedMount};
use crate::supervisor::identity;
use crate::sys::Strings;

/// How a child sets itself up.
pub(crate) struct Plan {
    /// Where the overlay's parts can be named without the directories above them.
    pub(crate) stage: CString,
    /// Overlayfs' options, with names relative to the stage.
    pub(crate) overlay: CString,
    pub(crate) hostname: Vec<u8>,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<PlannedMount>,
    /// Whether groups other than root's can be named on a mount.
    pub(crate) has_groups: bool,
    pub(crate) command: Command,
}

/// A mount beside the layers.
pub(crate) struct PlannedMount {
    pub(crate) source: PlannedSource,
    /// Where, without symbolic links and without the leading slash.
    pub(crate) target: CString,
    pub(crate) read_only: bool,
}

/// What is mounted.
pub(crate) enum PlannedSource {
    Path(CString),
    /// An empty directory in memory, of so many bytes at most.
    Memory {
        size: Option<CString>,
    },
    /// A file in memory.
    File {
        content: Hidden,
        mode: Mode,
        /// Whom it is given to; none where only one id exists.
        owner: Option<(Uid, Gid)>,
        /// What tells the supervisor whose it is.
        record: Vec<u8>,
    },
}

/// How the command itself is started.
pub(crate) struct Command {
    pub(crate) directory: CString,
    /// Whether standard input is a terminal, to become the one that controls the command.
    pub(crate) on_terminal: bool,
    /// Programs to try, in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    pub(crate) open_files: Rlimit,
    pub(crate) become_user: BecomeUser,
    pub(crate) filter: Vec<sock_filter>,
    /// Whether the filter asks a supervisor.
    pub(crate) asks: bool,
}

/// How the command gets its ids.
pub(crate) enum BecomeUser {
    /// From the kernel.
    Really { uid: Uid, gid: Gid, groups: Vec<Gid> },
    /// From the supervisor, to whom this timer slack names them.
    Supervised { slack: NonZeroU64 },
    /// From the kernel, but nobody may load a filter that set-ID programs would have to obey.
    Unprivileged {
        uid: Uid,
        gid: Gid,
        groups: Vec<Gid>,
        /// The number of the one descriptor that messages may be sent to before somebody answers for the command.
        handover: RawFd,
        /// The filter where nobody can answer.
        without_listener: Vec<sock_filter>,
    },
}

/// Programs that close every descriptor they might have take seconds when there might be a billion.
const OPEN_FILES: u64 = 1024;
const MOST_OPEN_FILES: u64 = 65536;

impl Plan {
    /// Plans a run.
    pub(crate) fn new(job: &Job, stage: &Stage, rung: Rung) -> Result<Self, RunError> {
        let supervised = rung == Rung::UsernsSingle;
        let filter = match rung {
            Rung::UsernsSingle => filter::supervised(!stage.records_below.is_empty()),
            Rung::Userns => filter::devices(),
            Rung::Root | Rung::Chroot | Rung::None => filter::plain(),
        };
        let become_user = if supervised {
            BecomeUser::Supervised { slack: identity::FIRST_SLACK }
        } else {
            let User { uid, gid, groups } = &job.user;
            let groups = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            BecomeUser::Really { uid: Uid::from_raw(*uid), gid: Gid::from_raw(*gid), groups }
        };
        let asks = matches!(rung, Rung::Userns | Rung::UsernsSingle);
        let command = Command::new(job, become_user, filter, asks)?;
        Ok(Self {
            stage: c_string(stage.directory.as_os_str())?,
            overlay: stage.overlay_options(),
            hostname: job.hostname.as_bytes().to_vec(),
            network: job.network,
            mounts: stage
                .mounts
                .iter()
                .map(|mount| PlannedMount::new(mount, &job.user, supervised))
                .collect::<Result<_, _>>()?,
            has_groups: !supervised,
            command,
        })
    }
}

/// How many files the command may open: at first, and at most.
pub(crate) fn open_files() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_OPEN_FILES).min(MOST_OPEN_FILES);
    (OPEN_FILES.min(most), most)
}

impl Command {
    /// Plans the command of a job.
    pub(crate) fn new(
        job: &Job,
        become_user: BecomeUser,
        filter: Vec<sock_filter>,
        asks: bool,
    ) -> Result<Self, RunError> {
        let (current, most) = open_files();
        Ok(Self {
            directory: c_string(job.directory.as_os_str())?,
            on_terminal: matches!(job.stdin, Stdin::Terminal(_)),
            programs: programs(job)?,
            arguments: Strings::new(job.argv.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?),
            environment: Strings::new(job.env.iter().map(variable).collect::<Result<_, _>>()?),
            open_files: Rlimit { current: Some(current), maximum: Some(most) },
            become_user,
            filter,
            asks,
        })
    }
}

impl PlannedMount {
    fn new(mount: &StagedMount, user: &User, supervised: bool) -> Result<Self, RunError> {
        let source = match &mount.source {
            MountSource::Path(path) => PlannedSource::Path(c_string(path.as_os_str())?),
            MountSource::Memory { size } => {
                PlannedSource::Memory { size: size.map(|size| c_string(OsStr::new(&size.to_string()))).transpose()? }
            }
            MountSource::File { content, mode, owner } => {
                let (uid, gid) = owner.unwrap_or((user.uid, user.gid));
                PlannedSource::File {
                    content: content.clone(),
                    mode: Mode::from_raw_mode(mode & 0o7777),
                    owner: (!supervised).then(|| (Uid::from_raw(uid), Gid::from_raw(gid))),
                    record: Record { uid, gid, ..Record::default() }.encode(),
                }
            }
        };
        let target = c_string(mount.target.as_path().as_os_str())?;
        Ok(Self { source, target, read_only: mount.read_only })
    }
}

pub(crate) fn c_string(text: &OsStr) -> Result<CString, RunError> {
    CString::new(text.as_bytes()).map_err(|_| RunError::Nul { text: text.to_os_string() })
}

fn variable((name, value): &(OsString, OsString)) -> Result<CString, RunError> {
    let mut text = name.clone();
    text.push("=");
    text.push(value);
    c_string(&text)
}

/// Where the program may be: as it is written, or in each directory of the command's `PATH`.
fn programs(job: &Job) -> Result<Vec<CString>, RunError> {
    let name = job.argv.first().filter(|name| !name.is_empty()).ok_or(RunError::NoProgram)?;
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(name)?]);
    }
    let path = job.env.iter().rev().find(|(variable, _)| variable == "PATH").map(|(_, value)| value.as_bytes());
    let directories = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let candidate = |directory: &[u8]| {
        let directory = if directory.is_empty() { b"." } else { directory };
        c_string(OsStr::from_bytes(&[directory, b"/", name.as_bytes()].concat()))
    };
    directories.split(|byte| *byte == b':').map(candidate).collect()
}
