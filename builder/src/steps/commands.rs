//! The step that runs a command in the image, and what every sandboxed step shares: output by lines, the last of them
//! kept for the error, and the layer made of what changed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use content::{Digest, FramedHasher};
use layer::diff::{Rules, changes};
use layer::entry::ImagePath;
use layer::record::{Owners, TreeDir};
use layer::view::View;
use layer::write::EntryWriter;
use sandbox::{Job, Mount, Network, RunError, Sandbox, Stdin, User};
use spec::{Command, ImageName};

use crate::accounts::Accounts;
use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::layers::LayerWriter;
use crate::scrub;

/// The name of the machine that commands believe to run on, the same everywhere.
const HOSTNAME: &str = "build";
/// What commands without a network find in `/etc/hosts`: scripts ask for the address of their machine.
const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.0.1\tbuild\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// How many of a command's last lines an error shows.
const LAST_LINES: usize = 30;
/// A longer line is cut.
const LONGEST_LINE: usize = 4096;

/// Runs commands in images.
pub struct Runner<'a> {
    /// Where they run.
    pub sandbox: &'a Sandbox,
    /// Learns of their output.
    pub observer: &'a dyn Observer,
    /// Set by whoever wants to stop.
    pub interrupt: &'a Arc<AtomicBool>,
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
            mounts: mounts(invocation.network, upper)?,
            hostname: HOSTNAME.to_owned(),
            stdin: invocation.stdin,
            interrupt: Arc::clone(self.interrupt),
        };
        let mut lines = Lines::default();
        let show = |line: &str| self.observer.observe(Event::StepOutput { image, line });
        let outcome = match self.sandbox.run(&job, &mut |bytes| lines.add(bytes, &show)) {
            Ok(outcome) => outcome,
            Err(RunError::Interrupted) => return Err(BuildError::Interrupted),
            Err(source) => return Err(BuildError::Sandbox { image: image.clone(), what: what.to_owned(), source }),
        };
        let last_lines = lines.finish(&show);
        if outcome.is_success() {
            return Ok(());
        }
        Err(BuildError::Command { image: image.clone(), what: what.to_owned(), outcome, last_lines })
    }
}

/// What is seen besides the layers: a list of hosts, where the network is not the host's.
fn mounts(network: Network, upper: &TreeDir) -> io::Result<Vec<Mount>> {
    if network == Network::Host {
        return Ok(Vec::new());
    }
    let hosts = upper.path().with_extension("hosts");
    fs::write(&hosts, HOSTS)?;
    Ok(vec![Mount { source: hosts.into(), target: "/etc/hosts".into(), read_only: true }])
}

/// Output cut into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    last: VecDeque<String>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], show: &dyn Fn(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(&part[..part.len().min(LONGEST_LINE)]);
            if part.ends_with(b"\n") || self.pending.len() > LONGEST_LINE {
                self.end_line(show);
            }
        }
    }

    fn end_line(&mut self, show: &dyn Fn(&str)) {
        let text = String::from_utf8_lossy(&self.pending);
        // A carriage return starts the line again; what counts is what stands there at the end.
        let line = text.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
        self.pending.clear();
        show(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn finish(mut self, show: &dyn Fn(&str)) -> Vec<String> {
        if !self.pending.is_empty() {
            self.end_line(show);
        }
        self.last.into()
    }
}

/// Writes what a sandboxed step changed as a layer's entries. Returns whether there was anything.
pub fn lay_changes<W: Write + Send>(
    upper: &TreeDir,
    below: &[TreeDir],
    owners: Owners,
    epoch: i64,
    layer: &mut LayerWriter<W>,
) -> io::Result<bool> {
    let keep = |path: &ImagePath, metadata: &fs::Metadata| scrub::keeps(path, metadata.is_dir());
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
pub fn key(command: &Command) -> Digest {
    let user = command.user.as_ref().map(|user| user.to_string()).unwrap_or_default();
    let workdir = command.workdir.as_ref().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let env: Vec<String> = command.env.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
    FramedHasher::new("command 3")
        // Two forms of the same command are two entries of the history.
        .field("described", describe(command))
        .list("arguments", command.line.arguments())
        .field("user", user)
        .field("workdir", workdir)
        .list("env", env)
        .field("network", if matches!(command.network, spec::Network::Host(_)) { "host" } else { "none" })
        .finish()
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
        Some((first, _)) => format!("{first} …"),
        None => described.trim().to_owned(),
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
        stdin: Stdin::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_however_it_is_cut() {
        let seen = std::sync::Mutex::new(Vec::new());
        let show = |line: &str| seen.lock().unwrap().push(line.to_owned());
        let mut lines = Lines::default();
        for part in ["one\ntw", "o\n10%\r50%\r100%\n", "", "rest"] {
            lines.add(part.as_bytes(), &show);
        }
        assert_eq!(lines.finish(&show), ["one", "two", "100%", "rest"]);
        assert_eq!(*seen.lock().unwrap(), ["one", "two", "100%", "rest"]);
    }

    #[test]
    fn only_the_last_lines_are_kept_and_long_ones_cut() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.add(format!("{number}\n").as_bytes(), &|_| {});
        }
        lines.add(&vec![b'x'; 1 << 20], &|_| {});
        let last = lines.finish(&|_| {});
        assert_eq!(last.len(), LAST_LINES);
        assert_eq!(last[0], "71");
        assert!(last[LAST_LINES - 1].len() <= LONGEST_LINE);
    }
}
