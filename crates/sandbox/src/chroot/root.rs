//! The copied root of a run.
//!
//! ```text
//! <upper>/work/root   what the command sees as `/`
//! ```
//!
//! `/dev`, `/proc` and `/sys`, and what the job mounts, are put into the copy after it is made, and never looked at
//! when changes are collected: whatever the trees have in their places is not copied, and stays as it is.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use layer::entry::ImagePath;
use layer::view::View;
use rustix::fs::{CWD, FileType, Mode};

use super::collect::{Collector, Form, bring_back, make_whiteout};
use super::copy::{Copier, Inode, Seen, State, copy_node, look_again, set_times};
use super::proc;
use crate::job::{Job, Mount, MountSource};
use crate::run::{RunError, unfit_filesystem};
use crate::stage::{host_files, make_plain_directory, make_upper_root, remove};

/// Places that are the same in every run.
const OWN: [&str; 3] = ["dev", "proc", "sys"];

/// Long enough for a file system to give a later time to whatever happens after: its clock may tick a hundred times a
/// second.
const TICK: Duration = Duration::from_millis(12);

/// A copied root, removed when this is dropped.
pub(crate) struct Root {
    /// The upper tree's work directory.
    work: PathBuf,
    seen: Seen,
    /// The files that have several names.
    names: HashSet<Inode>,
    covered: HashSet<PathBuf>,
    placed: Vec<Placed>,
    /// Directories that were made for mounts, above first.
    made: Vec<PathBuf>,
}

/// A mount that is a copy.
struct Placed {
    /// Below the root.
    target: PathBuf,
    from: Source,
    read_only: bool,
}

/// What it is a copy of.
enum Source {
    Directory(PathBuf, Box<Seen>, HashSet<Inode>),
    File(PathBuf, State),
    Memory,
}

impl Root {
    /// Copies the trees of a job, and puts beside them what else is seen inside. What an interrupted run has left is
    /// removed.
    pub(crate) fn prepare(job: &Job) -> Result<Self, RunError> {
        let work = job.upper.work();
        let prepare = |source: io::Error| match source.kind() {
            io::ErrorKind::Interrupted if job.interrupt.load(Ordering::Relaxed) => RunError::Interrupted,
            _ => RunError::Prepare { path: job.upper.work(), source },
        };
        remove(&work).map_err(prepare)?;
        fs::create_dir(&work).map_err(prepare)?;
        // The copy is for the builder alone: among it are set-ID programs.
        fs::set_permissions(&work, fs::Permissions::from_mode(0o700)).map_err(prepare)?;
        let mut unfinished = Unfinished(Some(work.clone()));
        try_whiteout(job, &work)?;
        make_upper_root(job, layer::record::Owners::Real).map_err(prepare)?;
        let mounts: Vec<Mount> = host_files(job.network).into_iter().chain(job.mounts.iter().cloned()).collect();
        let targets = mounts.iter().map(|mount| target(job, mount)).collect::<Result<Vec<_>, _>>()?;
        let covered: HashSet<PathBuf> = OWN.iter().map(PathBuf::from).chain(targets.iter().cloned()).collect();
        let root = work.join("root");
        let mut seen = Copier::new(&job.interrupt, &covered).trees(&job.lowers, &job.upper, &root).map_err(prepare)?;
        let mut made = Vec::new();
        make_own_places(&root, &job.hostname).map_err(|(path, source)| RunError::Prepare { path, source })?;
        let mut placed = Vec::new();
        for (mount, target) in mounts.into_iter().zip(targets) {
            let at = mount.target.clone();
            let refused = |source: io::Error| match job.interrupt.load(Ordering::Relaxed) {
                true => RunError::Interrupted,
                false => RunError::Mount { target: at, source },
            };
            placed.push(place(job, mount, target, &root, &mut made).map_err(refused)?);
        }
        let names = look_again(&mut seen, &root).map_err(prepare)?;
        std::thread::sleep(TICK);
        unfinished.0 = None;
        Ok(Self { work, seen, names, covered, placed, made })
    }

    /// What the command sees as `/`.
    pub(crate) fn path(&self) -> PathBuf {
        self.work.join("root")
    }

    /// Copies of single files, secrets among them: they go at the latest when the builder does.
    pub(crate) fn copied_files(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.placed.iter().filter(|placed| matches!(placed.from, Source::File(..)));
        files.map(|placed| self.path().join(&placed.target))
    }

    /// Where each mount of the plan is seen.
    pub(crate) fn targets(&self) -> Vec<PathBuf> {
        self.placed.iter().map(|placed| Path::new("/").join(&placed.target)).collect()
    }

    /// Moves what the command has changed to where it belongs.
    pub(crate) fn collect(&self, job: &Job) -> Result<(), RunError> {
        for placed in self.placed.iter().rev() {
            self.take_away(placed)
                .map_err(|source| RunError::Mount { target: Path::new("/").join(&placed.target), source })?;
        }
        for directory in self.made.iter().rev() {
            // One that the command has put something into stays.
            let _ = keeping_times(directory, || fs::remove_dir(directory));
        }
        let upper = job.upper.root();
        Collector::new(Form::Overlay, (&self.path(), &upper), &self.covered, &self.names)
            .collect(&self.seen)
            .map_err(|source| RunError::Prepare { path: upper, source })
    }

    fn take_away(&self, placed: &Placed) -> io::Result<()> {
        let at = self.path().join(&placed.target);
        match &placed.from {
            Source::Directory(source, seen, names) if !placed.read_only && at.is_dir() => {
                Collector::new(Form::Plain, (&at, source), &HashSet::new(), names).collect(seen)?;
            }
            Source::File(source, seen) if !placed.read_only => bring_back(&at, source, *seen)?,
            Source::Directory(..) | Source::File(..) | Source::Memory => {}
        }
        keeping_times(&at, || remove(&at).or_else(|_| fs::remove_file(&at)))
    }
}

/// Does something to a name, and leaves the directory that it is in with the time it had: a mount leaves no trace.
fn keeping_times<T>(path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let above = path.parent().and_then(|above| Some((above, fs::symlink_metadata(above).ok()?)));
    let done = act()?;
    above.map_or(Ok(()), |(above, metadata)| set_times(above, &metadata))?;
    Ok(done)
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(Unfinished(Some(self.work.clone())));
    }
}

/// Removes a work directory.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(work) = &self.0
            && let Err(error) = remove(work)
        {
            tracing::warn!("cannot remove `{}`: {error}", work.display());
        }
    }
}

/// Finds out before the work whether the file system takes deletions: overlayfs, where containers have their files if
/// nothing else is said, does not.
fn try_whiteout(job: &Job, work: &Path) -> Result<(), RunError> {
    let at = work.join("whiteout");
    match make_whiteout(&at) {
        Ok(()) => Ok(()),
        Err(errno) => Err(match unfit_filesystem(work) {
            Some(filesystem) => RunError::UpperFilesystem { path: job.upper.path().to_path_buf(), filesystem },
            None => RunError::Prepare { path: at, source: errno.into() },
        }),
    }
}

/// Where a mount is, without symbolic links and below the root.
fn target(job: &Job, mount: &Mount) -> Result<PathBuf, RunError> {
    let find = || {
        let trees: Vec<_> = job.lowers.iter().chain([&job.upper]).cloned().collect();
        let path = ImagePath::parse(mount.target.as_os_str().as_bytes()).map_err(io::Error::other)?;
        let path = View::new(&trees).resolve(&path)?;
        if path.is_root() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(path.as_path().to_path_buf())
    };
    find().map_err(|source| RunError::Mount { target: mount.target.clone(), source })
}

fn place(job: &Job, mount: Mount, target: PathBuf, root: &Path, made: &mut Vec<PathBuf>) -> io::Result<Placed> {
    let at = root.join(&target);
    let above: Vec<&Path> = target.ancestors().skip(1).collect();
    for path in above.into_iter().rev().map(|path| root.join(path)) {
        if fs::symlink_metadata(&path).is_err() {
            keeping_times(&path, || make_plain_directory(&path))?;
            made.push(path);
        }
    }
    let from = keeping_times(&at, || put(job, mount.source, &at))?;
    Ok(Placed { target, from, read_only: mount.read_only })
}

fn put(job: &Job, source: MountSource, at: &Path) -> io::Result<Source> {
    // A mount may cover another one.
    remove(at).or_else(|_| fs::remove_file(at))?;
    Ok(match source {
        MountSource::Memory { .. } => {
            make_plain_directory(at)?;
            Source::Memory
        }
        // It may not touch a disk, and there is no other place.
        MountSource::File { .. } => {
            let text = "the sandbox `chroot` has no file system in memory for it; take another one for secrets";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        MountSource::Path(path) => {
            let path = fs::canonicalize(path)?;
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                let mut seen = Copier::new(&job.interrupt, &HashSet::new()).plain(&path, at)?;
                let names = look_again(&mut seen, at)?;
                Source::Directory(path, Box::new(seen), names)
            } else {
                copy_node(&path, &metadata, at)?;
                Source::File(path, State::of(&fs::symlink_metadata(at)?))
            }
        }
    })
}

type AtPath<T> = Result<T, (PathBuf, io::Error)>;

fn make_own_places(root: &Path, hostname: &str) -> AtPath<()> {
    for name in OWN {
        let at = root.join(name);
        make_plain_directory(&at).map_err(|error| (at, error))?;
    }
    devices(root)?;
    // Some programs take a /proc without any process for none at all.
    let process = root.join("proc/1");
    fs::create_dir(&process).map_err(|error| (process, error))?;
    let plain = [("sys/kernel/hostname", format!("{hostname}\n"))];
    let files = proc::FILES.iter().map(|(name, content)| (*name, (*content).to_owned())).chain(plain);
    for (name, content) in files {
        let at = root.join("proc").join(name);
        let above = at.parent().unwrap_or(root);
        fs::create_dir_all(above).and_then(|()| fs::write(&at, content)).map_err(|error| (at, error))?;
    }
    Ok(())
}

/// Devices, by their numbers.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn devices(root: &Path) -> AtPath<()> {
    let dev = root.join("dev");
    let node = |name: &str, kind, device| {
        let at = dev.join(name);
        let make = || {
            rustix::fs::mknodat(CWD, &at, kind, Mode::RUSR | Mode::WUSR, device)?;
            fs::set_permissions(&at, fs::Permissions::from_mode(0o666))
        };
        make().map_err(|error| (at.clone(), error))
    };
    for (name, major, minor) in NODES {
        node(name, FileType::CharacterDevice, rustix::fs::makedev(major, minor))?;
    }
    // As everywhere; what they mean, the supervisor knows.
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    for (target, name) in links {
        let at = dev.join(name);
        symlink(target, &at).map_err(|error| (at, error))?;
    }
    let shm = dev.join("shm");
    let make = || {
        fs::create_dir(&shm)?;
        fs::set_permissions(&shm, fs::Permissions::from_mode(0o1777))
    };
    make().map_err(|error| (shm.clone(), error))
}
