//! Taking a rung: once, at the start of the program.

use std::io;

use layer::record::Owners;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::helpers::Helpers;
use crate::machine::Machines;
use crate::obstacle::Obstacle;
use crate::probe::{Maps, RungReport, Step, status_field, try_rung};
use crate::ranges::Ranges;
use crate::rung::{Choice, Rung};
use crate::sys;

/// Why the sandbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// It is too late.
    #[error("the process already has {threads} threads, but namespaces can be entered only by a process with one")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// The rung that was asked for does not work.
    #[error("the sandbox `{rung}` is not possible: {obstacle}")]
    Impossible {
        /// The rung.
        rung: Rung,
        /// Why.
        obstacle: Obstacle,
    },
    /// What worked in a trial did not work in earnest.
    #[error("cannot {step}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl EnterError {
    /// What to do about it.
    pub fn fixes(&self) -> Vec<String> {
        match self {
            Self::Threads { .. } | Self::Refused { .. } => Vec::new(),
            Self::Impossible { obstacle, .. } => vec![obstacle.fix()],
        }
    }
}

/// Why no command can be run: the rung is [`Rung::None`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRun {
    /// That rung was asked for.
    #[error("the sandbox `none` was asked for, in which nothing can be run")]
    Asked,
    /// None of the others works.
    #[error("no sandbox is possible here: {}", list(reports))]
    Nothing {
        /// Each of the others, and why not.
        reports: Vec<RungReport>,
    },
    /// The commands are programs of another machine.
    #[error("programs for {architecture} cannot be run on this machine: {why}")]
    Machine {
        /// The machine, as images call it.
        architecture: String,
        /// Why not.
        why: String,
    },
}

impl CannotRun {
    /// What to do about it.
    pub fn fixes(&self) -> Vec<String> {
        match self {
            Self::Asked => vec!["leave `--sandbox none` away".to_owned()],
            Self::Machine { .. } => vec![
                "let the kernel call an emulator: on Debian, root installs the package `qemu-user-static`".to_owned(),
                "or build for that platform only what runs nothing, or in a stage `FROM --platform=$BUILDPLATFORM`"
                    .to_owned(),
            ],
            Self::Nothing { reports } => {
                let obstacles = reports.iter().filter_map(|report| Some((report.rung, report.usable.as_ref().err()?)));
                obstacles.map(|(rung, obstacle)| format!("for `{rung}`: {}", obstacle.fix())).collect()
            }
        }
    }
}

fn list(reports: &[RungReport]) -> String {
    let told = reports.iter().filter_map(|report| Some(format!("{}: {}", report.rung, report.usable.as_ref().err()?)));
    told.collect::<Vec<_>>().join("; ")
}

/// The right to run commands. One for each process.
#[derive(Debug)]
pub struct Sandbox {
    rung: Rung,
    /// Better rungs, and why they were not taken.
    refused: Vec<RungReport>,
    forced: bool,
    /// Which ids are mapped, on the rung `userns`.
    ranges: Option<Ranges>,
    /// Machines whose programs were tried.
    pub(crate) machines: Machines,
}

/// Takes a rung. On `root` the process gets mounts of its own; on `userns` and `userns-single` also a user namespace, in
/// which it is root and has all capabilities, while to the rest of the machine it is who it was. On `none` nothing
/// changes.
///
/// Must be called while the process has one thread, and not twice; `none` does not mind either.
pub fn enter(choice: Choice) -> Result<Sandbox, EnterError> {
    let mut sandbox = choose(choice)?;
    let threads = status_field("Threads").and_then(|threads| threads.parse().ok()).unwrap_or(1);
    if threads > 1 && sandbox.rung != Rung::None {
        return Err(EnterError::Threads { threads });
    }
    let refused = |(step, errno): (Step, Errno)| EnterError::Refused { step: step.description(), source: errno.into() };
    match sandbox.rung {
        Rung::Root => private_mounts().map_err(refused)?,
        Rung::Userns => sandbox.ranges = Some(become_root_of_a_range()?),
        Rung::UsernsSingle => become_root_of_one().map_err(refused)?,
        // Nothing is changed for good: on `chroot` each command has a root of its own.
        Rung::Chroot | Rung::None => {}
    }
    Ok(sandbox)
}

fn choose(choice: Choice) -> Result<Sandbox, EnterError> {
    if let Choice::Forced(rung) = choice {
        return match try_rung(rung) {
            Ok(()) => {
                Ok(Sandbox { rung, refused: Vec::new(), forced: true, ranges: None, machines: Machines::default() })
            }
            Err(obstacle) => Err(EnterError::Impossible { rung, obstacle }),
        };
    }
    let mut refused = Vec::new();
    for rung in Rung::ALL {
        match try_rung(rung) {
            Ok(()) => return Ok(Sandbox { rung, refused, forced: false, ranges: None, machines: Machines::default() }),
            Err(obstacle) => refused.push(RungReport { rung, usable: Err(obstacle) }),
        }
    }
    // The last of them has no obstacles, so this is not reached.
    Ok(Sandbox { rung: Rung::None, refused, forced: false, ranges: None, machines: Machines::default() })
}

fn private_mounts() -> Result<(), (Step, Errno)> {
    let at = |errno| (Step::PrivateMounts, errno);
    sys::unshare(libc::CLONE_NEWNS).map_err(at)?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).map_err(at)
}

fn become_root_of_one() -> Result<(), (Step, Errno)> {
    let maps = Maps::of_this_user();
    sys::unshare(libc::CLONE_NEWUSER).map_err(|errno| (Step::UserNamespace, errno))?;
    maps.write().map_err(|errno| (Step::IdMap, errno))?;
    private_mounts()
}

fn become_root_of_a_range() -> Result<Ranges, EnterError> {
    let impossible = |obstacle| EnterError::Impossible { rung: Rung::Userns, obstacle };
    let refused =
        |step: Step| move |errno: Errno| EnterError::Refused { step: step.description(), source: errno.into() };
    let ranges = Ranges::of_this_user().map_err(impossible)?;
    let helpers = Helpers::start(rustix::process::getpid(), &ranges).map_err(refused(Step::Fork))?;
    sys::unshare(libc::CLONE_NEWUSER).map_err(refused(Step::UserNamespace))?;
    helpers.map().map_err(impossible)?;
    private_mounts().map_err(|(step, errno)| refused(step)(errno))?;
    Ok(ranges)
}

impl Sandbox {
    /// The rung that was taken.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// In one line: which rung, and why none of the better ones.
    pub fn reason(&self) -> String {
        let rung = self.rung;
        match (self.forced, self.refused.is_empty()) {
            (true, _) => format!("{rung}: asked for"),
            (false, true) => format!("{rung}: the best there is"),
            (false, false) if rung == Rung::None => format!("{rung}: nothing can be run; {}", list(&self.refused)),
            (false, false) => format!("{rung}: {}", list(&self.refused)),
        }
    }

    /// Whether commands can be run at all; [`Sandbox::run`] always fails where they cannot.
    pub fn may_run(&self) -> Result<(), CannotRun> {
        match (self.rung, self.forced) {
            (Rung::None, true) => Err(CannotRun::Asked),
            (Rung::None, false) => Err(CannotRun::Nothing { reports: self.refused.clone() }),
            _ => Ok(()),
        }
    }

    /// Names trees that can be used here: those of one name have the same files with the same owners on disk. Trees
    /// of other names may not even be readable.
    pub fn kind_of_trees(&self) -> String {
        match (self.owners(), &self.ranges) {
            (Owners::Real, _) => "real".to_owned(),
            (Owners::Recorded, _) => "recorded".to_owned(),
            (Owners::Mapped, ranges) => {
                format!("mapped {}", ranges.as_ref().map(Ranges::describe).unwrap_or_default())
            }
        }
    }

    /// How trees store owners on this rung.
    pub fn owners(&self) -> Owners {
        match self.rung {
            Rung::Root | Rung::Chroot => Owners::Real,
            Rung::Userns => Owners::Mapped,
            Rung::UsernsSingle | Rung::None => Owners::Recorded,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use layer::record::TreeDir;

    use super::*;
    use crate::{Job, Network, RunError, Stdin, User};

    #[test]
    fn none_can_be_entered_by_a_process_with_threads_and_runs_nothing() {
        // The harness of this test is a thread of its own already.
        let sandbox = enter(Choice::Forced(Rung::None)).unwrap();
        assert_eq!((sandbox.rung(), sandbox.owners()), (Rung::None, Owners::Recorded));
        assert_eq!(sandbox.reason(), "none: asked for");
        assert_eq!(sandbox.may_run(), Err(CannotRun::Asked));
        let job = Job {
            lowers: Vec::new(),
            upper: TreeDir::new("/nonexistent"),
            argv: vec!["true".into()],
            env: Vec::new(),
            directory: PathBuf::from("/"),
            user: User::default(),
            network: Network::None,
            mounts: Vec::new(),
            hostname: "build".to_owned(),
            stdin: Stdin::Null,
            interrupt: std::sync::Arc::default(),
        };
        let refused = sandbox.run(&job, &mut |_| {}).unwrap_err();
        assert!(matches!(refused, RunError::Impossible { source: CannotRun::Asked }), "{refused}");
    }

    #[test]
    fn where_nothing_works_every_rung_says_why_and_what_would_help() {
        let obstacle = |rung, obstacle| RungReport { rung, usable: Err(obstacle) };
        let refused = vec![
            obstacle(Rung::Root, Obstacle::NotPrivileged),
            obstacle(Rung::Userns, Obstacle::FewIds { mapped: 1 }),
            obstacle(Rung::UsernsSingle, Obstacle::AppArmor),
        ];
        let sandbox = Sandbox { rung: Rung::None, refused, forced: false, ranges: None, machines: Machines::default() };
        let expected = "root: needs CAP_SYS_ADMIN, which this process does not have; userns: needs 65536 user ids, \
                        this user namespace has 1; userns-single: AppArmor restricts unprivileged user namespaces";
        assert_eq!(sandbox.reason(), format!("none: nothing can be run; {expected}"));
        let why = sandbox.may_run().unwrap_err();
        assert_eq!(why.to_string(), format!("no sandbox is possible here: {expected}"));
        let fixes = why.fixes();
        assert_eq!(fixes.len(), 3, "{fixes:?}");
        assert!(fixes[0].starts_with("for `root`: run as root") && fixes[2].contains("sysctl -w kernel.apparmor"));
    }
}
