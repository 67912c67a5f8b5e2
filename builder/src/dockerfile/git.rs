//! Git repositories as sources of `ADD` and as contexts: a checkout of one commit.
//!
//! The machine's own `git` does the work. It asks nobody anything, reads no configuration of the user or the system, runs
//! no hook and no filter, and speaks only the protocols in `PROTOCOLS`, submodules included. What it gets is bounded, and
//! belongs to a commit whose id it checks.

mod address;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use sandbox::Hidden;
use spec::dockerfile::IgnoreRules;
use url::Url;

use self::address::is_id;
pub use self::address::{GitAddress, is_part_of_id};
use super::context::Context;
use super::shelf::{path_of, resolve};

/// What git may speak, in the form of `GIT_ALLOW_PROTOCOL`.
const PROTOCOLS: &str = "https:http:ssh:git";
/// The longest that one command may take.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// How often a command is looked after.
const PERIOD: Duration = Duration::from_millis(20);
/// How often its disk is looked after.
const DISK_PERIOD: Duration = Duration::from_secs(2);
/// What a repository and its checkout may take.
const LARGEST: u64 = 16 << 30;
/// No list of references is larger.
const LARGEST_LIST: u64 = 64 << 20;
/// What is shown of what git says.
const SHOWN: u64 = 2048;

/// Runs git for one build.
pub struct Git<'a> {
    /// Set when somebody asks to stop.
    pub interrupt: &'a AtomicBool,
    /// The socket of the agent that keys are asked from.
    pub agent: Option<&'a Path>,
    /// The token or header by which a server over HTTP knows us: the secrets that BuildKit knows by these names.
    pub authorization: Option<Authorization>,
}

/// How a server over HTTP knows us.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// The secret `GIT_AUTH_TOKEN`.
    Token(Hidden),
    /// The secret `GIT_AUTH_HEADER`: the value of a header.
    Header(Hidden),
}

impl Authorization {
    /// What the build was given.
    pub fn of(secrets: &crate::secrets::Secrets) -> Option<Self> {
        let header = secrets.find("GIT_AUTH_HEADER").cloned().map(Self::Header);
        header.or_else(|| secrets.find("GIT_AUTH_TOKEN").cloned().map(Self::Token))
    }

    fn header(&self) -> String {
        let text = |hidden: &Hidden| String::from_utf8_lossy(hidden.reveal()).trim().to_owned();
        match self {
            Self::Header(value) => format!("Authorization: {}", text(value)),
            Self::Token(token) => {
                let pair = format!("x-access-token:{}", text(token));
                format!("Authorization: basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
        }
    }
}

impl Git<'_> {
    /// The commit that an address means now.
    pub fn commit(&self, address: &GitAddress, scratch: &Path) -> io::Result<String> {
        let reference = address.reference.as_deref().unwrap_or("HEAD");
        let id = if is_id(reference) { reference.to_owned() } else { self.look_up(address, reference, scratch)? };
        let id = id.to_ascii_lowercase();
        match &address.commit {
            Some(wanted) if !id.starts_with(&wanted.to_ascii_lowercase()) => {
                let text = format!("`{reference}` of {} is the commit {id}, and should be {wanted}", address.shown());
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            _ => Ok(id),
        }
    }

    fn look_up(&self, address: &GitAddress, reference: &str, scratch: &Path) -> io::Result<String> {
        let peeled = format!("{reference}^{{}}");
        let listed = self.run(scratch, address, &["ls-remote", "--", &address.remote, reference, &peeled])?;
        let listed: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        // As for `git checkout`, a branch goes before a tag; of a tag with a text of its own, what it stands at.
        let names = [
            reference.to_owned(),
            format!("refs/heads/{reference}"),
            format!("refs/tags/{reference}^{{}}"),
            format!("refs/tags/{reference}"),
        ];
        let exactly = [format!("{reference}^{{}}")];
        let found = exactly.iter().chain(&names).find_map(|name| listed.iter().find(|(_, known)| known == name));
        let id = found.map(|(id, _)| (*id).to_owned()).filter(|id| is_id(id));
        id.ok_or_else(|| {
            let text = format!("{} has no branch or tag `{reference}`", address.shown());
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    /// Puts a commit into the new directory `place`, without `.git` unless that is to be kept.
    pub fn check_out(&self, address: &GitAddress, commit: &str, place: &Path, keep: bool) -> io::Result<()> {
        fs::create_dir(place)?;
        let run = |arguments: &[&str]| self.run(place, address, arguments);
        // No template, so no hooks. The format of ids is the length of this one.
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        run(&["init", "--quiet", "--template=", "--initial-branch=main", format])?;
        self.fetch(address, commit, place, keep)?;
        run(&["checkout", "--quiet", "--force", "--detach", commit])?;
        if address.submodules && fs::symlink_metadata(place.join(".gitmodules")).is_ok() {
            run(&["config", "remote.origin.url", &address.shown()])?;
            run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])?;
        }
        match keep {
            true => self.make_the_same_everywhere(address, place),
            false => remove_git(place),
        }
    }

    /// Checks out what an address means now, and gives the directory that it names, which is inside of `place`.
    pub fn context(&self, address: &GitAddress, place: &Path, keep: bool) -> io::Result<PathBuf> {
        fs::create_dir_all(place)?;
        let commit = self.commit(address, place)?;
        let whole = place.join("context");
        self.check_out(address, &commit, &whole, keep || address.keep_git_directory == Some(true))?;
        inside(&whole, &address.directory)
    }

    /// Not every server gives a commit by its id alone, nor without its history: then all that it has is fetched.
    fn fetch(&self, address: &GitAddress, commit: &str, place: &Path, keep: bool) -> io::Result<()> {
        // A pack is whatever the server makes of it; objects alone are always the same.
        let limit = if keep { "fetch.unpackLimit=1000000000" } else { "fetch.unpackLimit=100" };
        let fetch = ["-c", limit, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        let shallow = [&fetch[..], &["--depth=1", "--", &address.remote, commit]].concat();
        let alone = match self.run(place, address, &shallow) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            done => done,
        };
        if alone.is_err() {
            let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
            let everything = [&fetch[..], &["--", &address.remote], &all].concat();
            self.run(place, address, &everything)?;
        }
        let object = format!("{commit}^{{commit}}");
        self.run(place, address, &["cat-file", "-e", &object])
            .map(drop)
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("{} has no commit {commit}", address.shown())))
    }

    /// What git writes down of the time and the place of a checkout is taken out of a `.git` that is kept.
    fn make_the_same_everywhere(&self, address: &GitAddress, place: &Path) -> io::Result<()> {
        self.run(place, address, &["config", "remote.origin.url", &address.shown()])?;
        for name in ["FETCH_HEAD", "ORIG_HEAD", "index", "logs"] {
            remove(&place.join(".git").join(name))?;
        }
        self.run(place, address, &["read-tree", "HEAD"]).map(drop)
    }

    /// Runs git in a directory, and gives what it says.
    fn run(&self, directory: &Path, address: &GitAddress, arguments: &[&str]) -> io::Result<String> {
        let (mut output, mut problems) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = self.command(directory, address);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(problems.try_clone()?);
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let text = "this needs the program `git`, which is not installed here: install it, or take an archive of \
                            the repository instead";
                io::Error::new(io::ErrorKind::NotFound, text)
            }
            kind => io::Error::new(kind, format!("git cannot be started: {error}")),
        })?;
        let watched = Watched { child, directory, interrupt: self.interrupt };
        if watched.wait()? {
            let mut text = String::new();
            output.seek(SeekFrom::Start(0))?;
            output.take(LARGEST_LIST).read_to_string(&mut text)?;
            return Ok(text);
        }
        let said = end_of(&mut problems)?;
        let hint = match said.contains("ublickey") || said.contains("authentic") || said.contains("could not read") {
            true if self.agent.is_none() && self.authorization.is_none() => {
                " (give the build `--ssh default`, or a token: `--secret id=GIT_AUTH_TOKEN,src=FILE`)"
            }
            _ => "",
        };
        Err(io::Error::other(format!("git cannot read {}: {}{hint}", address.shown(), said.trim())))
    }

    fn command(&self, directory: &Path, address: &GitAddress) -> Command {
        let mut command = Command::new("git");
        // A group of its own: it ends when we say so, with all that it has started.
        command.current_dir(directory).process_group(0);
        for name in FOREIGN {
            command.env_remove(name);
        }
        let agent = self.agent.map_or(OsStr::new(""), Path::as_os_str);
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS", "true")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_CEILING_DIRECTORIES", directory.parent().unwrap_or(directory))
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_SSH_COMMAND", SSH)
            .env("SSH_AUTH_SOCK", agent)
            .env("LC_ALL", "C");
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "credential.helper="]);
        command.args(["-c", "core.logAllRefUpdates=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]);
        command.args(["-c", "core.autocrlf=false", "-c", "core.symlinks=true", "-c", "protocol.version=2"]);
        command.args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120", "-c", "advice.detachedHead=false"]);
        if let (Some(authorization), Some(scope)) = (&self.authorization, scope(&address.remote)) {
            // In the environment, since everybody may read arguments.
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", format!("http.{scope}.extraHeader"))
                .env("GIT_CONFIG_VALUE_0", authorization.header());
        }
        command
    }
}

/// Keys come from the agent that the build was given, and hosts are those that the user knows.
const SSH: &str =
    "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentityFile=none -o PermitLocalCommand=no";

/// Variables that would tell git of another repository, or of programs to run.
const FOREIGN: [&str; 22] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_TEMPLATE_DIR",
    "GIT_PROXY_COMMAND",
    "GIT_SSH",
    "GIT_SSH_VARIANT",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_EDITOR",
    "GIT_TRACE",
    "GIT_TRACE_CURL",
    "GIT_TRACE_CURL_NO_DATA",
    "GIT_SHALLOW_FILE",
    "GIT_QUARANTINE_PATH",
];

/// The server of an address over HTTP: an authorization is for nobody else.
fn scope(remote: &str) -> Option<String> {
    let url = Url::parse(remote).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(format!("{}/", url.origin().ascii_serialization()))
}

/// The place of something in a directory that somebody else has made: no link leads out of it.
pub fn inside(directory: &Path, path: &str) -> io::Result<PathBuf> {
    let shelf = Context::open(directory, IgnoreRules::default(), "")?;
    let path = path_of(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(directory.join(resolve(&shelf, &path, true)?.as_path()))
}

/// A running git.
struct Watched<'a> {
    child: Child,
    directory: &'a Path,
    interrupt: &'a AtomicBool,
}

impl Watched<'_> {
    /// Waits for its end, and says whether it succeeded.
    fn wait(mut self) -> io::Result<bool> {
        let started = Instant::now();
        let mut looked = started;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
            }
            if started.elapsed() > LONGEST {
                let text = format!("git did not come to an end in {} minutes", LONGEST.as_secs() / 60);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            if looked.elapsed() > DISK_PERIOD {
                if size_of(self.directory) > LARGEST {
                    let text = format!("the repository is larger than {LARGEST} bytes");
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
                }
                looked = Instant::now();
            }
            thread::sleep(PERIOD);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = rustix::process::Pid::from_child(&self.child);
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The bytes of all files in a directory, as far as they can be seen.
fn size_of(directory: &Path) -> u64 {
    let mut size = 0;
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for item in fs::read_dir(directory).into_iter().flatten().flatten() {
            match item.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(item.path()),
                Ok(metadata) => size += metadata.len(),
                Err(_) => {}
            }
        }
    }
    size
}

/// Removes every `.git`: that of the repository, and those of submodules.
fn remove_git(directory: &Path) -> io::Result<()> {
    let mut waiting: Vec<PathBuf> = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for item in fs::read_dir(&directory)? {
            let item = item?;
            if item.file_name() == ".git" {
                remove(&item.path())?;
            } else if item.file_type()?.is_dir() {
                waiting.push(item.path());
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The last of what git says about a problem, on one line.
fn end_of(problems: &mut File) -> io::Result<String> {
    let length = problems.seek(SeekFrom::End(0))?;
    problems.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    problems.take(SHOWN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<String> =
        text.lines().map(|line| crate::output::printable(line.trim())).filter(|line| !line.is_empty()).collect();
    Ok(lines.join("; "))
}
