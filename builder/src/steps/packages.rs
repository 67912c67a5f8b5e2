//! The step that lays packages: fetches what is missing, makes segments of it on all cores, and puts them into layers,
//! one for each group of packages that the same images need.
//!
//! A group's layer is the same bytes in whatever image it lies. So it names all directories that its packages ship, also
//! those that are there already, with the attributes that its own packages give them. dpkg would keep those that a
//! directory had before; where they differ, [`right_directories`] puts that right in the image's own layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, PoisonError};

use content::{Digest, FramedHasher};
use debian::package::{Package, RelationField};
use layer::compress::Compression;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::{self, Attributes, Owners, Sidecar, TreeDir};
use layer::view::{Finder, Found, View};
use layer::write::EntryWriter;
use store::{Area, Cache, StoreError};

use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::fetch::Fetcher;
use crate::layers::LayerWriter;
use crate::package::segment::{Directory, MERGED, Segment};
use crate::plan::LockedPackage;

/// The directories that every package's part of dpkg's database lies in.
const ALWAYS: [&str; 4] = ["var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info"];

/// How many packages are fetched at the same time.
const FETCHES: usize = 6;

/// What is needed to get segments.
pub struct Workshop<'a> {
    /// Where packages and segments are kept.
    pub cache: &'a Cache,
    /// How packages are fetched.
    pub fetcher: &'a Fetcher,
    /// How segments are compressed.
    pub compression: Compression,
    /// How many threads wait for a place.
    pub jobs: usize,
    /// Shared by all images that are built at the same time, so that memory does not grow with their number.
    pub places: &'a Places,
    /// Learns of progress.
    pub observer: &'a dyn Observer,
    /// Whether somebody asked to stop.
    pub interrupt: &'a AtomicBool,
}

/// A number of places, each taken by one thread at a time.
pub struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A taken place, free again when dropped.
struct Place<'a>(&'a Places);

impl Places {
    /// So many places, at least one.
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new(count.max(1)), freed: Condvar::new() }
    }

    fn take(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Workshop<'_> {
    /// The segments of packages, in their order. Fetching and compressing overlap.
    pub fn segments(&self, packages: &[LockedPackage]) -> Result<Vec<Segment>, BuildError> {
        let found = self.whole(packages)?;
        let losers = replaced(packages, &found)?;
        let mut segments = Vec::with_capacity(found.len());
        for (segment, (package, left_out)) in found.into_iter().zip(packages.iter().zip(&losers)) {
            segments.push(match left_out.is_empty() {
                true => segment,
                false => self.segment(package, left_out)?,
            });
        }
        Ok(segments)
    }

    /// The segments of packages with all their files.
    fn whole(&self, packages: &[LockedPackage]) -> Result<Vec<Segment>, BuildError> {
        self.fetch_missing(packages)?;
        self.parallel(packages, |package| {
            let _place = self.places.take();
            self.segment(package, &BTreeSet::new())
        })
    }

    /// One segment. Where it must be made and the `.deb` is gone, or turned out to be damaged, that is fetched again.
    fn segment(&self, package: &LockedPackage, left_out: &BTreeSet<String>) -> Result<Segment, BuildError> {
        match Segment::of(self.cache, package, self.compression, left_out) {
            Err(BuildError::Store(StoreError::Missing { .. })) => {
                self.fetch_all(&[package])?;
                Segment::of(self.cache, package, self.compression, left_out)
            }
            other => other,
        }
    }

    /// Removes segments that the disk damaged. Returns whether there were any.
    pub fn discard_damaged(&self, packages: &[LockedPackage]) -> Result<bool, BuildError> {
        let found = self.whole(packages)?;
        let mut damaged = false;
        for (package, left_out) in packages.iter().zip(replaced(packages, &found)?) {
            damaged |= Segment::discard_damaged(self.cache, package, self.compression, &left_out)?;
            if !left_out.is_empty() {
                damaged |= Segment::discard_damaged(self.cache, package, self.compression, &BTreeSet::new())?;
            }
        }
        Ok(damaged)
    }

    /// Fetches the packages whose `.deb` is neither kept nor needed no more because its segment is.
    fn fetch_missing(&self, packages: &[LockedPackage]) -> Result<(), BuildError> {
        let missing: Vec<&LockedPackage> = packages
            .iter()
            .filter(|package| self.cache.file(Area::Debs, package.sha256).is_none())
            .filter(|package| !Segment::is_kept(self.cache, package, self.compression))
            .collect();
        if missing.is_empty() { Ok(()) } else { self.fetch_all(&missing) }
    }

    fn fetch_all(&self, missing: &[&LockedPackage]) -> Result<(), BuildError> {
        let bytes = missing.iter().map(|package| package.size).sum();
        self.observer.observe(Event::FetchStarted { files: missing.len(), bytes });
        each(missing, FETCHES, self.interrupt, |package| self.fetch(package))?;
        self.observer.observe(Event::FetchFinished);
        Ok(())
    }

    fn fetch(&self, package: &LockedPackage) -> Result<(), BuildError> {
        let _fetching = self.cache.lock(Area::Debs, package.sha256, &mut || {})?;
        if self.cache.file(Area::Debs, package.sha256).is_some() {
            return Ok(());
        }
        let open = || self.cache.writer(Area::Debs, package.sha256).map_err(io::Error::other);
        let progress = |bytes| {
            self.observer.observe(Event::FetchProgress { bytes });
            !self.interrupt.load(Ordering::Relaxed)
        };
        let writer = self.fetcher.file(&package.url, (package.sha256, package.size), open, &progress)?;
        writer.commit_content(package.size)?;
        Ok(())
    }

    fn parallel<T: Send>(
        &self,
        packages: &[LockedPackage],
        work: impl Fn(&LockedPackage) -> Result<T, BuildError> + Sync,
    ) -> Result<Vec<T>, BuildError> {
        let done = Mutex::new(BTreeMap::new());
        let places: Vec<usize> = (0..packages.len()).collect();
        each(&places, self.jobs, self.interrupt, |place| {
            let value = work(&packages[**place])?;
            done.lock().expect("no holder panics").insert(**place, value);
            Ok(())
        })?;
        Ok(done.into_inner().expect("no holder panics").into_values().collect())
    }
}

/// Calls `work` for each item on some threads; the first error stops the rest.
fn each<T: Sync>(
    items: &[T],
    threads: usize,
    interrupt: &AtomicBool,
    work: impl Fn(&&T) -> Result<(), BuildError> + Sync,
) -> Result<(), BuildError> {
    let next = AtomicUsize::new(0);
    let (errors, first) = mpsc::channel();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            let (errors, next, failed, work) = (errors.clone(), &next, &failed, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed.load(Ordering::Relaxed) || interrupt.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(error) = work(&item) {
                        failed.store(true, Ordering::Relaxed);
                        // The receiver lives until all threads are done.
                        let _ = errors.send(error);
                    }
                }
            });
        }
    });
    drop(errors);
    if interrupt.load(Ordering::Relaxed) {
        return Err(BuildError::Interrupted);
    }
    first.try_iter().next().map_or(Ok(()), Err)
}

/// For each package, its files that another package of the same step replaces. Two packages that ship the same file
/// without one saying `Replaces` are an error, as for dpkg.
fn replaced(packages: &[LockedPackage], segments: &[Segment]) -> Result<Vec<BTreeSet<String>>, BuildError> {
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    let mut losers = vec![BTreeSet::new(); packages.len()];
    for (place, segment) in segments.iter().enumerate() {
        for path in &segment.record.files {
            let Some(earlier) = owners.insert(path, place) else { continue };
            let loser = if replaces(segment, &packages[earlier])? {
                earlier
            } else if replaces(&segments[earlier], &packages[place])? {
                owners.insert(path, earlier);
                place
            } else {
                let (first, second) = (packages[earlier].label(), packages[place].label());
                return Err(BuildError::Overlap { first, second, path: format!("/{path}") });
            };
            losers[loser].insert(path.clone());
        }
    }
    Ok(losers)
}

/// Whether the package of `segment` says that it replaces files of `other`.
pub fn replaces(segment: &Segment, other: &LockedPackage) -> Result<bool, BuildError> {
    let stanza = debian::deb822::single_stanza(&segment.record.control)
        .map_err(|error| BuildError::Package { package: other.label(), source: error.into() })?;
    let package = Package::from_stanza(&stanza)?;
    let version = other
        .version
        .parse()
        .map_err(|error: debian::VersionError| BuildError::Package { package: other.label(), source: error.into() })?;
    let relations = package.relation_list(RelationField::Replaces)?;
    Ok(relations.iter().any(|relation| {
        *relation.name == *other.name && relation.constraint.as_ref().is_none_or(|limit| limit.accepts(&version))
    }))
}

/// What the packages of a step are laid on, and what a layer of some of them must leave out because of it.
pub struct Ground {
    /// Whether the image has no packages yet: the first layer then brings the links of a merged `/usr`.
    pub is_first: bool,
    /// Directories of packages that are links in the image, or are reached through one and are there: for dpkg, a link
    /// that leads to a directory is one.
    linked: BTreeSet<String>,
}

impl Ground {
    /// Looks at what lies below, and at the links among the packages themselves.
    pub fn survey(segments: &[Segment], below: &[TreeDir]) -> io::Result<Self> {
        let view = View::new(below);
        let mut finder = Finder::new(below);
        let shipped: BTreeSet<&str> =
            segments.iter().flat_map(|segment| segment.record.files.iter().map(String::as_str)).collect();
        let directories: BTreeSet<&str> = segments
            .iter()
            .flat_map(|segment| segment.directories().map(|directory| directory.path.as_str()))
            .collect();
        let mut linked = BTreeSet::new();
        // The paths of directories that are links, whether or not something is there.
        let mut links: Vec<ImagePath> = Vec::new();
        for directory in directories {
            let path = path_of(directory)?;
            let leads_to_directory = || -> io::Result<bool> {
                Ok(view.lookup(&view.resolve(&path)?)?.is_some_and(|found| found.metadata.is_dir()))
            };
            if links.iter().any(|link| path.is_within(link)) {
                if leads_to_directory()? {
                    linked.insert(directory.to_owned());
                }
            } else if shipped.contains(directory)
                || finder.lookup(&path)?.is_some_and(|found| found.metadata.is_symlink()) && leads_to_directory()?
            {
                linked.insert(directory.to_owned());
                links.push(path);
            }
        }
        Ok(Self { is_first: finder.lookup(&path_of("bin")?)?.is_none(), linked })
    }
}

/// Some packages of a step, which become one layer. Their order is that of the layer.
pub struct Group<'a> {
    segments: Vec<&'a Segment>,
    /// Whether it brings the links of a merged `/usr`.
    has_links: bool,
    /// Directories that it does not name.
    linked: BTreeSet<&'a str>,
}

impl<'a> Group<'a> {
    /// A group laid on this ground, `is_lowest` of its step or not.
    pub fn new(segments: Vec<&'a Segment>, ground: &'a Ground, is_lowest: bool) -> Self {
        let of_ours = |path: &&str| {
            let mut directories = segments.iter().flat_map(|segment| segment.directories());
            directories.any(|directory| directory.path == *path)
        };
        let linked = ground.linked.iter().map(String::as_str).filter(of_ours).collect();
        Self { segments, has_links: is_lowest && ground.is_first, linked }
    }

    /// Names the bytes of the layer: nothing else of the image matters.
    pub fn key(&self) -> Digest {
        let segments: Vec<[u8; 32]> =
            self.segments.iter().flat_map(|segment| segment.keys()).map(|key| *key.as_bytes()).collect();
        FramedHasher::new("group 2")
            .list("segments", segments)
            .field("links", [u8::from(self.has_links)])
            .list("linked", &self.linked)
            .finish()
    }

    /// Lays the group: first all directories that its packages ship, with the attributes of the first that ships each,
    /// and then every package's segment with its bytecode. Returns whether the layer's files are the same whatever lies below.
    pub fn lay<W: Write + Send>(&self, layer: &mut LayerWriter<W>) -> io::Result<bool> {
        let entries = self.directories()?;
        layer.entries(0, |writer| {
            let mut writer = EntryWriter::new(writer);
            entries.iter().try_for_each(|entry| writer.write_empty(entry))
        })?;
        for segment in &self.segments {
            layer.segment(&segment.path, segment.record.unpacked_size)?;
            if let Some(bytecode) = &segment.bytecode {
                layer.segment(&bytecode.path, bytecode.unpacked_size)?;
            }
        }
        Ok(self.linked.is_empty() && self.names_all_parents(&entries)?)
    }

    fn directories(&self) -> io::Result<Vec<Entry>> {
        let date = self.segments.iter().map(|segment| segment.record.date).max().unwrap_or_default();
        let mut wanted: BTreeMap<&str, Directory> = BTreeMap::new();
        for directory in self.segments.iter().flat_map(|segment| segment.directories()) {
            wanted.entry(&directory.path).or_insert_with(|| directory.clone());
        }
        for path in ALWAYS {
            wanted.entry(path).or_insert_with(|| plain(path, date));
        }
        let mut entries = Vec::new();
        let merged: Vec<String> = MERGED.iter().map(|name| format!("usr/{name}")).collect();
        if self.has_links {
            wanted.entry("usr").or_insert_with(|| plain("usr", date));
            for (name, path) in MERGED.iter().zip(&merged) {
                wanted.entry(path).or_insert_with(|| plain(path, date));
                let kind = Kind::Symlink { target: path.clone().into_bytes() };
                let metadata = Metadata { mode: 0o777, mtime: date, ..Metadata::default() };
                entries.push(Entry { path: path_of(name)?, kind, metadata });
            }
        }
        for directory in wanted.values().filter(|directory| !self.linked.contains(directory.path.as_str())) {
            let path = path_of(&directory.path)?;
            if !path.is_root() || self.has_links {
                let Directory { mode, uid, gid, mtime, .. } = *directory;
                let metadata = Metadata { mode, uid, gid, mtime, ..Metadata::default() };
                entries.push(Entry { path, kind: Kind::Directory, metadata });
            }
        }
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(entries)
    }

    /// Whether every directory that something lies in is among the entries.
    fn names_all_parents(&self, entries: &[Entry]) -> io::Result<bool> {
        let is_directory = |entry: &&Entry| entry.kind == Kind::Directory;
        let named: BTreeSet<&ImagePath> = entries.iter().filter(is_directory).map(|entry| &entry.path).collect();
        let is_named = |path: &ImagePath| path.parent().is_none_or(|up| up.is_root() || named.contains(&up));
        for file in self.segments.iter().flat_map(|segment| &segment.record.files) {
            if !is_named(&path_of(file)?) {
                return Ok(false);
            }
        }
        Ok(entries.iter().all(|entry| is_named(&entry.path)))
    }
}

/// Gives directories that packages ship the attributes that they have for dpkg, where the layers of groups gave them
/// others: those that they had before, or else those of the first package that ships them. The right ones are put into
/// `upper`, over the trees `laid`, of which the first `before` were there before the packages.
pub fn right_directories(
    segments: &[Segment],
    (laid, before): (&[TreeDir], usize),
    upper: &TreeDir,
    owners: Owners,
) -> io::Result<()> {
    let (mut earlier, mut now) = (Finder::new(&laid[..before]), Finder::new(laid));
    let sidecars = laid.iter().map(Sidecar::load).collect::<io::Result<Vec<_>>>()?;
    let attributes = |found: &Found| record::attributes(owners, &found.path, &sidecars[found.tree]);
    let mut seen = BTreeSet::new();
    let always = ALWAYS.map(|path| plain(path, 0));
    for directory in segments.iter().flat_map(Segment::directories).chain(&always) {
        let path = path_of(&directory.path)?;
        if path.is_root() || !seen.insert(&directory.path) {
            continue;
        }
        let Some(found) = now.lookup(&path)?.filter(|found| found.metadata.is_dir() && found.tree >= before) else {
            continue;
        };
        let right = match earlier.lookup(&path)?.filter(|found| found.metadata.is_dir()) {
            Some(found) => attributes(&found)?,
            None => {
                let Directory { mode, uid, gid, .. } = *directory;
                Attributes { mode, uid, gid, ..Attributes::default() }
            }
        };
        if attributes(&found)? == right {
            continue;
        }
        // The directories above are those of the trees below, with nothing changed.
        let above: Vec<ImagePath> = path.ancestors().filter(|above| !above.is_root()).collect();
        for above in above.into_iter().rev().filter(|above| !upper.root().join(above.as_path()).exists()) {
            if let Some(found) = now.lookup(&above)? {
                set_directory(upper, &above, &attributes(&found)?, owners)?;
            }
        }
        set_directory(upper, &path, &right, owners)?;
    }
    Ok(())
}

fn set_directory(upper: &TreeDir, path: &ImagePath, attributes: &Attributes, owners: Owners) -> io::Result<()> {
    let at = upper.root().join(path.as_path());
    match fs::create_dir(&at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Directories carry their records themselves, and need no sidecar.
    record::set_attributes(owners, &at, attributes, &mut Sidecar::default())
}

fn plain(path: &str, mtime: i64) -> Directory {
    Directory { path: path.to_owned(), mode: 0o755, uid: 0, gid: 0, mtime }
}

fn path_of(text: &str) -> io::Result<ImagePath> {
    ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
