//! What is to be run, and how it ended.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use layer::record::TreeDir;

/// One command in one root filesystem.
#[derive(Clone, Debug)]
pub struct Job {
    /// The layers below, the bottom one first. They are not changed.
    pub lowers: Vec<TreeDir>,
    /// Where changes go. Its root need not exist; then it starts with the attributes of the topmost lower root.
    /// Nobody else uses this tree while the command runs.
    pub upper: TreeDir,
    /// The program and its arguments. A program without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where the command starts, inside the root filesystem.
    pub directory: PathBuf,
    /// Who the command is.
    pub user: User,
    /// What it reaches.
    pub network: Network,
    /// What is seen inside beside the layers.
    pub mounts: Vec<Mount>,
    /// What `hostname` says.
    pub hostname: String,
    /// What the command reads.
    pub stdin: Stdin,
    /// Once this is true, everything is killed and the run ends with [`crate::RunError::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
}

/// Numeric ids of the command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What a command reaches on the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// A loopback interface of its own, and nothing else.
    #[default]
    None,
    /// Everything that the host reaches, with the host's `/etc/resolv.conf` and `/etc/hosts`.
    Host,
}

/// Something that is seen inside, without becoming part of the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Where, inside the root filesystem. It is made if it does not exist, and leaves no trace.
    pub target: PathBuf,
    /// Whether the command may only read it.
    pub read_only: bool,
}

/// What can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A directory or file of this machine.
    Path(PathBuf),
    /// An empty directory in memory, into which everybody may write.
    Memory {
        /// How many bytes it may hold, where there are such file systems; by default half of the machine's memory.
        size: Option<u64>,
    },
    /// A file in memory, which is never on a disk.
    File {
        /// What is in it.
        content: Hidden,
        /// Who may do what with it. It is read-only in any case.
        mode: u32,
        /// Whose it is; the command's user's, if nobody is named.
        owner: Option<(u32, u32)>,
    },
}

/// Bytes that debug output does not show, since they may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Arc<[u8]>);

impl Hidden {
    /// Hides some bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// What is hidden.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hidden({} bytes)", self.0.len())
    }
}

impl From<PathBuf> for MountSource {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

/// What a command reads.
#[derive(Clone, Default)]
pub enum Stdin {
    /// Nothing.
    #[default]
    Null,
    /// These bytes.
    Data(Vec<u8>),
    /// What is typed at this terminal, which nobody else uses. The command writes there too, so there is no output to
    /// hand over, and it controls the command: Ctrl-C ends what runs in front. See [`crate::lend_terminal`].
    Terminal(Arc<OwnedFd>),
}

impl fmt::Debug for Stdin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("Null"),
            // The data may be a secret, and debug output ends up in logs.
            Self::Data(data) => write!(formatter, "Data({} bytes)", data.len()),
            Self::Terminal(_) => formatter.write_str("Terminal"),
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Outcome {
    /// Whether it exited with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The status as a shell would say it: 128 and the signal if there was one.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(formatter, "exit status {status}"),
            Self::Killed(signal) => write!(formatter, "killed by signal {signal}"),
        }
    }
}
