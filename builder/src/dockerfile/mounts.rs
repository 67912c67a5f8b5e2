//! `RUN --mount`: what a command sees besides the image of its stage.
//!
//! As with the commands of specs, what a cache holds, the value of a secret and what an agent answers are no part of a
//! step's key; what a bind mount shows is, byte by byte. It is a copy: what a command writes there is gone afterwards.

use std::path::PathBuf;

use content::{Digest, FramedHasher};
use layer::record::{Attributes, Owners, Sidecar, TreeDir};
use layer::view::View;
use sandbox::{Hidden, MountSource};
use spec::Span;
use spec::dockerfile::{CacheSharing, IgnoreRules, MountType, RunMount};
use store::{Area, Cache, ScratchDir};

use super::pick::{self, Picked, Rules};
use super::place::{Destination, Placing};
use super::shelf::{Shelf, path_of};
use crate::error::BuildError;
use crate::pause::Pause;
use crate::steps::mounts::{Ready, SHOWN, copy_of};

/// A mount whose inputs are known.
pub struct Mount<'a> {
    kind: Kind<'a>,
    target: PathBuf,
    read_only: bool,
}

enum Kind<'a> {
    Bind { shelf: Box<dyn Shelf + 'a>, picked: Vec<Picked>, span: Span },
    Cache { id: String, attributes: Attributes, sharing: CacheSharing },
    Memory,
    Secret(Hidden),
    Agent(PathBuf),
}

/// Where mounts are made.
pub struct Place<'a> {
    /// Where caches are, and copies for a while.
    pub cache: &'a Cache,
    /// How owners are stored.
    pub owners: Owners,
    /// Names that way.
    pub owners_name: String,
    /// The date of the image.
    pub epoch: i64,
}

impl<'a> Mount<'a> {
    /// A directory or file of `shelf`, at `source` in it.
    pub fn bind(
        shelf: Box<dyn Shelf + 'a>,
        mount: &RunMount,
        target: PathBuf,
        span: &Span,
    ) -> Result<Self, BuildError> {
        let source = mount.source.as_deref().unwrap_or("/");
        let exact = path_of(source).map_err(|error| BuildError::at(span, error, ""))?;
        let rules = Rules { exclude: &IgnoreRules::default(), parents: false, unpack: false };
        // A source is no pattern here, whatever letters it has.
        let picked = pick::exactly(shelf.as_ref(), &exact, source, span, &rules)?;
        Ok(Self { kind: Kind::Bind { shelf, picked, span: span.clone() }, target, read_only: mount.read_only })
    }

    /// A directory that is kept.
    pub fn cache(mount: &RunMount, target: PathBuf) -> Self {
        let id = mount.id.clone().unwrap_or_else(|| target.display().to_string());
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let attributes = Attributes { uid, gid, mode: mount.mode.unwrap_or(0o755), ..Attributes::default() };
        Self { kind: Kind::Cache { id, attributes, sharing: mount.sharing }, target, read_only: mount.read_only }
    }

    /// A directory in memory.
    pub fn memory(mount: &RunMount, target: PathBuf) -> Self {
        debug_assert_eq!(mount.kind, MountType::Tmpfs);
        Self { kind: Kind::Memory, target, read_only: mount.read_only }
    }

    /// A secret as a file.
    pub fn secret(value: Hidden, target: PathBuf) -> Self {
        Self { kind: Kind::Secret(value), target, read_only: true }
    }

    /// The socket of an agent.
    pub fn agent(socket: PathBuf, target: PathBuf) -> Self {
        Self { kind: Kind::Agent(socket), target, read_only: true }
    }

    /// Names all that a command's result depends on.
    pub fn key(&self) -> Digest {
        let hasher = match &self.kind {
            Kind::Bind { picked, .. } => FramedHasher::new("bind").field("files", pick::key(picked).as_bytes()),
            Kind::Cache { id, .. } => FramedHasher::new("cache").field("id", id),
            Kind::Memory => FramedHasher::new("memory"),
            Kind::Secret(_) => FramedHasher::new("secret"),
            Kind::Agent(_) => FramedHasher::new("agent"),
        };
        hasher.field("target", self.target.display().to_string()).finish()
    }
}

/// Makes mounts ready. Where somebody else has a cache for itself this waits, aside from those who work.
pub fn prepare(mounts: &[Mount<'_>], place: &Place<'_>, pause: &Pause) -> Result<Ready, BuildError> {
    let mut ready = Ready::default();
    // In one order for everybody, so that two commands with the same caches do not wait for each other.
    let mut keys: Vec<Digest> = mounts.iter().filter_map(|mount| place.locked(mount)).collect();
    keys.sort_unstable();
    keys.dedup();
    let lock = |key: &Digest| place.cache.lock(Area::Mounts, *key, &mut || {});
    ready._locks = pause.aside(|| keys.iter().map(lock).collect::<Result<_, _>>())?;
    for mount in mounts {
        let source = match &mount.kind {
            Kind::Bind { shelf, picked, span } => {
                let (scratch, source) = place.copy(shelf.as_ref(), picked, span)?;
                ready._copies.push(scratch);
                source
            }
            Kind::Cache { id, attributes, .. } => place.kept(id, attributes)?.into(),
            Kind::Memory => MountSource::Memory,
            Kind::Secret(value) => MountSource::File(value.clone()),
            Kind::Agent(socket) => MountSource::Path(socket.clone()),
        };
        ready.mounts.push(sandbox::Mount { source, target: mount.target.clone(), read_only: mount.read_only });
    }
    Ok(ready)
}

impl Place<'_> {
    fn cache_key(&self, id: &str, attributes: &Attributes) -> Digest {
        let owner = format!("{}:{} {:o}", attributes.uid, attributes.gid, attributes.mode);
        FramedHasher::new("cache mount of a Dockerfile 1")
            .field("id", id)
            .field("owners", &self.owners_name)
            .field("owner", owner)
            .finish()
    }

    fn locked(&self, mount: &Mount<'_>) -> Option<Digest> {
        match &mount.kind {
            Kind::Cache { id, attributes, sharing } if *sharing != CacheSharing::Shared => {
                Some(self.cache_key(id, attributes))
            }
            _ => None,
        }
    }

    /// The directory of a cache.
    fn kept(&self, id: &str, attributes: &Attributes) -> Result<PathBuf, BuildError> {
        let key = self.cache_key(id, attributes);
        let _making = self.cache.lock(Area::Trees, key, &mut || {})?;
        let kept = self.cache.kept_directory(key, |path| {
            let tree = TreeDir::create(path)?;
            layer::record::set_attributes(self.owners, &tree.root(), attributes, &mut Sidecar::default())
        })?;
        Ok(TreeDir::new(kept).root())
    }

    /// A copy of files as they would be in an image.
    fn copy(&self, shelf: &dyn Shelf, picked: &[Picked], span: &Span) -> Result<(ScratchDir, MountSource), BuildError> {
        let to =
            Destination { target: SHOWN.to_owned(), workdir: "/", span, owner: None, mode: None, epoch: self.epoch };
        let mut placing = Placing::new(shelf, View::new(&[]), &to);
        placing.place(picked)?;
        copy_of(self.cache, self.owners, |tar| placing.write(tar))
    }
}
