//! What a run needs on disk while it lasts.
//!
//! ```text
//! <upper>/work/0, 1, ...   symbolic links to the roots of the lower trees, the topmost first
//! <upper>/work/root        the skeleton: the lowest layer, with the places where things are mounted
//! <upper>/work/overlay     overlayfs' own work directory
//! <upper>/work/mount       where the overlay is mounted before it becomes the root
//! <upper>/work/memory      where file systems in memory are mounted before files of them are seen elsewhere
//! ```
//!
//! The skeleton is why a run leaves no trace of its mounts: places that the image lacks exist below all layers, where
//! nothing of them can get into the upper tree.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use layer::entry::ImagePath;
use layer::record::{self, Attributes, Owners, Sidecar, TreeDir};
use layer::view::View;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::job::{Job, Mount, MountSource, Network};
use crate::run::RunError;

/// Overlayfs takes 500 layers; one is the skeleton.
const MOST_LOWERS: usize = 499;

/// The directories of a run. They are removed when this is dropped.
pub(crate) struct Stage {
    pub(crate) directory: PathBuf,
    pub(crate) mounts: Vec<StagedMount>,
    /// The sidecars of the lower trees together; empty where owners are real.
    pub(crate) records_below: Sidecar,
    /// The upper tree's own.
    pub(crate) records: Sidecar,
    lowers: usize,
    /// Places that had to be made in the upper tree, above first.
    made: Vec<PathBuf>,
}

/// A mount whose target exists and contains no symbolic link.
pub(crate) struct StagedMount {
    pub(crate) source: MountSource,
    pub(crate) target: ImagePath,
    pub(crate) read_only: bool,
}

impl StagedMount {
    /// Where it is, seen from inside.
    pub(crate) fn seen_at(&self) -> PathBuf {
        Path::new("/").join(self.target.as_path())
    }
}

impl Stage {
    /// Makes the directories of a run; what an interrupted run has left there is removed.
    pub(crate) fn prepare(job: &Job, owners: Owners) -> Result<Self, RunError> {
        if job.lowers.len() > MOST_LOWERS {
            return Err(RunError::TooManyLowers { found: job.lowers.len(), most: MOST_LOWERS });
        }
        let directory = job.upper.work();
        let path = directory.clone();
        let prepare = |source| RunError::Prepare { path: path.clone(), source };
        remove(&directory).map_err(prepare)?;
        fs::create_dir(&directory).map_err(prepare)?;
        let directory = fs::canonicalize(&directory).map_err(prepare)?;
        let mut stage = Self {
            directory,
            mounts: Vec::new(),
            records_below: Sidecar::default(),
            records: Sidecar::default(),
            lowers: job.lowers.len(),
            made: Vec::new(),
        };
        stage.link_lowers(&job.lowers).map_err(prepare)?;
        make_upper_root(job, owners).map_err(prepare)?;
        if owners == Owners::Recorded {
            stage.records = Sidecar::load(&job.upper).map_err(prepare)?;
            for lower in &job.lowers {
                stage.records_below.absorb(Sidecar::load(lower).map_err(prepare)?);
            }
        }
        stage.make_skeleton().map_err(prepare)?;
        for mount in host_files(job.network).iter().chain(&job.mounts) {
            let staged = stage
                .make_target(job, owners, mount)
                .map_err(|source| RunError::Mount { target: mount.target.clone(), source })?;
            stage.mounts.push(staged);
        }
        Ok(stage)
    }

    /// Options that name everything relative to the stage.
    pub(crate) fn overlay_options(&self) -> CString {
        let mut lowers: String = (0..self.lowers).map(|number| format!("{number}:")).collect();
        lowers.push_str("root");
        // No redirects, so that a renamed directory is copied and its layer stands for itself; no index and no
        // metadata-only copies, because the trees are read without overlayfs; nothing is made durable.
        let options = "userxattr,redirect_dir=nofollow,index=off,metacopy=off,xino=off,volatile";
        CString::new(format!("{options},lowerdir={lowers},upperdir=../root,workdir=overlay"))
            .expect("the text above holds no NUL")
    }

    fn link_lowers(&self, lowers: &[TreeDir]) -> io::Result<()> {
        for (number, lower) in lowers.iter().rev().enumerate() {
            symlink(fs::canonicalize(lower.root())?, self.directory.join(number.to_string()))?;
        }
        Ok(())
    }

    fn make_skeleton(&self) -> io::Result<()> {
        for name in ["mount", "memory", "overlay", "root", "root/dev", "root/proc", "root/sys"] {
            make_plain_directory(&self.directory.join(name))?;
        }
        Ok(())
    }

    fn make_target(&mut self, job: &Job, owners: Owners, mount: &Mount) -> io::Result<StagedMount> {
        use std::os::unix::ffi::OsStrExt;
        let source = match &mount.source {
            MountSource::Path(path) => MountSource::Path(fs::canonicalize(path)?),
            inside @ (MountSource::Memory { .. } | MountSource::File { .. }) => inside.clone(),
        };
        let is_directory = match &source {
            MountSource::Path(path) => path.is_dir(),
            MountSource::Memory { .. } => true,
            MountSource::File { .. } => false,
        };
        // The stage is a tree of its own: its `root` is the skeleton.
        let mut trees = vec![TreeDir::new(&self.directory)];
        trees.extend(job.lowers.iter().cloned());
        trees.push(job.upper.clone());
        let view = View::new(&trees);
        let parsed = ImagePath::parse(mount.target.as_os_str().as_bytes()).map_err(io::Error::other)?;
        let target = view.resolve(&parsed)?;
        if view.lookup(&target)?.is_none() {
            make_missing(&self.directory.join("root"), &target, is_directory)?;
        }
        if view.lookup(&target)?.is_none() {
            self.make_in_upper(&view, job, owners, &target, is_directory)?;
        }
        Ok(StagedMount { source, target, read_only: mount.read_only })
    }

    /// For targets below a directory that hides the skeleton: the directories above them are copied up as overlayfs
    /// would do it, and what has to be made is removed after the run.
    fn make_in_upper(
        &mut self,
        view: &View<'_>,
        job: &Job,
        owners: Owners,
        target: &ImagePath,
        is_directory: bool,
    ) -> io::Result<()> {
        let above: Vec<ImagePath> = target.ancestors().collect();
        for path in above.iter().rev() {
            let at = job.upper.root().join(path.as_path());
            if fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_dir()) {
                continue;
            }
            match view.lookup(path)? {
                Some(below) => {
                    fs::create_dir(&at)?;
                    imitate(&at, &below.path, owners, &self.records_below)?;
                }
                None => {
                    make_plain_directory(&at)?;
                    self.made.push(at);
                }
            }
        }
        let at = job.upper.root().join(target.as_path());
        if is_directory {
            make_plain_directory(&at)?;
        } else {
            fs::File::create_new(&at)?;
        }
        self.made.push(at);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for place in self.made.iter().rev() {
            // One that the command has put something into stays.
            let _ = fs::remove_dir(place).or_else(|_| match fs::symlink_metadata(place) {
                Ok(metadata) if metadata.is_file() && metadata.len() == 0 => fs::remove_file(place),
                _ => Ok(()),
            });
        }
        if let Err(error) = remove(&self.directory) {
            tracing::warn!("cannot remove `{}`: {error}", self.directory.display());
        }
    }
}

/// Seen from inside, `/` is the upper tree's root: a fresh one takes the attributes of the one below.
pub(crate) fn make_upper_root(job: &Job, owners: Owners) -> io::Result<()> {
    let root = job.upper.root();
    if root.try_exists()? {
        return Ok(());
    }
    fs::create_dir(&root)?;
    let Some(below) = job.lowers.last().map(TreeDir::root) else {
        return fs::set_permissions(&root, fs::Permissions::from_mode(0o755));
    };
    imitate(&root, &below, owners, &Sidecar::default())
}

/// Names and addresses of the network outside.
pub(crate) fn host_files(network: Network) -> Vec<Mount> {
    if network == Network::None {
        return Vec::new();
    }
    let files = ["/etc/resolv.conf", "/etc/hosts"].into_iter().map(PathBuf::from);
    files
        .filter(|path| path.is_file())
        .map(|path| Mount { source: MountSource::Path(path.clone()), target: path, read_only: true })
        .collect()
}

fn make_missing(skeleton: &Path, target: &ImagePath, is_directory: bool) -> io::Result<()> {
    let above: Vec<ImagePath> = target.ancestors().collect();
    for path in above.iter().rev() {
        make_plain_directory(&skeleton.join(path.as_path()))?;
    }
    let at = skeleton.join(target.as_path());
    if is_directory {
        return make_plain_directory(&at);
    }
    fs::File::create(at).map(drop)
}

/// A directory as nobody's umask makes it, made long ago: if a command puts something into it, it becomes part of a
/// layer.
pub(crate) fn make_plain_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        done => done?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    set_time(path, 0, 0)
}

/// Gives a directory of the upper tree the attributes and the time of the one below it.
fn imitate(path: &Path, below: &Path, owners: Owners, records: &Sidecar) -> io::Result<()> {
    let attributes: Attributes = record::attributes(owners, below, records)?;
    // A directory carries its record itself, so nothing is written to this sidecar.
    record::set_attributes(owners, path, &attributes, &mut Sidecar::default())?;
    let metadata = fs::symlink_metadata(below)?;
    set_time(path, metadata.mtime(), metadata.mtime_nsec())
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
