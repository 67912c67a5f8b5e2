//! `RUN --mount`: what a command sees besides the image of its stage.
//!
//! As with the commands of specs, what a cache holds, the value of a secret and what an agent answers are no part of a
//! step's key; what a bind mount shows is, byte by byte. It is a copy: what a command writes there is gone afterwards.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher};
use layer::record::{Attributes, Owners, Sidecar, TreeDir};
use layer::view::View;
use sandbox::{Hidden, MountSource};
use spec::Span;
use spec::dockerfile::{CacheSharing, IgnoreRules, MountType, RunMount};
use store::{Area, Cache, KeyLock, ScratchDir};

use super::pick::{self, Picked, Rules};
use super::place::{Destination, Placing};
use super::shelf::{Shelf, path_of};
use crate::error::BuildError;
use crate::pause::Pause;
use crate::steps::mounts::{Ready, SHOWN, copy_into, copy_of, shown_in};

/// A mount whose inputs are known.
pub struct Mount<'a> {
    kind: Kind<'a>,
    target: PathBuf,
    read_only: bool,
}

enum Kind<'a> {
    Bind { shelf: Box<dyn Shelf + 'a>, picked: Vec<Picked>, span: Span },
    Cache(Kept<'a>),
    Memory { size: Option<u64> },
    Secret { value: Hidden, mode: u32, owner: Option<(u32, u32)> },
    Agent(PathBuf),
}

/// A directory that is kept between builds.
struct Kept<'a> {
    id: String,
    attributes: Attributes,
    sharing: CacheSharing,
    /// What it begins with.
    first: Option<First<'a>>,
}

/// Files of a stage or an image.
struct First<'a> {
    shelf: Box<dyn Shelf + 'a>,
    picked: Vec<Picked>,
    span: Span,
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
        let picked = source_of(shelf.as_ref(), mount, span)?;
        Ok(Self { kind: Kind::Bind { shelf, picked, span: span.clone() }, target, read_only: mount.read_only })
    }

    /// A directory that is kept. A new one begins with the files of `shelf` at the source of the mount, if there is one.
    pub fn cache(
        mount: &RunMount,
        target: PathBuf,
        shelf: Option<Box<dyn Shelf + 'a>>,
        span: &Span,
    ) -> Result<Self, BuildError> {
        let first = shelf.map(|shelf| First::read(shelf, mount, span)).transpose()?;
        let id = mount.id.clone().unwrap_or_else(|| target.display().to_string());
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let attributes = Attributes { uid, gid, mode: mount.mode.unwrap_or(0o755), ..Attributes::default() };
        let kept = Kept { id, attributes, sharing: mount.sharing, first };
        Ok(Self { kind: Kind::Cache(kept), target, read_only: mount.read_only })
    }

    /// A directory in memory.
    pub fn memory(mount: &RunMount, target: PathBuf) -> Self {
        debug_assert_eq!(mount.kind, MountType::Tmpfs);
        Self { kind: Kind::Memory { size: mount.size }, target, read_only: mount.read_only }
    }

    /// A secret as a file. It belongs to the command's user unless the mount says another.
    pub fn secret(value: Hidden, mount: &RunMount, target: PathBuf) -> Self {
        let says = mount.uid.is_some() || mount.gid.is_some();
        let owner = says.then(|| (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)));
        let mode = mount.mode.unwrap_or(0o400);
        Self { kind: Kind::Secret { value, mode, owner }, target, read_only: true }
    }

    /// The socket of an agent.
    pub fn agent(socket: PathBuf, target: PathBuf) -> Self {
        Self { kind: Kind::Agent(socket), target, read_only: true }
    }

    /// What [`Mount::key`] names, in words.
    pub fn facts(&self) -> Vec<(String, String)> {
        let name = format!("mount {}", self.target.display());
        let (kind, files) = match &self.kind {
            Kind::Bind { picked, .. } => ("files".to_owned(), picked.as_slice()),
            Kind::Cache(Kept { id, first, .. }) => {
                (format!("the cache {id}"), first.as_ref().map_or(&[][..], |first| &first.picked))
            }
            Kind::Memory { .. } => ("in memory".to_owned(), &[][..]),
            Kind::Secret { .. } => ("a secret".to_owned(), &[][..]),
            Kind::Agent(_) => ("an SSH agent".to_owned(), &[][..]),
        };
        let files = pick::facts(files).into_iter().map(|(file, value)| (format!("{name}: {file}"), value));
        files.chain([(name.clone(), kind)]).collect()
    }

    /// Names all that a command's result depends on.
    pub fn key(&self) -> Digest {
        let hasher = match &self.kind {
            Kind::Bind { picked, .. } => FramedHasher::new("bind").field("files", pick::key(picked).as_bytes()),
            Kind::Cache(Kept { id, first, .. }) => {
                let first = first.as_ref().map(|first| pick::key(&first.picked));
                FramedHasher::new("cache").field("id", id).list("first", first.as_ref().map(Digest::as_bytes))
            }
            Kind::Memory { .. } => FramedHasher::new("memory"),
            Kind::Secret { .. } => FramedHasher::new("secret"),
            Kind::Agent(_) => FramedHasher::new("agent"),
        };
        hasher.field("target", self.target.display().to_string()).finish()
    }
}

/// Makes mounts ready. Where somebody else has a cache for itself this waits, aside from those who work.
pub fn prepare(mounts: &[Mount<'_>], place: &Place<'_>, pause: &Pause) -> Result<Ready, BuildError> {
    let mut ready = Ready::default();
    let (locks, keys) = pause.aside(|| place.lock(mounts))?;
    ready._locks = locks;
    for mount in mounts {
        let source = match &mount.kind {
            Kind::Bind { shelf, picked, span } => {
                let (scratch, source) = place.copy(shelf.as_ref(), picked, span)?;
                ready._copies.push(scratch);
                source
            }
            Kind::Cache(kept) => place.kept(kept, keys[&place.cache_key(kept)])?.into(),
            Kind::Memory { size } => MountSource::Memory { size: *size },
            Kind::Secret { value, mode, owner } => {
                MountSource::File { content: value.clone(), mode: *mode, owner: *owner }
            }
            Kind::Agent(socket) => MountSource::Path(socket.clone()),
        };
        ready.mounts.push(sandbox::Mount { source, target: mount.target.clone(), read_only: mount.read_only });
    }
    Ok(ready)
}

impl<'a> First<'a> {
    fn read(shelf: Box<dyn Shelf + 'a>, mount: &RunMount, span: &Span) -> Result<Self, BuildError> {
        let picked = source_of(shelf.as_ref(), mount, span)?;
        let is_file = picked.iter().any(|one| !one.name.is_root());
        if is_file {
            let title = format!("`{}` is not a directory", mount.source.as_deref().unwrap_or("/"));
            return Err(BuildError::at(span, title, "a cache begins with a directory of a stage or an image"));
        }
        Ok(Self { shelf, picked, span: span.clone() })
    }
}

/// What a mount takes from a shelf. Its source is no pattern, whatever letters it has.
fn source_of(shelf: &dyn Shelf, mount: &RunMount, span: &Span) -> Result<Vec<Picked>, BuildError> {
    let source = mount.source.as_deref().unwrap_or("/");
    let exact = path_of(source).map_err(|error| BuildError::at(span, error, ""))?;
    let rules = Rules { exclude: &IgnoreRules::default(), parents: false, unpack: false };
    pick::exactly(shelf, &exact, source, span, &rules)
}

/// Where the directories of caches are, by what the mounts say.
type Keys = BTreeMap<Digest, Digest>;

impl Place<'_> {
    /// Names a cache. One that begins with other files is another one.
    fn cache_key(&self, kept: &Kept<'_>) -> Digest {
        let Kept { id, attributes, first, .. } = kept;
        let owner = format!("{}:{} {:o}", attributes.uid, attributes.gid, attributes.mode);
        let first = first.as_ref().map(|first| pick::key(&first.picked));
        FramedHasher::new("cache mount of a Dockerfile 2")
            .field("id", id)
            .field("owners", &self.owners_name)
            .field("owner", owner)
            .list("first", first.as_ref().map(Digest::as_bytes))
            .finish()
    }

    /// Takes the caches of a command, each as strictly as its strictest mount asks for.
    fn lock(&self, mounts: &[Mount<'_>]) -> Result<(Vec<KeyLock>, Keys), BuildError> {
        let mut wanted: BTreeMap<Digest, CacheSharing> = BTreeMap::new();
        for mount in mounts {
            if let Kind::Cache(kept) = &mount.kind {
                let sharing = wanted.entry(self.cache_key(kept)).or_default();
                *sharing = stricter(*sharing, kept.sharing);
            }
        }
        let (mut locks, mut keys) = (Vec::new(), Keys::new());
        // In one order for everybody, so that two commands with the same caches do not wait for each other.
        for (key, sharing) in wanted {
            let (lock, place) = match sharing {
                CacheSharing::Shared => (self.cache.lock_together(Area::Mounts, key)?, key),
                CacheSharing::Locked => (self.cache.lock(Area::Mounts, key, &mut || {})?, key),
                CacheSharing::Private => self.own_cache(key)?,
            };
            locks.push(lock);
            keys.insert(key, place);
        }
        Ok((locks, keys))
    }

    /// The first of the directories of a cache that nobody else has; there are as many as were in use at once.
    fn own_cache(&self, key: Digest) -> Result<(KeyLock, Digest), BuildError> {
        let mut place = key;
        loop {
            if let Some(lock) = self.cache.try_lock(Area::Mounts, place)? {
                return Ok((lock, place));
            }
            place = FramedHasher::new("another cache 1").field("beside", place.as_bytes()).finish();
        }
    }

    /// The directory of a cache, with what it begins with if it is new.
    fn kept(&self, kept: &Kept<'_>, key: Digest) -> Result<PathBuf, BuildError> {
        let _making = self.cache.lock(Area::Trees, key, &mut || {})?;
        let mut failed = None;
        let made = self.cache.kept_directory(key, |path| {
            self.fill(kept, path).map_err(|error| {
                failed = Some(error);
                io::Error::other("see the error kept beside")
            })
        });
        let tree = match failed {
            Some(error) => return Err(error),
            None => TreeDir::new(made?),
        };
        Ok(if kept.first.is_some() { shown_in(&tree) } else { tree.root() })
    }

    fn fill(&self, kept: &Kept<'_>, path: &Path) -> Result<(), BuildError> {
        let directory = match &kept.first {
            None => TreeDir::create(path)?.root(),
            Some(First { shelf, picked, span }) => {
                let scratch = self.cache.scratch_dir()?;
                let to = self.destination(span);
                let mut placing = Placing::new(shelf.as_ref(), View::new(&[]), &to);
                placing.place(picked)?;
                copy_into(&scratch, path, self.owners, |tar| placing.write(tar))?
            }
        };
        Ok(layer::record::set_attributes(self.owners, &directory, &kept.attributes, &mut Sidecar::default())?)
    }

    fn destination<'s>(&self, span: &'s Span) -> Destination<'s> {
        Destination { target: SHOWN.to_owned(), workdir: "/", span, owner: None, mode: None, epoch: self.epoch }
    }

    /// A copy of files as they would be in an image.
    fn copy(&self, shelf: &dyn Shelf, picked: &[Picked], span: &Span) -> Result<(ScratchDir, MountSource), BuildError> {
        let to = self.destination(span);
        let mut placing = Placing::new(shelf, View::new(&[]), &to);
        placing.place(picked)?;
        copy_of(self.cache, self.owners, |tar| placing.write(tar))
    }
}

/// What two mounts of the same cache come to.
fn stricter(one: CacheSharing, other: CacheSharing) -> CacheSharing {
    match (one, other) {
        (CacheSharing::Locked, _) | (_, CacheSharing::Locked) => CacheSharing::Locked,
        (CacheSharing::Private, _) | (_, CacheSharing::Private) => CacheSharing::Private,
        (CacheSharing::Shared, CacheSharing::Shared) => CacheSharing::Shared,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spec::SourceFile;

    use super::*;

    fn mount(sharing: CacheSharing) -> Mount<'static> {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let kept = Kept { id: "id".to_owned(), attributes, sharing, first: None };
        Mount { kind: Kind::Cache(kept), target: "/cache".into(), read_only: false }
    }

    #[test]
    fn a_private_cache_in_use_is_another_one_for_the_next_and_a_shared_one_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().join("cache")).unwrap();
        let place = Place { cache: &cache, owners: Owners::Recorded, owners_name: "test".to_owned(), epoch: 0 };
        let pause = Pause::default();
        let taken = |sharing| {
            let _working = pause.work();
            let ready = prepare(&[mount(sharing)], &place, &pause).unwrap();
            let source = ready.mounts[0].source.clone();
            (ready, source)
        };
        let (first, first_place) = taken(CacheSharing::Private);
        let (second, second_place) = taken(CacheSharing::Private);
        assert_ne!(first_place, second_place);
        drop((first, second));
        assert_eq!(taken(CacheSharing::Private).1, first_place, "one that is free again is used again");
        let (third, third_place) = taken(CacheSharing::Shared);
        let (fourth, fourth_place) = taken(CacheSharing::Shared);
        assert_eq!((&third_place, &fourth_place), (&first_place, &first_place));
        assert_ne!(taken(CacheSharing::Private).1, first_place, "others have it");
        drop((third, fourth));
        assert_eq!(taken(CacheSharing::Locked).1, first_place);
    }

    #[test]
    fn a_cache_begins_with_the_files_of_an_image_and_keeps_what_becomes_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path().join("cache")).unwrap();
        let files = directory.path().join("files");
        std::fs::create_dir_all(files.join("sub")).unwrap();
        std::fs::write(files.join("sub/seed"), "seed").unwrap();
        let file = Arc::new(SourceFile::new("Dockerfile", "RUN true\n"));
        let span = Span::start_of(&file);
        let place = Place { cache: &cache, owners: Owners::Recorded, owners_name: "test".to_owned(), epoch: 0 };
        let begins_with = |source: &str| {
            let shelf = super::super::context::Context::open(&files, IgnoreRules::default(), "").unwrap();
            let picked = pick::exactly(
                &shelf,
                &path_of(source).unwrap(),
                source,
                &span,
                &Rules { exclude: &IgnoreRules::default(), parents: false, unpack: false },
            );
            let first = Some(First { shelf: Box::new(shelf), picked: picked.unwrap(), span: span.clone() });
            let attributes = Attributes { mode: 0o755, ..Attributes::default() };
            let kept = Kept { id: "id".to_owned(), attributes, sharing: CacheSharing::Shared, first };
            place.kept(&kept, place.cache_key(&kept)).unwrap()
        };
        let kept = begins_with("/sub");
        assert_eq!(std::fs::read_to_string(kept.join("seed")).unwrap(), "seed");
        std::fs::remove_file(kept.join("seed")).unwrap();
        assert_eq!(begins_with("/sub"), kept);
        assert!(!kept.join("seed").exists(), "it is filled once");
        assert_ne!(begins_with("/"), kept);
    }
}
