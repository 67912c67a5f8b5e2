//! The setuid programs `newuidmap` and `newgidmap`, which map a range of subordinate ids in somebody's user namespace.
//!
//! They must run outside of the namespace, for a process that is in it already. So they are started before: a process
//! that waits until it is told that the namespace is there.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;

use crate::obstacle::Obstacle;
use crate::probe::{Step, status_field};
use crate::ranges::Ranges;
use crate::sys::{self, Cloned, Strings};

/// Where they are when they are not in `PATH`, as in scripts that have none.
const DIRECTORIES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/bin", "/run/wrappers/bin"];

/// What the waiting process exits with if a helper is not there.
const MISSING: i32 = 127;

/// More than this of what a helper says is cut off.
const LONGEST_WORDS: usize = 400;

/// The helpers, ready to be told.
pub(crate) struct Helpers {
    waiting: OwnedFd,
    /// Says that the namespace is there.
    go: OwnedFd,
    /// What they say.
    words: OwnedFd,
}

impl Helpers {
    /// Starts the process that will call them for `target`.
    pub(crate) fn start(target: Pid, ranges: &Ranges) -> Result<Self, Errno> {
        let [users, groups] = [("newuidmap", &ranges.users), ("newgidmap", &ranges.groups)]
            .map(|(name, map)| Command::new(name, target, map).ok_or(Errno::INVAL));
        let commands = [users?, groups?];
        let (told, go) = pipe_with(PipeFlags::CLOEXEC)?;
        let (words, said) = pipe_with(PipeFlags::CLOEXEC)?;
        match sys::clone_process(0)? {
            Cloned::Child => {
                // Otherwise the end of the other process would not be seen.
                drop((go, words));
                sys::exit_now(wait_and_call(&told, &said, &commands))
            }
            Cloned::Parent { pidfd, .. } => Ok(Self { waiting: pidfd, go, words }),
        }
    }

    /// Maps the ids; the namespace is there.
    pub(crate) fn map(self) -> Result<(), Obstacle> {
        let Self { waiting, go, words } = self;
        let refused = |errno| Obstacle::of(Step::IdMap, errno);
        rustix::io::write(&go, b"g").map_err(refused)?;
        let mut text = Vec::new();
        let mut piece = [0; LONGEST_WORDS];
        loop {
            match rustix::io::retry_on_intr(|| rustix::io::read(&words, &mut piece)).map_err(refused)? {
                0 => break,
                length => text.extend_from_slice(&piece[..length]),
            }
        }
        text.truncate(LONGEST_WORDS);
        match sys::reap_status(&waiting).map_err(refused)? {
            Some(0) => Ok(()),
            Some(MISSING) => Err(Obstacle::NoHelper),
            _ => Err(why(String::from_utf8_lossy(&text).trim().to_owned())),
        }
    }
}

/// One helper, in the form in which it is executed.
struct Command {
    name: CString,
    places: Vec<CString>,
    arguments: Strings,
}

impl Command {
    fn new(name: &str, target: Pid, map: &[String]) -> Option<Self> {
        let text = |text: &str| CString::new(text).ok();
        let target = target.as_raw_nonzero().to_string();
        let words = [name, &target].into_iter().chain(map.iter().map(String::as_str));
        Some(Self {
            name: text(name)?,
            places: DIRECTORIES.iter().map(|directory| text(&format!("{directory}/{name}"))).collect::<Option<_>>()?,
            arguments: Strings::new(words.map(text).collect::<Option<_>>()?),
        })
    }

    /// Becomes the helper. Returns what to exit with if that is impossible.
    fn execute(&self) -> i32 {
        // A directory of `PATH` that may not be searched says that access is denied.
        let is_missing = |errno| matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS);
        let mut errno = sys::execute_from_path(&self.name, &self.arguments);
        for place in &self.places {
            if !is_missing(errno) {
                return 1;
            }
            errno = sys::execute_with_environment(place, &self.arguments);
        }
        if is_missing(errno) { MISSING } else { 1 }
    }
}

/// The waiting process. The builder may have threads when it is made: this allocates nothing.
fn wait_and_call(told: &OwnedFd, said: &OwnedFd, commands: &[Command; 2]) -> i32 {
    let mut word = [0];
    // Nobody will say it any more once the other process has ended.
    if rustix::io::retry_on_intr(|| rustix::io::read(told, &mut word)) != Ok(1) {
        return 1;
    }
    for command in commands {
        match sys::clone_process(0) {
            Ok(Cloned::Child) => {
                let _ = rustix::stdio::dup2_stderr(said.as_fd());
                sys::exit_now(command.execute())
            }
            Ok(Cloned::Parent { pidfd, .. }) => match sys::reap_status(&pidfd) {
                Ok(Some(0)) => {}
                Ok(Some(MISSING)) => return MISSING,
                _ => return 1,
            },
            Err(_) => return 1,
        }
    }
    0
}

/// Why helpers that are there did not do it; `said` is what they say.
fn why(said: String) -> Obstacle {
    if status_field("NoNewPrivs").as_deref() == Some("1") {
        return Obstacle::NoNewPrivileges;
    }
    let bounds = status_field("CapBnd").and_then(|bits| u64::from_str_radix(&bits, 16).ok());
    let bounds = bounds.map(CapabilitySet::from_bits_retain);
    if bounds.is_some_and(|bounds| !bounds.contains(CapabilitySet::SETUID | CapabilitySet::SETGID)) {
        return Obstacle::NoSetId;
    }
    for name in ["newuidmap", "newgidmap"] {
        let Some(path) = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
        else {
            continue;
        };
        if is_on_nosuid(&path) {
            return Obstacle::HelperOnNosuid { path };
        }
        if !is_privileged(&path) {
            return Obstacle::HelperUnprivileged { path };
        }
    }
    Obstacle::HelperRefused { said }
}

fn is_on_nosuid(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
}

/// Whether a program has more rights than who starts it: by a set-user-ID bit, or as some distributions do by a file
/// capability.
fn is_privileged(path: &Path) -> bool {
    let set_id = fs::metadata(path).is_ok_and(|file| file.uid() == 0 && file.permissions().mode() & 0o4000 != 0);
    let mut value = [0; 64];
    set_id || rustix::fs::getxattr(path, layer::record::CAPABILITY_XATTR, &mut value).is_ok()
}
