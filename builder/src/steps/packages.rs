//! The step that lays packages: fetches what is missing, makes segments of it on all cores, and puts them into layers,
//! one for each group of packages that the same images need.
//!
//! A group's layer is the same bytes in whatever image it lies. So it names all directories that its packages ship, also
//! those that are there already, with the attributes that its own packages give them. dpkg would keep those that a
//! directory had before; where they differ, [`right_directories`] puts that right in the image's own layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use content::{Digest, FramedHasher};
use debian::package::{Package, RelationField};
use layer::compress::Compression;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::{self, Attributes, Owners, Sidecar, TreeDir};
use layer::unpack::Unpacker;
use layer::view::{Finder, Found, View};
use layer::write::EntryWriter;
use serde::{Deserialize, Serialize};
use store::{Area, Cache, StoreError};

use crate::error::BuildError;
use crate::events::{Event, Observer};
use crate::fetch::Fetcher;
use crate::layers::LayerWriter;
use crate::package::bytecode::Bytecode;
use crate::package::download;
use crate::package::segment::{Directory, MERGED, Segment};
use crate::parallel::{Places, each, map};
use crate::plan::LockedPackage;
use crate::remote::Elsewhere;

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
    /// What is kept elsewhere.
    pub elsewhere: &'a dyn Elsewhere,
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

    /// The segments of packages with all their files. While some are fetched, others are made.
    fn whole(&self, packages: &[LockedPackage]) -> Result<Vec<Segment>, BuildError> {
        let missing = self.missing(packages);
        let stopped = AtomicBool::new(false);
        let stop = |error| {
            stopped.store(true, Ordering::Relaxed);
            error
        };
        self.announced(&missing, || {
            std::thread::scope(|scope| {
                let fetching = scope.spawn(|| self.fetch_each(&missing, &stopped).map_err(stop));
                let made = map(packages, self.jobs, self.interrupt, |package| {
                    self.fetch_if_missing(package, &stopped)?;
                    let _place = self.places.take();
                    self.segment(package, &BTreeSet::new())
                });
                let made = made.map_err(stop);
                fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                made
            })
        })
    }

    /// Fetches packages that nobody waits for yet.
    pub fn fetch_ahead(&self, packages: &[&LockedPackage]) -> Result<(), BuildError> {
        let missing: Vec<&LockedPackage> =
            packages.iter().copied().filter(|package| self.is_missing(package)).collect();
        self.fetch_each(&missing, self.interrupt)
    }

    /// One segment. Where it must be made and the `.deb` is gone, or turned out to be damaged, that is fetched again.
    fn segment(&self, package: &LockedPackage, left_out: &BTreeSet<String>) -> Result<Segment, BuildError> {
        self.borrow(package, left_out);
        match Segment::of(self.cache, package, self.compression, left_out) {
            Err(BuildError::Store(StoreError::Missing { .. })) => {
                self.announced(&[package], || self.fetch(package))?;
                Segment::of(self.cache, package, self.compression, left_out)
            }
            other => other,
        }
    }

    /// Takes a segment from elsewhere that is not here.
    fn borrow(&self, package: &LockedPackage, left_out: &BTreeSet<String>) {
        let (key, record) = Segment::keys_of(package, self.compression, left_out);
        let is_here = |key| self.cache.file(Area::Segments, key).is_some();
        if self.elsewhere.has(Area::Segments, record) && !(is_here(key) && is_here(record)) {
            // Where only one of the two comes, the segment is made here.
            let _ = self.elsewhere.piece(key) && self.elsewhere.record(Area::Segments, record);
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

    /// The packages whose `.deb` is neither kept nor needed no more because its segment is.
    fn missing<'p>(&self, packages: &'p [LockedPackage]) -> Vec<&'p LockedPackage> {
        packages.iter().filter(|package| self.is_missing(package)).collect()
    }

    fn is_missing(&self, package: &LockedPackage) -> bool {
        self.cache.file(Area::Debs, package.sha256).is_none()
            && !Segment::is_kept(self.cache, package, self.compression)
            && !self.is_elsewhere(package)
    }

    fn is_elsewhere(&self, package: &LockedPackage) -> bool {
        let (_, record) = Segment::keys_of(package, self.compression, &BTreeSet::new());
        self.elsewhere.has(Area::Segments, record)
    }

    /// Waits for whoever fetches it, or does it. Gives up if `stopped`: somebody then has the reason.
    fn fetch_if_missing(&self, package: &LockedPackage, stopped: &AtomicBool) -> Result<(), BuildError> {
        if stopped.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        if self.is_missing(package) { self.fetch(package) } else { Ok(()) }
    }

    /// Fetches packages, several at a time, until `stopped`.
    fn fetch_each(&self, missing: &[&LockedPackage], stopped: &AtomicBool) -> Result<(), BuildError> {
        each(missing, FETCHES, self.interrupt, |package| match stopped.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.fetch(package),
        })
    }

    /// Says before and after `work` that files are fetched meanwhile, if any are.
    fn announced<T>(
        &self,
        missing: &[&LockedPackage],
        work: impl FnOnce() -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        if missing.is_empty() {
            return work();
        }
        let bytes = missing.iter().map(|package| package.size).sum();
        self.observer.observe(Event::FetchStarted { files: missing.len(), bytes });
        let done = work()?;
        self.observer.observe(Event::FetchFinished);
        Ok(done)
    }

    fn fetch(&self, package: &LockedPackage) -> Result<(), BuildError> {
        download::fetch(self.cache, self.fetcher, package, &|bytes| {
            self.observer.observe(Event::FetchProgress { bytes });
            !self.interrupt.load(Ordering::Relaxed)
        })
    }
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
    /// What packages are laid on, as far as it can be known before it is there: an image that has others, and no links
    /// but those of these packages.
    pub fn presumed(segments: &[Segment]) -> io::Result<Self> {
        Ok(Self { is_first: false, ..Self::survey(segments, &[])? })
    }

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

/// A segment in the layer of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Under which its bytes are kept.
    pub key: Digest,
    /// Under which its record is kept.
    pub record: Digest,
    /// Where in the layer, as stored, it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Names them.
    pub digest: Digest,
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
        let segments: Vec<Digest> = self.segments.iter().flat_map(|segment| segment.keys()).collect();
        FramedHasher::new("group 2")
            .list("segments", segments)
            .field("links", [u8::from(self.has_links)])
            .list("linked", &self.linked)
            .finish()
    }

    /// Lays the group: first `directories`, which are its own, and then every package's segment with its bytecode.
    /// Unpacks it into `tree` at the same time, if there is one. Returns where the segments are.
    pub fn lay<W: Write + Send>(
        &self,
        layer: &mut LayerWriter<W>,
        directories: &[Entry],
        mut tree: Option<&mut Unpacker<'_>>,
    ) -> io::Result<Vec<Part>> {
        layer.entries(0, |writer| {
            let mut writer = EntryWriter::new(writer);
            directories.iter().try_for_each(|entry| writer.write_empty(entry))
        })?;
        if let Some(tree) = &mut tree {
            directories.iter().try_for_each(|entry| tree.apply(entry, &mut io::empty()))?;
        }
        let mut parts = Vec::new();
        let mut part = |key, record, digest, path: &Path, unpacked_size| {
            let offset = layer.stored_size();
            match &mut tree {
                Some(tree) => {
                    let mut unpack = |entry: Entry, content: &mut dyn Read| tree.apply(&entry, content);
                    layer.segment(path, unpacked_size, Some(&mut unpack))?;
                }
                None => layer.segment(path, unpacked_size, None)?,
            }
            parts.push(Part { key, record, offset, size: layer.stored_size() - offset, digest });
            io::Result::Ok(())
        };
        for segment in &self.segments {
            let Segment { key, digest, path, record, .. } = segment;
            part(*key, segment.record_key(), *digest, path, record.unpacked_size)?;
            if let Some(bytecode) = &segment.bytecode {
                let Bytecode { key, digest, path, unpacked_size, .. } = bytecode;
                part(*key, bytecode.record_key(), *digest, path, *unpacked_size)?;
            }
        }
        Ok(parts)
    }

    /// All directories that its packages ship, with the attributes of the first that ships each.
    pub fn directories(&self) -> io::Result<Vec<Entry>> {
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

    /// Whether the layer's files are the same whatever lies below. `directories` are its own.
    pub fn stands_alone(&self, directories: &[Entry]) -> io::Result<bool> {
        Ok(self.linked.is_empty() && self.names_all_parents(directories)?)
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
