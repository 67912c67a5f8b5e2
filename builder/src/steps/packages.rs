//! The step that lays packages: fetches what is missing, makes segments of it on all cores, and puts them into one
//! layer behind the directories they share.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, PoisonError};

use debian::package::{Package, RelationField};
use layer::compress::Compression;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::view::View;
use layer::write::EntryWriter;
use store::{Area, Cache, StoreError};

use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::fetch::Fetcher;
use crate::layers::LayerWriter;
use crate::package::segment::{Directory, MERGED, Segment};
use crate::plan::LockedPackage;

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

/// Lays packages over the image that `below` shows: first the directories that it lacks, with the attributes of the
/// first package that ships each, then every package's segment, and its bytecode.
pub fn lay<W: Write + Send>(segments: &[Segment], below: &View<'_>, layer: &mut LayerWriter<W>) -> io::Result<()> {
    let entries = directories(segments, below)?;
    layer.entries(0, |writer| {
        let mut writer = EntryWriter::new(writer);
        entries.iter().try_for_each(|entry| writer.write_empty(entry))
    })?;
    for segment in segments {
        layer.segment(&segment.path, segment.record.unpacked_size)?;
        if let Some(bytecode) = &segment.bytecode {
            layer.segment(&bytecode.path, bytecode.unpacked_size)?;
        }
    }
    Ok(())
}

fn directories(segments: &[Segment], below: &View<'_>) -> io::Result<Vec<Entry>> {
    let date = segments.iter().map(|segment| segment.record.date).max().unwrap_or_default();
    let plain = |path: &str, mtime| Directory { path: path.to_owned(), mode: 0o755, uid: 0, gid: 0, mtime };
    let mut wanted: BTreeMap<&str, Directory> = BTreeMap::new();
    let shipped = segments.iter().flat_map(|segment| &segment.record.directories);
    let of_bytecode =
        segments.iter().filter_map(|segment| segment.bytecode.as_ref()).flat_map(|made| &made.directories);
    for directory in shipped.chain(of_bytecode) {
        wanted.entry(&directory.path).or_insert_with(|| directory.clone());
    }
    for path in ["var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info"] {
        wanted.entry(path).or_insert_with(|| plain(path, date));
    }
    let mut entries = Vec::new();
    let merged: Vec<String> = MERGED.iter().map(|name| format!("usr/{name}")).collect();
    let is_first = below.lookup(&path_of("bin")?)?.is_none();
    if is_first {
        wanted.entry("usr").or_insert_with(|| plain("usr", date));
        for (name, path) in MERGED.iter().zip(&merged) {
            wanted.entry(path).or_insert_with(|| plain(path, date));
            let kind = Kind::Symlink { target: path.clone().into_bytes() };
            let metadata = Metadata { mode: 0o777, mtime: date, ..Metadata::default() };
            entries.push(Entry { path: path_of(name)?, kind, metadata });
        }
    }
    for directory in wanted.values() {
        let path = path_of(&directory.path)?;
        // A link that leads to a directory is one, as for dpkg.
        let present = below.lookup(&below.resolve(&path)?)?.is_some_and(|found| found.metadata.is_dir());
        if !present || (path.is_root() && is_first) {
            let Directory { mode, uid, gid, mtime, .. } = *directory;
            let metadata = Metadata { mode, uid, gid, mtime, ..Metadata::default() };
            entries.push(Entry { path, kind: Kind::Directory, metadata });
        }
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(entries)
}

fn path_of(text: &str) -> io::Result<ImagePath> {
    ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
