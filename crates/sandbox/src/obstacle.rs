//! Why a rung does not work here, and what would make it work.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::probe::Step;
use crate::ranges::{self, NEEDED};

/// Why a rung is not possible on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The process may not administrate the system.
    NotPrivileged,
    /// The process belongs to another user than root.
    NotRoot {
        /// That user.
        uid: u32,
    },
    /// Root lacks rights.
    Capabilities {
        /// Their names, without `CAP_`, with commas between them.
        missing: String,
    },
    /// Only some user ids exist here, so that files cannot be given to others.
    FewIds {
        /// How many user ids are mapped.
        mapped: u64,
    },
    /// The user has too few subordinate ids.
    Ranges {
        /// The user, by name where there is one.
        user: String,
        /// Whether the user has a name.
        known: bool,
        /// How many `/etc/subuid` gives.
        uids: u64,
        /// How many `/etc/subgid` gives.
        gids: u64,
        /// The first id that neither file gives to anyone.
        first_free: u64,
    },
    /// `newuidmap` or `newgidmap` is not installed.
    NoHelper,
    /// The process was started so that setuid programs do nothing.
    NoNewPrivileges,
    /// A container keeps everything inside, setuid programs too, from changing ids.
    NoSetId,
    /// `newuidmap` or `newgidmap` is where setuid programs do nothing.
    HelperOnNosuid {
        /// The program.
        path: PathBuf,
    },
    /// `newuidmap` or `newgidmap` has lost its rights.
    HelperUnprivileged {
        /// The program.
        path: PathBuf,
    },
    /// `newuidmap` or `newgidmap` refuses.
    HelperRefused {
        /// What it says.
        said: String,
    },
    /// The machine's administrator has turned user namespaces off.
    Setting {
        /// The sysctl that does it.
        name: &'static str,
        /// What it says.
        found: String,
        /// What it has to say.
        wanted: &'static str,
    },
    /// AppArmor takes the privileges of user namespaces away.
    AppArmor,
    /// An AppArmor profile, such as that of a container, refuses.
    Profile {
        /// Its name.
        name: String,
        /// What was tried.
        step: &'static str,
    },
    /// A container's system call filter refuses.
    Seccomp {
        /// What was tried.
        step: &'static str,
    },
    /// The process runs in a `chroot`, where the kernel makes no user namespace.
    Chroot,
    /// A container hides parts of `/proc`, so that the kernel refuses to show another.
    MaskedProc,
    /// The kernel lacks something.
    Kernel {
        /// What was tried.
        step: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Anything else that the kernel refused.
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        errno: i32,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPrivileged => formatter.write_str("needs CAP_SYS_ADMIN, which this process does not have"),
            Self::NotRoot { uid } => write!(formatter, "needs user id 0, this process has {uid}"),
            Self::Capabilities { missing } => write!(formatter, "root lacks the capabilities {missing}"),
            Self::FewIds { mapped } => write!(formatter, "needs 65536 user ids, this user namespace has {mapped}"),
            Self::Ranges { user, uids, gids, .. } => {
                let (file, found) = if *uids < NEEDED { ("/etc/subuid", uids) } else { ("/etc/subgid", gids) };
                match found {
                    0 => write!(formatter, "{file} gives {user} no subordinate ids"),
                    _ => write!(formatter, "{file} gives {user} {found} subordinate ids, and {NEEDED} are needed"),
                }
            }
            Self::NoHelper => formatter.write_str("the programs newuidmap and newgidmap are not installed"),
            Self::NoNewPrivileges => {
                formatter.write_str("newuidmap cannot work: this process was started with `no new privileges`")
            }
            Self::NoSetId => formatter
                .write_str("newuidmap cannot work: CAP_SETUID and CAP_SETGID were taken away from this container"),
            Self::HelperOnNosuid { path } => {
                write!(formatter, "{} cannot work: it is on a file system mounted nosuid", path.display())
            }
            Self::HelperUnprivileged { path } => {
                write!(formatter, "{} has neither the set-user-ID bit nor a capability", path.display())
            }
            Self::HelperRefused { said } if said.is_empty() => {
                formatter.write_str("newuidmap refuses, and says nothing")
            }
            Self::HelperRefused { said } => formatter.write_str(said),
            Self::Setting { name, found, .. } => write!(formatter, "the sysctl {name} is {found}"),
            Self::AppArmor => formatter.write_str("AppArmor restricts unprivileged user namespaces"),
            Self::Profile { name, step } => write!(formatter, "the AppArmor profile {name} refuses to {step}"),
            Self::Seccomp { step } => write!(formatter, "a seccomp filter refuses to {step}"),
            Self::Chroot => formatter.write_str("the process runs in a chroot, where no user namespace can be made"),
            Self::MaskedProc => formatter.write_str("parts of /proc are hidden, so another one cannot be mounted"),
            Self::Kernel { step, needs } => write!(formatter, "the kernel cannot {step}: it needs {needs}"),
            Self::Refused { step, errno } => {
                write!(formatter, "the kernel refuses to {step}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl Obstacle {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::NotPrivileged => "run as root, or use a sandbox that needs no privileges".to_owned(),
            Self::NotRoot { .. } => {
                "run as root; in a container, start it without --user and, if its image has a user, with --user 0"
                    .to_owned()
            }
            Self::Capabilities { missing } => {
                let options = missing.split(',').map(|name| format!("--cap-add {name}")).collect::<Vec<_>>();
                format!("start the container with {}", options.join(" "))
            }
            Self::FewIds { .. } => "run outside of this user namespace, or use `userns-single`".to_owned(),
            Self::Ranges { user, known, uids, gids, first_free } => {
                ranges::grant(user, *known, [*uids, *gids], *first_free)
            }
            Self::NoHelper => "as root: apt-get install uidmap (other distributions: shadow-utils)".to_owned(),
            Self::NoNewPrivileges => "start it without `no new privileges` (Docker: --security-opt no-new-privileges, \
                                      Kubernetes: allowPrivilegeEscalation, systemd: NoNewPrivileges=)"
                .to_owned(),
            Self::NoSetId => "start the container with --cap-add=SETUID --cap-add=SETGID".to_owned(),
            Self::HelperOnNosuid { .. } => "mount that file system without the option nosuid".to_owned(),
            Self::HelperUnprivileged { path } => format!("as root: chmod u+s {}", path.display()),
            Self::HelperRefused { .. } => {
                "the ids of /etc/subuid and /etc/subgid must exist in the container, if this is one, and this process \
                 must have the ids of its user's account"
                    .to_owned()
            }
            Self::Setting { name, wanted, .. } => format!("as root: sysctl -w {name}={wanted}"),
            Self::AppArmor => "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or load an AppArmor \
                               profile for this program that contains `userns,`"
                .to_owned(),
            Self::Profile { .. } => "start the container with --security-opt apparmor=unconfined".to_owned(),
            Self::Seccomp { step } if Step::without_namespaces().any(|known| known.description() == *step) => {
                format!("start the container with a seccomp profile that allows to {step}; Docker's own does")
            }
            Self::Seccomp { .. } => "start the container with --security-opt seccomp=unconfined, or with a profile \
                                     that allows unshare, clone, mount, umount2, pivot_root and the calls fsopen, \
                                     fsconfig, fsmount, move_mount, open_tree and mount_setattr"
                .to_owned(),
            Self::Chroot => "run outside of the chroot".to_owned(),
            Self::MaskedProc => {
                "start the container with --security-opt systempaths=unconfined (podman: unmask=ALL)".to_owned()
            }
            Self::Kernel { needs, .. } => format!("use {needs}"),
            Self::Refused { .. } => {
                "look into the kernel's log, and at the security settings of the container if this is one".to_owned()
            }
        }
    }

    /// What a failed step of a probe means.
    pub(crate) fn of(step: Step, errno: Errno) -> Self {
        if matches!(step, Step::UserNamespace | Step::IdMap | Step::Namespaces)
            && let Some(obstacle) = namespaces_turned_off(errno)
        {
            return obstacle;
        }
        let denied = matches!(errno, Errno::PERM | Errno::ACCESS);
        let described = step.description();
        let mounts = matches!(step, Step::PrivateMounts | Step::Memory | Step::Overlay);
        match step {
            _ if denied && mounts && profile().is_some() => {
                Self::Profile { name: profile().unwrap_or_default(), step: described }
            }
            Step::Proc if denied && !is_filtered() => Self::MaskedProc,
            // Under AppArmor's restriction the namespace is made, but without capabilities in it.
            _ if denied && is_restricted_by_apparmor() => Self::AppArmor,
            _ if denied && is_filtered() => Self::Seccomp { step: described },
            Step::UserNamespace if errno == Errno::PERM => Self::Chroot,
            Step::Overlay => Self::Kernel { step: described, needs: "Linux 5.12 with overlayfs" },
            Step::Notify => Self::Kernel { step: described, needs: "Linux 5.14 with seccomp filters" },
            _ if matches!(errno, Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                Self::Kernel { step: described, needs: "Linux 5.14 with all namespaces" }
            }
            _ => Self::Refused { step: described, errno: errno.raw_os_error() },
        }
    }
}

fn namespaces_turned_off(errno: Errno) -> Option<Obstacle> {
    let off = |name: &'static str, path: &str, wanted| {
        let found = setting(path)?;
        (found == "0").then_some(Obstacle::Setting { name, found, wanted })
    };
    let limits = "/proc/sys/user";
    if errno == Errno::NOSPC {
        let names = [
            ("user.max_user_namespaces", "max_user_namespaces"),
            ("user.max_mnt_namespaces", "max_mnt_namespaces"),
            ("user.max_pid_namespaces", "max_pid_namespaces"),
            ("user.max_net_namespaces", "max_net_namespaces"),
        ];
        return names.into_iter().find_map(|(name, file)| off(name, &format!("{limits}/{file}"), "15000"));
    }
    off("kernel.unprivileged_userns_clone", "/proc/sys/kernel/unprivileged_userns_clone", "1")
        .or_else(|| off("user.max_user_namespaces", "/proc/sys/user/max_user_namespaces", "15000"))
}

fn is_restricted_by_apparmor() -> bool {
    setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1")
}

/// The AppArmor profile that is enforced on this process.
fn profile() -> Option<String> {
    let paths = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let label = paths.into_iter().find_map(setting)?;
    Some(label.strip_suffix(" (enforce)")?.to_owned())
}

/// Whether a seccomp filter already watches this process.
fn is_filtered() -> bool {
    crate::probe::status_field("Seccomp").as_deref() == Some("2")
}

fn setting(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_obstacle_says_what_to_do() {
        let obstacles = [
            Obstacle::NotPrivileged,
            Obstacle::NotRoot { uid: 1000 },
            Obstacle::Capabilities { missing: "CHOWN,MKNOD".to_owned() },
            Obstacle::FewIds { mapped: 1 },
            Obstacle::Ranges { user: "u".to_owned(), known: true, uids: 0, gids: 0, first_free: 100_000 },
            Obstacle::NoHelper,
            Obstacle::NoNewPrivileges,
            Obstacle::NoSetId,
            Obstacle::HelperOnNosuid { path: "/usr/bin/newuidmap".into() },
            Obstacle::HelperUnprivileged { path: "/usr/bin/newuidmap".into() },
            Obstacle::HelperRefused { said: String::new() },
            Obstacle::Setting { name: "user.max_user_namespaces", found: "0".to_owned(), wanted: "15000" },
            Obstacle::AppArmor,
            Obstacle::Profile { name: "docker-default".to_owned(), step: "mount overlayfs" },
            Obstacle::Seccomp { step: "make a user namespace" },
            Obstacle::Chroot,
            Obstacle::MaskedProc,
            Obstacle::Kernel { step: "mount overlayfs", needs: "Linux 5.12 with overlayfs" },
            Obstacle::Refused { step: "map ids", errno: 1 },
        ];
        for obstacle in obstacles {
            assert!(!obstacle.to_string().is_empty() && !obstacle.fix().is_empty(), "{obstacle:?}");
        }
    }
}
