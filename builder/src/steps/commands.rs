//! The step that runs a command in the image, and what every sandboxed step shares: output by lines, the last of them
//! kept for the error, a shell where one failed, and the layer made of what changed.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use content::{Digest, FramedHasher};
use layer::diff::{Rules, changes};
use layer::entry::ImagePath;
use layer::record::{Owners, TreeDir};
use layer::view::View;
use layer::write::EntryWriter;
use sandbox::{Job, Mount, Network, Outcome, RunError, Sandbox, Stdin, User};
use spec::{Command, ImageName};

use crate::accounts::Accounts;
use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::image::DEFAULT_PATH;
use crate::layers::LayerWriter;
use crate::output::{Lines, printable};
use crate::pause::Pause;
use crate::scrub;
use crate::secrets::Redactor;
use crate::steps::mounts::Mounts;

/// The name of the machine that commands believe to run on, the same everywhere.
const HOSTNAME: &str = "build";
/// What commands without a network find in `/etc/hosts`: scripts ask for the address of their machine.
const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.0.1\tbuild\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Shells for people, the best one first.
const SHELLS: [&str; 2] = ["bin/bash", "bin/sh"];

/// What the shell in a failed step shows before each line.
const PROMPT: &str = "(failed) # ";

/// Runs commands in images.
#[derive(Clone, Copy)]
pub struct Runner<'a> {
    /// Where they run.
    pub sandbox: &'a Sandbox,
    /// Learns of their output.
    pub observer: &'a dyn Observer,
    /// Set by whoever wants to stop.
    pub interrupt: &'a Arc<AtomicBool>,
    /// Finds secrets in that output.
    pub redactor: &'a Redactor,
    /// Lets somebody look around where a command failed.
    pub look_around: Option<&'a dyn LookAround>,
    /// Makes the others wait meanwhile.
    pub pause: &'a Pause,
}

/// Somebody who wants to see what a step that failed has left.
pub trait LookAround: Sync {
    /// What the shell is told of the terminal: `TERM` and the like.
    fn environment(&self) -> Vec<(OsString, OsString)>;

    /// A step failed, and nothing else is done until this returns. `shell` runs a shell in its image, on a terminal
    /// that is the shell's alone, to its end.
    fn look_around(&self, failed: &FailedStep<'_>, shell: &mut dyn FnMut(OwnedFd) -> Result<Outcome, RunError>);
}

/// A step that failed, and is still there.
pub struct FailedStep<'a> {
    /// The image.
    pub image: &'a ImageName,
    /// What was run.
    pub what: &'a str,
    /// How it ended.
    pub reason: &'a str,
    /// What it printed last.
    pub last_lines: &'a [String],
}

/// What is run, apart from where.
pub struct Invocation<'a> {
    /// The image it belongs to.
    pub image: &'a ImageName,
    /// What errors call it.
    pub what: &'a str,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub directory: PathBuf,
    /// Who it is.
    pub user: User,
    /// What it reaches.
    pub network: Network,
    /// What it sees besides the image.
    pub mounts: Vec<Mount>,
    /// What it reads.
    pub stdin: Stdin,
}

impl Runner<'_> {
    /// Runs one command over `lowers`; its changes are in `upper` afterwards.
    pub fn run(&self, invocation: Invocation<'_>, lowers: &[TreeDir], upper: &TreeDir) -> Result<(), BuildError> {
        let Invocation { image, what, .. } = invocation;
        let job = Job {
            lowers: lowers.to_vec(),
            upper: upper.clone(),
            argv: invocation.argv,
            env: invocation.env,
            directory: invocation.directory,
            user: invocation.user,
            network: invocation.network,
            mounts: [hosts(invocation.network, upper)?, invocation.mounts].concat(),
            hostname: HOSTNAME.to_owned(),
            stdin: invocation.stdin,
            interrupt: Arc::clone(self.interrupt),
        };
        let mut lines = Lines::new(self.redactor);
        let show = |line: &str| self.observer.observe(Event::StepOutput { image, line });
        let ended = self.sandbox.run(&job, &mut |bytes| lines.add(bytes, &show));
        let last_lines = lines.finish(&show);
        let failed = |reason: &str| self.look_around(job, &FailedStep { image, what, reason, last_lines: &last_lines });
        match ended {
            Ok(outcome) if outcome.is_success() => Ok(()),
            Ok(outcome) => {
                failed(&outcome.to_string())?;
                Err(BuildError::Command { image: image.clone(), what: what.to_owned(), outcome, last_lines, log: None })
            }
            Err(RunError::Interrupted) => Err(BuildError::Interrupted),
            Err(source) => {
                if matches!(source, RunError::Program { .. }) {
                    failed(&source.to_string())?;
                }
                Err(BuildError::Sandbox { image: image.clone(), what: what.to_owned(), source })
            }
        }
    }

    /// Opens a shell where a command failed, if somebody wants one: the same image with the same changes, and the same
    /// user, directory, variables and mounts.
    fn look_around(&self, job: Job, failed: &FailedStep<'_>) -> Result<(), BuildError> {
        let Some(somebody) = self.look_around else { return Ok(()) };
        let trees = [job.lowers.as_slice(), std::slice::from_ref(&job.upper)].concat();
        let Some(shell) = shell_of(&View::new(&trees))? else {
            let text = format!("{}: there is no shell in the image to look around with", failed.image);
            self.observer.observe(Event::Warning(&text));
            return Ok(());
        };
        let mut job = Job { argv: vec![format!("/{shell}").into(), "-i".into()], stdin: Stdin::Null, ..job };
        let told = somebody.environment().into_iter().chain([("PS1".into(), PROMPT.into())]);
        for (name, value) in told {
            job.env.retain(|(known, _)| *known != name);
            job.env.push((name, value));
        }
        self.pause.alone(|| {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(BuildError::Interrupted);
            }
            somebody.look_around(failed, &mut |terminal| {
                let job = Job { stdin: Stdin::Terminal(Arc::new(terminal)), ..job.clone() };
                self.sandbox.run(&job, &mut |_| {})
            });
            Ok(())
        })
    }
}

/// The best shell that an image has.
fn shell_of(view: &View<'_>) -> io::Result<Option<&'static str>> {
    for shell in SHELLS {
        let path = ImagePath::parse(shell).expect("a constant path is valid");
        if view.lookup(&view.resolve(&path)?)?.is_some_and(|found| found.metadata.is_file()) {
            return Ok(Some(shell));
        }
    }
    Ok(None)
}

/// What is seen besides the layers: a list of hosts, where the network is not the host's.
fn hosts(network: Network, upper: &TreeDir) -> io::Result<Vec<Mount>> {
    if network == Network::Host {
        return Ok(Vec::new());
    }
    let hosts = upper.path().with_extension("hosts");
    fs::write(&hosts, HOSTS)?;
    Ok(vec![Mount { source: hosts.into(), target: "/etc/hosts".into(), read_only: true }])
}

/// What of a step's changes becomes part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// All but what [`scrub`] leaves behind.
    Scrubbed,
    /// Everything, as users of Dockerfiles expect it.
    Everything,
}

/// Writes what a sandboxed step changed as a layer's entries. Returns whether there was anything.
pub fn lay_changes<W: Write + Send>(
    upper: &TreeDir,
    below: &[TreeDir],
    owners: Owners,
    (epoch, leaving): (i64, Leaving),
    layer: &mut LayerWriter<W>,
) -> io::Result<bool> {
    let keep = |path: &ImagePath, metadata: &fs::Metadata| {
        leaving == Leaving::Everything || scrub::keeps(path, metadata.is_dir())
    };
    let since = born(upper)?;
    let changed = changes(upper, below, owners, &Rules { since, latest: epoch, keep: &keep })?;
    let bytes = changed.iter().map(|change| change.entry.kind.size()).sum();
    layer.entries(bytes, |writer| layer::diff::write(&changed, &mut EntryWriter::new(writer)))?;
    Ok(!changed.is_empty())
}

/// When a tree was made, in seconds since 1970, by the clock that its files have their times from: that is when the
/// step began. On a file system that does not remember, no time counts as the step's.
fn born(upper: &TreeDir) -> io::Result<i64> {
    let born = match fs::metadata(upper.path())?.created() {
        Ok(time) => time,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(i64::MAX),
        Err(error) => return Err(error),
    };
    let seconds = born.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Names everything that a command's result depends on, apart from the image below it and its environment.
pub fn key(command: &Command, mounts: &Mounts<'_>) -> Digest {
    let user = command.user.as_ref().map(|user| user.to_string()).unwrap_or_default();
    let workdir = command.workdir.as_ref().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let env: Vec<String> = command.env.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
    let hasher = FramedHasher::new("command 3")
        // Two forms of the same command are two entries of the history.
        .field("described", describe(command))
        .list("arguments", command.line.arguments())
        .field("user", user)
        .field("workdir", workdir)
        .list("env", env)
        .field("network", if matches!(command.network, spec::Network::Host(_)) { "host" } else { "none" });
    match mounts.key() {
        Some(mounts) => hasher.field("mounts", mounts.as_bytes()).finish(),
        None => hasher.finish(),
    }
}

/// What the history says of a command.
pub fn describe(command: &Command) -> String {
    match &command.line.value {
        spec::CommandLine::Shell(line) => format!("RUN {line}"),
        spec::CommandLine::Exec(arguments) => format!("RUN {arguments:?}"),
    }
}

/// The first line of a description, for messages.
pub fn brief(described: &str) -> String {
    match described.trim().split_once('\n') {
        Some((first, _)) => format!("{} …", printable(first)),
        None => printable(described.trim()),
    }
}

/// Makes a spec's command into something to run. `env` is the image's environment, as `NAME=value`.
pub fn invocation<'a>(
    image: &'a ImageName,
    what: &'a str,
    command: &Command,
    (env, workdir): (&[String], &str),
    view: &View<'_>,
) -> Result<Invocation<'a>, BuildError> {
    let ids = match &command.user {
        None => crate::accounts::Ids { home: "/root".to_owned(), ..Default::default() },
        Some(user) => Accounts::read(view)?.ids(user).map_err(|error| {
            BuildError::at(&user.span, error.to_string(), "install the package that makes it first")
        })?,
    };
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        variables.retain(|(known, _)| known != name);
        variables.push((name.into(), value.into()));
    };
    // What engines assume of an image that has none.
    set("PATH", DEFAULT_PATH);
    set("HOME", &ids.home);
    for (name, value) in env.iter().filter_map(|line| line.split_once('=')) {
        set(name, value);
    }
    for entry in &command.env {
        set(entry.key.as_str(), &entry.value);
    }
    let directory = command.workdir.as_ref().map_or(workdir, |path| path.as_str());
    Ok(Invocation {
        image,
        what,
        argv: command.line.arguments().into_iter().map(Into::into).collect(),
        env: variables,
        directory: if directory.is_empty() { "/".into() } else { directory.into() },
        user: User { uid: ids.uid, gid: ids.gid, groups: ids.groups },
        network: if matches!(command.network, spec::Network::Host(_)) { Network::Host } else { Network::None },
        mounts: Vec::new(),
        stdin: Stdin::Null,
    })
}
