//! What a command sees besides the image: caches, secrets, directories in memory, and files of the family.
//!
//! Of a cache, a secret and a directory in memory, a step's key has only that they are there and where; what is in them
//! counts as nothing that the result depends on. What a bind mount shows is an input like any other: the key has all of
//! it. It is a copy, with the modes, owners and times that `files` would give it, so that a command finds the same on
//! every machine, and what the key says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher};
use layer::record::{Attributes, Owners, Sidecar, TreeDir};
use layer::unpack::Unpacker;
use layer::view::View;
use layer::write::END_OF_ARCHIVE;
use sandbox::{MountSource, User};
use spec::{Command, FileContent, FileEntry, Located, MountKind, RelativePath, Span};
use store::{Area, Cache, KeyLock, ScratchDir};

use crate::error::BuildError;
use crate::pause::Pause;
use crate::secrets::Secrets;
use crate::steps::files::{Files, Inputs};

/// Where a bind mount's copy is, in a tree of its own.
pub const SHOWN: &str = "/shown";

/// Where nothing can be mounted: the root itself, and what the sandbox puts there.
const TAKEN: [&str; 4] = ["/", "/dev", "/proc", "/sys"];

/// The mounts of a command, with all that its result depends on.
pub struct Mounts<'a> {
    mounts: Vec<Mount<'a>>,
}

struct Mount<'a> {
    target: &'a str,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Cache { id: &'a str },
    Secret(&'a Located<String>),
    Memory,
    Bind(Files),
}

/// Mounts that are ready, for as long as this lives.
#[derive(Default)]
pub struct Ready {
    /// What the sandbox is told.
    pub mounts: Vec<sandbox::Mount>,
    /// Held, never read.
    pub(crate) _copies: Vec<ScratchDir>,
    pub(crate) _locks: Vec<KeyLock>,
}

/// What mounts are made of, and for whom.
pub struct Place<'a> {
    /// Where caches are, and copies for a while.
    pub cache: &'a Cache,
    /// The secrets of the build.
    pub secrets: &'a Secrets,
    /// How owners are stored.
    pub owners: Owners,
    /// Names that way: what is stored in one way cannot be used in another.
    pub owners_name: String,
    /// Who the command is.
    pub user: &'a User,
    /// The date of the image.
    pub epoch: i64,
}

/// An error at the place of a mount that no command can have.
pub fn check(command: &Command) -> Result<(), BuildError> {
    let taken = |target: &str| {
        TAKEN.iter().any(|taken| target == *taken || (*taken != "/" && target.starts_with(&format!("{taken}/"))))
    };
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    for mount in &command.mounts {
        let (target, span) = (mount.target.as_str(), &mount.target.span);
        if taken(target) {
            return Err(BuildError::at(span, format!("nothing can be mounted at `{target}`"), "choose another target"));
        }
        if seen.insert(target, span).is_some() {
            return Err(BuildError::at(span, format!("two mounts at `{target}`"), "each hides what the other shows"));
        }
    }
    Ok(())
}

impl<'a> Mounts<'a> {
    /// Reads what the mounts of a command show.
    pub fn read(command: &'a Command, inputs: &Inputs<'_>) -> Result<Self, BuildError> {
        let mut mounts = Vec::new();
        for mount in &command.mounts {
            let target = mount.target.as_str();
            let kind = match &mount.kind {
                MountKind::Cache(id) => Kind::Cache { id: id.as_ref().map_or(target, |id| id.value.as_str()) },
                MountKind::Secret(name) => Kind::Secret(name),
                MountKind::Tmpfs => Kind::Memory,
                MountKind::Bind(source) => Kind::Bind(Files::read(&[shown(source, &mount.span)], inputs)?),
            };
            mounts.push(Mount { target, kind });
        }
        Ok(Self { mounts })
    }

    /// Names all that a command's result depends on; nothing without mounts.
    pub fn key(&self) -> Option<Digest> {
        if self.mounts.is_empty() {
            return None;
        }
        let described = self.mounts.iter().map(|mount| {
            let kind = match &mount.kind {
                Kind::Cache { id } => FramedHasher::new("cache").field("id", id),
                Kind::Secret(name) => FramedHasher::new("secret").field("name", &name.value),
                Kind::Memory => FramedHasher::new("memory"),
                Kind::Bind(files) => FramedHasher::new("bind").field("files", files.key().as_bytes()),
            };
            kind.field("target", mount.target).finish()
        });
        Some(described.fold(FramedHasher::new("mounts 1"), |all, one| all.field("mount", one.as_bytes())).finish())
    }

    /// What [`Mounts::key`] names, in words.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        for mount in &self.mounts {
            let name = format!("mount {}", mount.target);
            let kind = match &mount.kind {
                Kind::Cache { id } => format!("the cache {id}"),
                Kind::Secret(secret) => format!("the secret {}", secret.value),
                Kind::Memory => "in memory".to_owned(),
                Kind::Bind(files) => {
                    facts.extend(files.facts().map(|(file, value)| (format!("{name}: {file}"), value)));
                    "files of the family".to_owned()
                }
            };
            facts.push((name, kind));
        }
        facts
    }

    /// Makes everything ready. Where somebody else uses a cache this waits, aside from those who work.
    pub fn prepare(&self, place: &Place<'_>, pause: &Pause) -> Result<Ready, BuildError> {
        let mut ready = Ready::default();
        // In one order for everybody, so that two commands with the same caches do not wait for each other; and each
        // once, whatever the number of its places.
        let mut keys: Vec<Digest> = self.caches().map(|id| place.cache_key(id)).collect();
        keys.sort_unstable();
        keys.dedup();
        let lock = |key: &Digest| place.cache.lock(Area::Mounts, *key, &mut || {});
        ready._locks = pause.aside(|| keys.iter().map(lock).collect::<Result<_, _>>())?;
        for mount in &self.mounts {
            let (source, read_only) = match &mount.kind {
                Kind::Cache { id } => (place.kept(id)?.into(), false),
                Kind::Secret(name) => {
                    let content = place.secrets.get(name)?.clone();
                    (MountSource::File { content, mode: 0o400, owner: None }, true)
                }
                Kind::Memory => (MountSource::Memory { size: None }, false),
                Kind::Bind(files) => {
                    let (scratch, source) = place.copy(files)?;
                    ready._copies.push(scratch);
                    (source, true)
                }
            };
            ready.mounts.push(sandbox::Mount { source, target: mount.target.into(), read_only });
        }
        Ok(ready)
    }

    fn caches(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            Kind::Cache { id } => Some(*id),
            Kind::Secret(_) | Kind::Memory | Kind::Bind(_) => None,
        })
    }
}

/// A source as `files` would put it in.
fn shown(source: &Located<RelativePath>, span: &Span) -> FileEntry {
    FileEntry {
        content: FileContent::Source { path: source.clone(), unpack: false },
        target: Located::new(SHOWN.parse().expect("a constant path is valid"), span.clone()),
        mode: None,
        owner: None,
        span: span.clone(),
    }
}

impl Place<'_> {
    /// Commands of different users do not share a cache: neither could write what the other has written.
    fn cache_key(&self, id: &str) -> Digest {
        FramedHasher::new("cache mount 1")
            .field("id", id)
            .field("owners", &self.owners_name)
            .field("user", format!("{}:{}", self.user.uid, self.user.gid))
            .finish()
    }

    /// The directory of a cache, which belongs to the command's user.
    fn kept(&self, id: &str) -> Result<PathBuf, BuildError> {
        let kept = self.cache.kept_directory(self.cache_key(id), |path| {
            let tree = TreeDir::create(path)?;
            let attributes =
                Attributes { uid: self.user.uid, gid: self.user.gid, mode: 0o755, ..Attributes::default() };
            layer::record::set_attributes(self.owners, &tree.root(), &attributes, &mut Sidecar::default())
        })?;
        Ok(TreeDir::new(kept).root())
    }

    /// A copy of files of the family as they would be in a layer.
    fn copy(&self, files: &Files) -> Result<(ScratchDir, MountSource), BuildError> {
        copy_of(self.cache, self.owners, |tar| files.write(&View::new(&[]), self.epoch, tar))
    }
}

/// A copy of files as they would be in a layer, for as long as the directory lives. `write` writes the entries of a tar
/// that has them at [`SHOWN`].
pub fn copy_of(
    cache: &Cache,
    owners: Owners,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, BuildError>,
) -> Result<(ScratchDir, MountSource), BuildError> {
    let scratch = cache.scratch_dir()?;
    let source = copy_into(&scratch, &scratch.path().join("tree"), owners, write)?;
    Ok((scratch, source.into()))
}

/// The same as a new tree at `place`, with help of a directory for a while. Gives where the copy is in it.
pub fn copy_into(
    scratch: &ScratchDir,
    place: &Path,
    owners: Owners,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, BuildError>,
) -> Result<PathBuf, BuildError> {
    let archive = scratch.path().join("tar");
    let mut tar = BufWriter::new(File::create_new(&archive)?);
    write(&mut tar)?;
    tar.write_all(&END_OF_ARCHIVE)?;
    tar.flush()?;
    let tree = TreeDir::create(place)?;
    let mut unpacker = Unpacker::new(&tree, &[], owners)?;
    layer::read::entries(BufReader::new(File::open(&archive)?), |entry, content| unpacker.apply(&entry, content))?;
    unpacker.finish()?;
    fs::remove_file(&archive)?;
    Ok(shown_in(&tree))
}

/// Where a copy is in a tree that has one.
pub fn shown_in(tree: &TreeDir) -> PathBuf {
    tree.root().join(SHOWN.trim_start_matches('/'))
}
