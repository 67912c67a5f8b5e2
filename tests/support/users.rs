//! Plain users: one with nothing but an id, and one with a range of subordinate ids.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::program::tool;

/// A user without subordinate ids.
pub const PLAIN: u32 = 65534;
/// A user who has 65536 of them, from [`FIRST_ID`], in an `/etc` that nobody else sees.
pub const RANGED: u32 = 4242;
/// The id that is 1 in that user's namespace.
pub const FIRST_ID: u32 = 300_000;

/// A program as a plain user.
pub fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(as_user(PLAIN)).arg(program);
    command
}

fn as_user(id: u32) -> [String; 4] {
    let id = |option: &str| format!("{option}={id}");
    [id("--reuid"), id("--regid"), "--clear-groups".to_owned(), "--inh-caps=-all".to_owned()]
}

/// The `/etc` of the user with a range.
pub struct Ranged {
    etc: TempDir,
}

impl Ranged {
    /// Copies the machine's, and adds the user and the range.
    pub fn new() -> Self {
        Self::with_first_id(FIRST_ID)
    }

    /// The same with other ids.
    pub fn with_first_id(first: u32) -> Self {
        let etc = tempfile::Builder::new().prefix("drystone-etc").tempdir().unwrap();
        tool("cp", ["-a".as_ref(), "/etc/.".as_ref(), etc.path().as_os_str()]);
        let mut accounts = fs::read_to_string("/etc/passwd").unwrap();
        accounts.push_str(&format!("stone:x:{RANGED}:{RANGED}::/nonexistent:/usr/sbin/nologin\n"));
        fs::write(etc.path().join("passwd"), accounts).unwrap();
        for name in ["subuid", "subgid"] {
            fs::write(etc.path().join(name), format!("stone:{first}:65536\n")).unwrap();
        }
        Self { etc }
    }

    /// A program as that user, in mounts of its own where this is `/etc`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc; exec setpriv \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-ec", script]).arg(self.etc.path());
        command.args(as_user(RANGED)).arg(program);
        command
    }
}

/// Gives a file or directory, and all in it, to a user.
pub fn give(path: &Path, id: u32) {
    chown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() {
        for item in fs::read_dir(path).unwrap() {
            give(&item.unwrap().path(), id);
        }
    }
}
