//! The step that puts files in: from the family's directory, from a text in the spec, from an address with a digest;
//! and directories and links.
//!
//! Nothing outside the family's directory is read, and what a checkout or an umask may change (times, the mode's bits
//! but the executable one) does not reach the layer.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use content::{Digest, FramedHasher, HashingReader};
use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::view::View;
use layer::write::EntryWriter;
use spec::{Diagnostic, FileContent, FileEntry, Located, Owner, RelativePath, Span};
use store::{Area, Cache};
use url::Url;

use crate::accounts::{Accounts, Ids};
use crate::error::BuildError;
use crate::fetch::{Fetcher, STAND_IN, shown};
use crate::lock::files::Pinned;

/// The largest archive that is unpacked into an image, in bytes once unpacked.
const LARGEST_ARCHIVE: u64 = 64 << 30;

/// What a step will put in; all inputs were read once, and their digests are known.
pub struct Files {
    items: Vec<Item>,
}

struct Item {
    path: ImagePath,
    kind: ItemKind,
    mode: u32,
    owner: Option<Located<Owner>>,
    span: Span,
}

enum ItemKind {
    Directory,
    Link(Vec<u8>),
    File { body: Body, size: u64, digest: Digest },
    Archive { body: Body, digest: Digest },
}

enum Body {
    OnDisk(PathBuf),
    Text(String),
}

/// Where files of a step come from.
pub struct Inputs<'a> {
    /// The family's directory.
    pub family: &'a Path,
    /// How addresses are fetched.
    pub fetcher: &'a Fetcher,
    /// Where fetched files are kept.
    pub cache: &'a Cache,
    /// What the lock says of addresses.
    pub pinned: &'a Pinned,
}

impl Files {
    /// Reads the inputs of a step.
    pub fn read(entries: &[FileEntry], inputs: &Inputs<'_>) -> Result<Self, BuildError> {
        let mut items = Vec::new();
        for entry in entries {
            inputs.entry(entry, &mut items)?;
        }
        Ok(Self { items })
    }

    /// Names everything that the layer depends on, apart from the image below it.
    pub fn key(&self) -> Digest {
        self.items.iter().fold(FramedHasher::new("files 2"), |hasher, item| hasher.field("item", item.key())).finish()
    }

    /// The content that is put in, by its path in the image; of an archive, the directory that it is unpacked in.
    pub fn contents(&self) -> Vec<(String, Digest)> {
        let content = |item: &Item| match item.kind {
            ItemKind::File { digest, .. } | ItemKind::Archive { digest, .. } => Some((item.path.to_string(), digest)),
            ItemKind::Directory | ItemKind::Link(_) => None,
        };
        self.items.iter().filter_map(content).collect()
    }

    /// What [`Files::key`] names, in words: for each path its content, mode and owner.
    pub fn facts(&self) -> impl Iterator<Item = (String, String)> {
        self.items.iter().flat_map(|item| {
            let content = match &item.kind {
                ItemKind::Directory => "a directory".to_owned(),
                ItemKind::Link(target) => format!("a link to {}", String::from_utf8_lossy(target)),
                ItemKind::File { digest, .. } => digest.to_string(),
                ItemKind::Archive { digest, .. } => format!("archive {digest}"),
            };
            let owner = item.owner.as_ref().map_or_else(|| "root".to_owned(), |owner| owner.to_string());
            let fact = |name: &str, value: String| (format!("file {} {name}", item.path), value);
            [fact("content", content), fact("mode", format!("{:o}", item.mode)), fact("owner", owner)]
        })
    }

    /// What the history says.
    pub fn describe(&self) -> String {
        let mut paths: Vec<String> = self.items.iter().take(4).map(|item| item.path.to_string()).collect();
        if self.items.len() > paths.len() {
            paths.push(format!("and {} more", self.items.len() - paths.len()));
        }
        format!("drystone: files {}", paths.join(" "))
    }

    /// Writes the entries over the image that `view` shows. Directories that are missing on the way are made, root's
    /// and 0755. Returns the bytes of content.
    pub fn write(&self, view: &View<'_>, epoch: i64, writer: &mut dyn Write) -> Result<u64, BuildError> {
        let accounts = Accounts::read(view)?;
        let mut plan: BTreeMap<ImagePath, (Metadata, &Item)> = BTreeMap::new();
        let mut archives = Vec::new();
        let mut made = BTreeMap::new();
        for item in &self.items {
            let path = match item.kind {
                // An archive is unpacked into the directory that a link leads to.
                ItemKind::Archive { .. } => view.resolve(&item.path)?,
                _ => view.resolve_parent(&item.path)?,
            };
            let into = matches!(item.kind, ItemKind::Archive { .. }).then(|| path.clone());
            for parent in path.ancestors().chain(into) {
                if view.lookup(&parent)?.is_none() && !plan.contains_key(&parent) {
                    made.insert(parent, Metadata { mode: 0o755, mtime: epoch, ..Metadata::default() });
                }
            }
            let ids = item.ids(&accounts)?;
            let metadata =
                Metadata { mode: item.mode, uid: ids.uid, gid: ids.gid, mtime: epoch, ..Metadata::default() };
            if matches!(item.kind, ItemKind::Archive { .. }) {
                archives.push((path, metadata, item));
            } else {
                made.remove(&path);
                plan.insert(path, (metadata, item));
            }
        }
        let mut writer = EntryWriter::new(writer);
        let mut unpacked = 0;
        for (path, metadata) in made {
            writer.write_empty(&Entry { path, kind: Kind::Directory, metadata })?;
        }
        for (path, (metadata, item)) in plan {
            unpacked += item.write(path, metadata, &mut writer)?;
        }
        for (path, metadata, item) in archives {
            unpacked += item.write(path, metadata, &mut writer)?;
        }
        Ok(unpacked)
    }
}

impl Item {
    fn key(&self) -> String {
        let kind = match &self.kind {
            ItemKind::Directory => "directory".to_owned(),
            ItemKind::Link(target) => format!("link {}", hex(target)),
            ItemKind::File { digest, .. } => format!("file {digest}"),
            ItemKind::Archive { digest, .. } => format!("archive {digest}"),
        };
        let owner = self.owner.as_ref().map(|owner| owner.to_string()).unwrap_or_default();
        format!("{} {kind} {:o} {owner}", hex(self.path.as_bytes()), self.mode)
    }

    fn ids(&self, accounts: &Accounts) -> Result<Ids, BuildError> {
        let Some(owner) = &self.owner else { return Ok(Ids::default()) };
        accounts.ids(owner).map_err(|error| {
            let help = "files can only belong to accounts that exist: install the package that makes them first";
            BuildError::at(&owner.span, error.to_string(), help)
        })
    }

    fn write(
        &self,
        path: ImagePath,
        metadata: Metadata,
        writer: &mut EntryWriter<&mut dyn Write>,
    ) -> Result<u64, BuildError> {
        match &self.kind {
            ItemKind::Directory => writer.write_empty(&Entry { path, kind: Kind::Directory, metadata })?,
            ItemKind::Link(target) => {
                let metadata = Metadata { mode: 0o777, ..metadata };
                writer.write_empty(&Entry { path, kind: Kind::Symlink { target: target.clone() }, metadata })?;
            }
            ItemKind::File { body, size, digest } => {
                let mut content = HashingReader::new(body.open()?);
                writer.write(&Entry { path, kind: Kind::File { size: *size }, metadata }, &mut content)?;
                self.check(content.finish().1, *digest)?;
                return Ok(*size);
            }
            ItemKind::Archive { body, digest } => return self.write_archive(&path, metadata, (body, *digest), writer),
        }
        Ok(0)
    }

    /// Entries of an archive below a directory; owners are the archive's unless the spec names one.
    fn write_archive(
        &self,
        directory: &ImagePath,
        metadata: Metadata,
        (body, digest): (&Body, Digest),
        writer: &mut EntryWriter<&mut dyn Write>,
    ) -> Result<u64, BuildError> {
        let below = |path: &ImagePath| path.names().fold(directory.clone(), |path, name| path.join(name));
        let mut unpacked = 0;
        let mut stored = HashingReader::new(body.open()?);
        let tar = decompress(&mut stored)?.take(LARGEST_ARCHIVE);
        let done = layer::read::entries(tar, |mut entry, content| {
            if entry.path.is_root() {
                return Ok(());
            }
            entry.path = below(&entry.path);
            if let Kind::HardLink { target } = &mut entry.kind {
                *target = below(target);
            }
            if self.owner.is_some() {
                (entry.metadata.uid, entry.metadata.gid) = (metadata.uid, metadata.gid);
            }
            entry.metadata.mtime = entry.metadata.mtime.min(metadata.mtime);
            unpacked += entry.kind.size();
            writer.write(&entry, content)
        });
        done.map_err(|error| BuildError::at(&self.span, format!("this archive cannot be unpacked: {error}"), ""))?;
        // A tar may end before its file does.
        io::copy(&mut stored, &mut io::sink())?;
        self.check(stored.finish().1, digest)?;
        Ok(unpacked)
    }

    /// What was laid must be what the key of the step names.
    fn check(&self, found: Digest, expected: Digest) -> Result<(), BuildError> {
        if found == expected {
            return Ok(());
        }
        Err(BuildError::at(&self.span, "the file changed while it was read", "build again"))
    }
}

impl Body {
    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::OnDisk(path) => Box::new(fs::File::open(path)?),
            Self::Text(text) => Box::new(text.as_bytes()),
        })
    }
}

impl Inputs<'_> {
    fn entry(&self, entry: &FileEntry, items: &mut Vec<Item>) -> Result<(), BuildError> {
        match &entry.content {
            FileContent::Source { path, unpack } => {
                let found = self.inside(path)?;
                match found.is_dir() {
                    true => return self.tree(entry, &found, &image_path(&entry.target, &entry.span)?, items),
                    false => items.push(self.file(entry, path, found, *unpack)?),
                }
            }
            FileContent::Url { url, sha256, unpack } => items.push(self.url(entry, url, sha256.as_ref(), *unpack)?),
            FileContent::Text(text) => {
                let body = Body::Text(text.value.clone());
                let (size, digest) = (text.len() as u64, Digest::of(text.as_bytes()));
                items.push(item(entry, &entry.target, ItemKind::File { body, size, digest }, 0o644)?);
            }
            FileContent::Link(target) => {
                items.push(item(entry, &entry.target, ItemKind::Link(target.as_bytes().to_vec()), 0o777)?);
            }
            FileContent::Directory => items.push(item(entry, &entry.target, ItemKind::Directory, 0o755)?),
        }
        Ok(())
    }

    /// Where a source is, once links are followed: inside the family's directory, or an error.
    fn inside(&self, source: &Located<RelativePath>) -> Result<PathBuf, BuildError> {
        let path = self.family.join(source.as_str());
        let found = path.canonicalize().map_err(|error| {
            let title = format!("`{}` cannot be read: {error}", path.display());
            BuildError::at(&source.span, title, "paths are relative to the directory of the image")
        })?;
        if !found.starts_with(self.family.canonicalize()?) {
            let title = format!("`{}` is outside of the family's directory", path.display());
            return Err(BuildError::at(&source.span, title, "copy the file into the family"));
        }
        Ok(found)
    }

    fn file(&self, entry: &FileEntry, source: &RelativePath, path: PathBuf, unpack: bool) -> Result<Item, BuildError> {
        let metadata = fs::metadata(&path)?;
        if !metadata.is_file() {
            let title = format!("`{}` is neither a file nor a directory", path.display());
            return Err(BuildError::at(&entry.span, title, ""));
        }
        let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        let (size, digest) = hash(&path)?;
        let body = Body::OnDisk(path);
        if unpack {
            return item(entry, &entry.target, ItemKind::Archive { body, digest }, 0o755);
        }
        let target = entry.destination(source.file_name().unwrap_or_default());
        item(entry, &target, ItemKind::File { body, size, digest }, mode)
    }

    /// A directory: its children go below the target.
    fn tree(
        &self,
        entry: &FileEntry,
        directory: &Path,
        target: &ImagePath,
        items: &mut Vec<Item>,
    ) -> Result<(), BuildError> {
        let make = |kind, mode| Item {
            path: target.clone(),
            kind,
            mode,
            owner: entry.owner.clone(),
            span: entry.span.clone(),
        };
        items.push(make(ItemKind::Directory, 0o755));
        let mut children: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            let target = target.join(&child.file_name().into_vec());
            let (path, metadata) = (child.path(), child.metadata()?);
            let make = |kind, mode| Item { path: target.clone(), ..make(kind, mode) };
            if metadata.is_dir() {
                self.tree(entry, &path, &target, items)?;
            } else if metadata.is_symlink() {
                items.push(make(ItemKind::Link(fs::read_link(&path)?.into_os_string().into_vec()), 0o777));
            } else if metadata.is_file() {
                let usual = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
                let mode = entry.mode.as_ref().map_or(usual, |mode| mode.bits());
                let (size, digest) = hash(&path)?;
                items.push(make(ItemKind::File { body: Body::OnDisk(path), size, digest }, mode));
            } else {
                let title = format!("`{}` is neither a file, a directory nor a link", path.display());
                return Err(BuildError::at(&entry.span, title, ""));
            }
        }
        Ok(())
    }

    fn url(
        &self,
        entry: &FileEntry,
        url: &Located<String>,
        sha256: Option<&Located<String>>,
        unpack: bool,
    ) -> Result<Item, BuildError> {
        let address = Url::parse(url).map_err(|error| BuildError::at(&url.span, error.to_string(), ""))?;
        let (path, size, digest) = match (self.fetcher.local(&address), sha256) {
            // Stand-ins are made by this program; any other file needs a digest, on this machine too.
            (Some(path), None) if address.scheme() == STAND_IN => {
                let (size, digest) = hash(&path).map_err(|error| {
                    BuildError::at(&url.span, format!("`{}` cannot be read: {error}", path.display()), "")
                })?;
                (path, size, digest)
            }
            (_, sha256) => {
                let digest = self.digest_of(&address, url, sha256)?;
                let path = self.fetched(&address, digest).map_err(|error| error.located(&url.span))?;
                let size = fs::metadata(&path)?.len();
                (path, size, digest)
            }
        };
        let body = Body::OnDisk(path);
        if unpack {
            return item(entry, &entry.target, ItemKind::Archive { body, digest }, 0o755);
        }
        let name = address.path().rsplit('/').next().unwrap_or_default();
        item(entry, &entry.destination(name), ItemKind::File { body, size, digest }, 0o644)
    }

    /// What a file by address must hash to: by its spec, or else by the lock.
    fn digest_of(
        &self,
        address: &Url,
        url: &Located<String>,
        sha256: Option<&Located<String>>,
    ) -> Result<Digest, BuildError> {
        match (sha256, self.pinned.get(shown(address).as_str())) {
            (Some(sha256), _) => {
                Digest::from_hex(sha256).map_err(|error| BuildError::at(&sha256.span, error.to_string(), ""))
            }
            (None, Some(pinned)) => Ok(pinned.digest),
            (None, None) => {
                let help = "`drystone lock` finds it out; or add `sha256: <64 digits>`";
                Err(BuildError::at(&url.span, "a file by address needs its `sha256`, here or in the lock", help))
            }
        }
    }

    fn fetched(&self, url: &Url, digest: Digest) -> Result<PathBuf, BuildError> {
        if let Some(path) = self.cache.file(Area::Debs, digest) {
            // What a crash lost of it must not become part of an image.
            if hash(&path)?.1 == digest {
                return Ok(path);
            }
            self.cache.remove(Area::Debs, digest)?;
        }
        let open = || self.cache.writer(Area::Debs, digest).map_err(io::Error::other);
        let (writer, size) = self.fetcher.file_of_unknown_size(url, digest, open)?;
        Ok(writer.commit_content(size)?)
    }
}

fn item(entry: &FileEntry, target: &spec::ImagePath, kind: ItemKind, mode: u32) -> Result<Item, BuildError> {
    let mode = entry.mode.as_ref().map_or(mode, |mode| mode.bits());
    let path = image_path(target, &entry.span)?;
    Ok(Item { path, kind, mode, owner: entry.owner.clone(), span: entry.span.clone() })
}

fn image_path(target: &spec::ImagePath, span: &Span) -> Result<ImagePath, BuildError> {
    ImagePath::parse(target.as_str())
        .map_err(|error| BuildError::Spec(Diagnostic::new(span.clone(), error.to_string()).into()))
}

fn hash(path: &Path) -> io::Result<(u64, Digest)> {
    let mut reader = HashingReader::new(fs::File::open(path)?);
    io::copy(&mut reader, &mut io::sink())?;
    let (_, digest, size) = reader.finish();
    Ok((size, digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
