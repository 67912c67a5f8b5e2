//! Taking a rung: once, at the start of the program.

use std::io;

use layer::record::Owners;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::obstacle::Obstacle;
use crate::probe::{Maps, RungReport, Step, status_field, try_rung};
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
    /// None of them works.
    #[error("no sandbox is possible here: {}", list(reports))]
    Nothing {
        /// Each, and why not.
        reports: Vec<RungReport>,
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
            Self::Nothing { reports } => {
                let obstacles = reports.iter().filter_map(|report| Some((report.rung, report.usable.as_ref().err()?)));
                let told = obstacles.filter(|(_, obstacle)| **obstacle != Obstacle::Unsupported);
                told.map(|(rung, obstacle)| format!("for `{rung}`: {}", obstacle.fix())).collect()
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
}

/// Takes a rung. On `root` the process gets mounts of its own; on `userns-single` also a user namespace, in which it is
/// root and has all capabilities, while to the rest of the machine it is who it was.
///
/// Must be called while the process has one thread, and not twice.
pub fn enter(choice: Choice) -> Result<Sandbox, EnterError> {
    let threads = status_field("Threads").and_then(|threads| threads.parse().ok()).unwrap_or(1);
    if threads > 1 {
        return Err(EnterError::Threads { threads });
    }
    let sandbox = choose(choice)?;
    let refused = |(step, errno): (Step, Errno)| EnterError::Refused { step: step.description(), source: errno.into() };
    match sandbox.rung {
        Rung::Root => private_mounts().map_err(refused)?,
        Rung::UsernsSingle => become_root_of_one().map_err(refused)?,
        // Nothing is changed for good: each command has a root of its own.
        Rung::Chroot => {}
        Rung::Userns | Rung::None => {
            return Err(EnterError::Impossible { rung: sandbox.rung, obstacle: Obstacle::Unsupported });
        }
    }
    Ok(sandbox)
}

fn choose(choice: Choice) -> Result<Sandbox, EnterError> {
    if let Choice::Forced(rung) = choice {
        return match try_rung(rung) {
            Ok(()) => Ok(Sandbox { rung, refused: Vec::new(), forced: true }),
            Err(obstacle) => Err(EnterError::Impossible { rung, obstacle }),
        };
    }
    let mut refused = Vec::new();
    for rung in Rung::ALL {
        match try_rung(rung) {
            Ok(()) => return Ok(Sandbox { rung, refused, forced: false }),
            Err(obstacle) => refused.push(RungReport { rung, usable: Err(obstacle) }),
        }
    }
    Err(EnterError::Nothing { reports: refused })
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
            (false, false) => format!("{rung}: {}", list(&self.refused)),
        }
    }

    /// How trees store owners on this rung.
    pub fn owners(&self) -> Owners {
        match self.rung {
            Rung::Root | Rung::Userns | Rung::Chroot => Owners::Real,
            Rung::UsernsSingle | Rung::None => Owners::Recorded,
        }
    }
}
