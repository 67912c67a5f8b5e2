//! Loading: the list is read first, and nothing else than what it names is taken, each file only with its right bytes.
//!
//! The family is put together beside its place and then moved there, so that it is whole or not there at all. Blobs go
//! into the layout as they come; nothing names them before all are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use content::{Digest, HashingReader, VerifyingReader};
use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind};
use layer::read::entries;
use oci::{Index, REF_NAME, Reference};
use store::{Area, Cache, Layout};

use super::carried::KEPT_LIST;
use super::{Bundle, BundleError, CARRIED, LARGEST_LIST, LIST, Member, Place};

/// Where a bundle is loaded to.
pub struct Destination<'a> {
    /// Where the family goes; without one, into a directory of its name beside this file.
    pub directory: Option<PathBuf>,
    /// Where the images go.
    pub layout: &'a Layout,
    /// Where packages go that no index offers.
    pub cache: &'a Cache,
}

/// What was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its list.
    pub bundle: Bundle,
    /// Its images, by name.
    pub images: Vec<Reference>,
    /// Where the family is.
    pub directory: PathBuf,
}

/// Reads what a bundle says of itself, and no further: the list, and the names of its images.
pub fn read_head(file: impl Read + Send) -> Result<(Bundle, Vec<Reference>), BundleError> {
    let mut head = Head::default();
    let read = entries(decompress(file).map_err(BundleError::Read)?, |entry, content| {
        head.take(&entry, content)?;
        match head.is_whole() {
            // There is no other way to stop.
            true => Err(io::Error::other("enough")),
            false => Ok(()),
        }
    });
    match head.finish() {
        Ok((bundle, index)) => Ok((bundle, names(&index)?.into_iter().map(|(name, _)| name).collect())),
        Err(error) => Err(read.err().filter(|error| error.to_string() != "enough").map_or(error, BundleError::Read)),
    }
}

/// Loads a bundle.
pub fn load(file: impl Read + Send, destination: &Destination<'_>) -> Result<Loaded, BundleError> {
    // Names come last; until then nobody may take blobs for garbage.
    let _lease = destination.layout.lease();
    let mut head = Head::default();
    let mut loading: Option<Loading<'_>> = None;
    let mut problem = None;
    let read = entries(decompress(file).map_err(BundleError::Read)?, |entry, content| {
        let mut step = || -> Result<(), BundleError> {
            match &mut loading {
                Some(loading) => loading.take(&entry, content),
                None => {
                    head.take(&entry, content).map_err(BundleError::Read)?;
                    if head.is_whole() {
                        let (bundle, index) = std::mem::take(&mut head).finish()?;
                        loading = Some(Loading::begin(bundle, index, destination)?);
                    }
                    Ok(())
                }
            }
        };
        step().map_err(|error| {
            problem = Some(error);
            io::Error::other("see the error kept beside")
        })
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    read.map_err(BundleError::Read)?;
    match loading {
        Some(loading) => loading.finish(),
        None => Err(head.finish().err().unwrap_or_else(|| BundleError::Damaged("it ends too early".to_owned()))),
    }
}

/// The first files of a bundle.
#[derive(Default)]
struct Head {
    marker: bool,
    index: Option<Vec<u8>>,
    list: Option<Vec<u8>>,
}

impl Head {
    fn take(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let size = entry.kind.size();
        let place = match path.as_str() {
            "oci-layout" if size <= 4096 => {
                self.marker = true;
                return Ok(());
            }
            "index.json" => &mut self.index,
            LIST => &mut self.list,
            _ => return Err(wrong(format!("`{path}` comes before `{LIST}`: an archive of images, but not a bundle"))),
        };
        if size > LARGEST_LIST || place.is_some() {
            return Err(wrong(format!("`{path}` is too large, or there twice")));
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        *place = Some(bytes);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.marker && self.index.is_some() && self.list.is_some()
    }

    fn finish(self) -> Result<(Bundle, Index), BundleError> {
        let (Some(index), Some(list)) = (self.index.filter(|_| self.marker), self.list) else {
            return Err(BundleError::Damaged(format!(
                "it does not begin with `oci-layout`, `index.json` and `{LIST}`"
            )));
        };
        let bundle = Bundle::parse(&list)?;
        if Digest::of(&index) != bundle.index {
            return Err(BundleError::Damaged("`index.json` has other bytes than the list says".to_owned()));
        }
        let index = serde_json::from_slice(&index);
        Ok((bundle, index.map_err(|error| BundleError::Damaged(format!("`index.json`: {error}")))?))
    }
}

/// The images that an index names.
fn names(index: &Index) -> Result<Vec<(Reference, oci::Descriptor)>, BundleError> {
    let named = index.manifests.iter().map(|entry| {
        let name = entry.annotations.get(REF_NAME).and_then(|name| name.parse().ok());
        let name =
            name.ok_or_else(|| BundleError::Damaged("`index.json` has an image without a full name".to_owned()))?;
        let mut entry = entry.clone();
        entry.annotations.clear();
        Ok((name, entry))
    });
    named.collect()
}

/// A bundle that is being read.
struct Loading<'a> {
    destination: &'a Destination<'a>,
    bundle: Bundle,
    images: Vec<(Reference, oci::Descriptor)>,
    /// What is still to come, by path.
    awaited: BTreeMap<String, Member>,
    directory: PathBuf,
    /// The family, until it is whole.
    staged: tempfile::TempDir,
    /// Locked as long as somebody works on that.
    _alive: File,
}

/// How directories are called in which families are put together.
const STAGED: &str = ".drystone-bundle";

/// A directory to put a family together in, locked; what killed processes left beside it is removed.
fn stage(parent: &Path) -> io::Result<(tempfile::TempDir, File)> {
    // Nobody removes a directory that is made, and not yet locked.
    let alone = File::open(parent)?;
    alone.lock()?;
    for item in fs::read_dir(parent)? {
        let item = item?;
        if item.file_name().to_string_lossy().starts_with(STAGED) && item.file_type()?.is_dir() {
            // Those of other users stay, and those in use.
            if File::open(item.path()).is_ok_and(|left| left.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(item.path());
            }
        }
    }
    let staged = tempfile::Builder::new().prefix(STAGED).tempdir_in(parent)?;
    let alive = File::open(staged.path())?;
    alive.lock()?;
    Ok((staged, alive))
}

impl<'a> Loading<'a> {
    fn begin(bundle: Bundle, index: Index, destination: &'a Destination<'a>) -> Result<Self, BundleError> {
        let directory = destination.directory.clone().unwrap_or_else(|| PathBuf::from(&bundle.family));
        check_place(&directory)?;
        let parent = directory.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(BundleError::io("create", parent))?;
        let (staged, alive) = stage(parent).map_err(BundleError::io("create a directory in", parent))?;
        let awaited = bundle.files.iter().filter(|member| !member.earlier);
        let awaited = awaited.map(|member| (member.path.clone(), member.clone())).collect();
        let images = names(&index)?;
        let loading = Self { destination, images, awaited, directory, staged, _alive: alive, bundle };
        loading.take_earlier()?;
        Ok(loading)
    }

    /// What an earlier bundle brought has to be here.
    fn take_earlier(&self) -> Result<(), BundleError> {
        let mut missing = Vec::new();
        for member in self.bundle.files.iter().filter(|member| member.earlier) {
            let is_here = match member.place()? {
                Place::Blob => self.destination.layout.has_blob(member.digest, member.size),
                Place::Family(path) => self.take_kept(member, &path)?,
            };
            if !is_here {
                missing.push(member.path.clone());
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(BundleError::Earlier { missing: missing.len(), first: first.clone() }),
        }
    }

    /// Copies a file of the family that is here already, if it has the right bytes.
    fn take_kept(&self, member: &Member, path: &ImagePath) -> Result<bool, BundleError> {
        let kept = self.directory.join(path.as_path());
        let Ok(file) = File::open(&kept) else { return Ok(false) };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == member.size) {
            return Ok(false);
        }
        self.put(member, path, &mut { file }).map(|()| true).or_else(|error| match error {
            BundleError::Damaged(_) => Ok(false),
            other => Err(other),
        })
    }

    fn take(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), BundleError> {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        let size = match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::File { size } => size,
            _ => return Err(BundleError::Damaged(format!("`{path}` is neither a file nor a directory"))),
        };
        let unexpected = || BundleError::Damaged(format!("`{path}` is not in the list, or there twice"));
        let member = self.awaited.remove(&path).ok_or_else(unexpected)?;
        if size != member.size {
            return Err(BundleError::Damaged(format!("`{path}` has {size} bytes, the list says {}", member.size)));
        }
        match member.place()? {
            Place::Blob if self.destination.layout.has_blob(member.digest, size) => Ok(()),
            Place::Blob => {
                let mut blob = self.destination.layout.blob_writer()?;
                copy_checked(&member, content, &mut blob, &path)?;
                Ok(blob.commit_expecting(member.digest, size)?)
            }
            Place::Family(place) => self.put(&member, &place, content),
        }
    }

    /// Writes a file of the family.
    fn put(&self, member: &Member, path: &ImagePath, content: &mut dyn Read) -> Result<(), BundleError> {
        let target = self.staged.path().join(path.as_path());
        let parent = target.parent().unwrap_or(self.staged.path());
        fs::create_dir_all(parent).map_err(BundleError::io("create", parent))?;
        let mut file = File::create_new(&target).map_err(BundleError::io("create", &target))?;
        let copied = copy_checked(member, content, &mut file, &member.path);
        if copied.is_err() {
            let _ = fs::remove_file(&target);
        }
        copied?;
        let mode = if member.executable { 0o755 } else { 0o644 };
        let permissions = fs::Permissions::from_mode(mode);
        file.set_permissions(permissions).and_then(|()| file.sync_all()).map_err(BundleError::io("write", &target))
    }

    fn finish(self) -> Result<Loaded, BundleError> {
        if let Some(path) = self.awaited.keys().next() {
            return Err(BundleError::Damaged(format!("it ends before `{path}`, which the list has")));
        }
        for (reference, descriptor) in &self.images {
            let whole = self.destination.layout.reachable(std::slice::from_ref(descriptor));
            whole.map_err(|error| BundleError::Damaged(format!("{reference} is not whole: {error}")))?;
        }
        self.keep_packages()?;
        let carried = self.staged.path().join(CARRIED);
        fs::create_dir_all(&carried).map_err(BundleError::io("create", &carried))?;
        let list = carried.join(KEPT_LIST);
        fs::write(&list, self.bundle.to_bytes()).map_err(BundleError::io("write", &list))?;
        fs::set_permissions(self.staged.path(), fs::Permissions::from_mode(0o755))
            .map_err(BundleError::io("write", self.staged.path()))?;
        self.destination.layout.set_references(&self.images)?;
        let staged = self.staged.keep();
        replace(&staged, &self.directory)?;
        let mut images: Vec<Reference> = self.images.into_iter().map(|(name, _)| name).collect();
        images.retain(|name| name.tag().is_some());
        Ok(Loaded { bundle: self.bundle, images, directory: self.directory })
    }

    /// Files that are only known by digest are looked for in the cache.
    fn keep_packages(&self) -> Result<(), BundleError> {
        for member in self.bundle.files.iter().filter(|member| member.path.starts_with("drystone/files/")) {
            let cache = self.destination.cache;
            if cache.open_content(Area::Debs, member.digest, member.size)?.is_some() {
                continue;
            }
            let file = self.staged.path().join(CARRIED).join("files").join(member.digest.hex());
            let mut writer = cache.writer(Area::Debs, member.digest)?;
            let copied = File::open(&file).and_then(|mut file| io::copy(&mut file, &mut writer));
            copied.map_err(BundleError::io("copy", &file))?;
            writer.commit_content(member.size)?;
        }
        Ok(())
    }
}

fn copy_checked(member: &Member, content: &mut dyn Read, out: &mut dyn Write, path: &str) -> Result<(), BundleError> {
    let mut checked = VerifyingReader::new(content, member.digest, member.size);
    match io::copy(&mut checked, out) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            Err(BundleError::Damaged(format!("`{path}`: {error}")))
        }
        Err(source) => Err(BundleError::Io { action: "load", path: path.into(), source }),
    }
}

/// A family may go where nothing is, or where a bundle was loaded that nobody has changed since.
fn check_place(directory: &Path) -> Result<(), BundleError> {
    let refused = |why: String| Err(BundleError::Destination { path: directory.to_owned(), why });
    let is_empty = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BundleError::Io { action: "read", path: directory.to_owned(), source }),
        Ok(mut items) => items.next().is_none(),
    };
    if is_empty {
        return Ok(());
    }
    let list = fs::read(directory.join(CARRIED).join(KEPT_LIST)).ok();
    let Some(before) = list.and_then(|list| Bundle::parse(&list).ok()) else {
        return refused("holds something else than a loaded bundle: name another directory, or remove it".to_owned());
    };
    let changed = |path: &str| {
        let why = format!("was changed since it was loaded (`{path}`): load into another directory, or remove it");
        Err(BundleError::Destination { path: directory.to_owned(), why })
    };
    let mut known = BTreeSet::from([directory.join(CARRIED).join(KEPT_LIST)]);
    for member in before.files {
        let Place::Family(path) = member.place()? else { continue };
        let file = directory.join(path.as_path());
        if digest_of(&file).ok() != Some(member.digest) {
            return changed(&member.path);
        }
        known.insert(file);
    }
    match first_other(directory, &known).map_err(BundleError::io("read", directory))? {
        Some(other) => changed(&other.display().to_string()),
        None => Ok(()),
    }
}

fn digest_of(file: &Path) -> io::Result<Digest> {
    let mut hashed = HashingReader::new(File::open(file)?);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(hashed.finish().1)
}

/// Something in a directory that is none of these files.
fn first_other(directory: &Path, known: &BTreeSet<PathBuf>) -> io::Result<Option<PathBuf>> {
    for item in fs::read_dir(directory)? {
        let item = item?;
        let other = match item.file_type()?.is_dir() {
            true => first_other(&item.path(), known)?,
            false => Some(item.path()).filter(|path| !known.contains(path)),
        };
        if other.is_some() {
            return Ok(other);
        }
    }
    Ok(None)
}

/// Puts a directory in the place of another one, which may be absent.
fn replace(staged: &Path, directory: &Path) -> Result<(), BundleError> {
    let moved = BundleError::io("move the family to", directory);
    if !directory.exists() {
        return fs::rename(staged, directory).map_err(moved);
    }
    // Both names are there at all times; what was there before is then under the other one.
    rustix::fs::renameat_with(rustix::fs::CWD, staged, rustix::fs::CWD, directory, rustix::fs::RenameFlags::EXCHANGE)
        .map_err(|error| moved(error.into()))?;
    fs::remove_dir_all(staged).map_err(BundleError::io("remove", staged))
}
