//! `drystone bundle`: a family in one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone::apt::archive::Archives;
use drystone::apt::copy::SourceFile;
use drystone::archive::Named;
use drystone::bundle::{self, Address, Bundle, BundleError, Contents, Destination, Saved};
use drystone::dockerfile;
use drystone::events::{Event, Observer};
use drystone::lock::files::pinned;
use drystone::plan::{LockedPackage, PlannedImage};
use drystone::platform::debian_architecture;
use drystone::referrers;
use drystone::steps::files::{Files, Inputs};
use oci::Reference;
use serde_json::json;
use spec::{AptSource, FileContent, FileEntry};
use store::{Area, Cache, Layout};

use crate::args::{BundleCommand, BundleInspect, BundleLoad, BundleSave, Output, TextFormat};
use crate::destination::{Counted, write_file};
use crate::failure::Failure;
use crate::locking::Decision;
use crate::session::{self, Planned};
use crate::{progress, table};

/// Runs the command.
pub fn run(command: &BundleCommand, output: Output) -> Result<(), Failure> {
    match command {
        BundleCommand::Save(arguments) => save(arguments, output),
        BundleCommand::Load(arguments) => load(arguments, output),
        BundleCommand::Inspect(arguments) => inspect(arguments),
    }
}

fn save(arguments: &BundleSave, output: Output) -> Result<(), Failure> {
    let observer = progress::observer(output);
    let interrupt = session::stop_on_signals()?;
    let names: Vec<String> = arguments.family.iter().cloned().collect();
    let since = arguments.since.as_deref().map(head).transpose()?.map(|(since, _)| since);
    let saved = session::plan(&names, &arguments.build, &arguments.registry, |planned| {
        let Some(layout) = planned.layout else {
            let text = format!("there is no layout at `{}`", arguments.build.layout.layout.display());
            return Err(Failure::with_hint(text, "`drystone build` makes one"));
        };
        let mut addresses = Vec::new();
        let sources = match arguments.with_sources {
            true => Some(sources(arguments, planned, observer.as_ref(), &mut addresses)?),
            false => None,
        };
        let contents = Contents {
            loaded: planned.loaded,
            name: name_of(&planned.loaded.directory)?,
            layout,
            images: images(planned, layout)?,
            cache: planned.cache,
            sources,
            addresses,
            since: since.clone(),
            left_out: [Some(&arguments.file), arguments.since.as_ref()].into_iter().flatten().cloned().collect(),
        };
        let prepared = bundle::prepare(contents).map_err(Failure::of_bundle)?;
        write_file(&arguments.file, |out| {
            let out = Counted::new(BufWriter::with_capacity(1 << 17, out), &interrupt);
            interrupted_or(&interrupt, prepared.write(out))
        })
    })?;
    let Saved { files, bytes, earlier } = saved;
    let left_out = if earlier > 0 { format!("; {earlier} more are in the earlier bundle") } else { String::new() };
    let text = format!("saved {files} files, {}, in `{}`{left_out}", table::size(bytes), arguments.file.display());
    observer.observe(Event::Note(&text));
    Ok(())
}

/// The name that the family's directory has.
fn name_of(directory: &Path) -> Result<String, Failure> {
    let real = fs::canonicalize(directory).map_err(Failure::of)?;
    let name = real.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Failure::new(format!("the family's directory `{}` has no name", real.display())))
}

/// The images of the family, what they are built on, and what is said about them.
fn images(planned: &Planned<'_>, layout: &Layout) -> Result<Vec<Named>, Failure> {
    let mut images: Vec<Named> = Vec::new();
    for image in wanted(planned) {
        let reference = &planned.names[image.image.name.as_str()];
        match layout.find(reference)? {
            Some(manifest) => images.push((reference.clone(), without_name(manifest))),
            None if image.image.build_only => {}
            None => return Err(Failure::of_bundle(BundleError::NotBuilt(Box::new(reference.clone())))),
        }
    }
    for decision in planned.plans {
        dockerfile::bases::find(&decision.plan, planned.bases)?;
    }
    let bases: BTreeSet<_> = planned.bases.all().iter().flat_map(|base| [base.digest, base.manifest.digest]).collect();
    let named = layout.references()?.into_iter().filter(|(_, entry)| bases.contains(&entry.digest));
    images.extend(named.map(|(name, manifest)| (name, without_name(manifest))));
    let all = referrers::all(layout)?;
    let about = images.iter().flat_map(|(_, manifest)| referrers::of(&all, manifest.digest));
    let statements: Vec<Named> =
        about.map(|referrer| (referrer.reference, without_name(referrer.descriptor))).collect();
    images.extend(statements);
    images.sort_by(|(left, _), (right, _)| left.cmp(right));
    images.dedup_by(|(left, _), (right, _)| left == right);
    Ok(images)
}

/// The images of all platforms that are asked for.
fn wanted<'p>(planned: &'p Planned<'_>) -> impl Iterator<Item = &'p PlannedImage<'p>> {
    planned.plans.iter().flat_map(|decision| &decision.plan.images).filter(|image| image.wanted)
}

/// An entry of the layout's index without the name that it has there.
fn without_name(mut entry: oci::Descriptor) -> oci::Descriptor {
    entry.annotations.clear();
    entry
}

fn sources(
    arguments: &BundleSave,
    planned: &Planned<'_>,
    observer: &dyn Observer,
    addresses: &mut Vec<Address>,
) -> Result<BTreeMap<String, SourceFile>, Failure> {
    let loaded = planned.loaded;
    let mirrors = session::mirrors(&arguments.build.mirror, &loaded.directory)?;
    let is_used = |source: &&AptSource| {
        let uses = |image: &PlannedImage<'_>| {
            !image.packages.is_empty() && image.image.sources.iter().any(|name| name.value == source.name.value)
        };
        wanted(planned).any(uses)
    };
    let used: Vec<&AptSource> = loaded.family.sources.iter().filter(is_used).collect();
    let progress = |bytes| {
        observer.observe(Event::FetchProgress { bytes });
        true
    };
    let mut files = BTreeMap::new();
    for Decision { plan, .. } in planned.plans {
        let archives = Archives {
            mirrors: &mirrors,
            fetcher: planned.fetcher,
            cache: planned.cache,
            family: &loaded.directory,
            now: session::now(),
            architecture: debian_architecture(&plan.platform),
        };
        let images = plan.images.iter().filter(|image| image.wanted);
        let packages: Vec<&LockedPackage> = images.flat_map(|image| image.packages.values().flatten()).collect();
        files.extend(archives.copy(&used, &packages, &progress)?);
    }
    let pinned = pinned(planned.pinned);
    let inputs = Inputs { family: &loaded.directory, fetcher: planned.fetcher, cache: planned.cache, pinned: &pinned };
    for entry in wanted(planned).flat_map(|image| image.image.files()) {
        if let Some((address, file)) = by_address(entry, &inputs, planned.cache)? {
            files.insert(format!("files/{}", address.digest.hex()), file);
            addresses.push(address);
        }
    }
    addresses.sort();
    addresses.dedup();
    Ok(files)
}

/// A file by address, which is fetched unless the cache has it.
fn by_address(entry: &FileEntry, inputs: &Inputs<'_>, cache: &Cache) -> Result<Option<(Address, SourceFile)>, Failure> {
    let FileContent::Url { url, .. } = &entry.content else { return Ok(None) };
    let read = Files::read(std::slice::from_ref(entry), inputs)?;
    let Some((_, digest)) = read.contents().into_iter().next() else { return Ok(None) };
    // Stand-ins are not in the cache, and every machine makes them.
    let Some(path) = cache.file(Area::Debs, digest) else { return Ok(None) };
    let size = fs::metadata(&path).map_err(|error| Failure::of_storage_at(&path, error))?.len();
    let file = SourceFile::Kept { area: Area::Debs, digest, size };
    Ok(Some((Address { url: url.value.clone(), digest }, file)))
}

fn load(arguments: &BundleLoad, output: Output) -> Result<(), Failure> {
    let observer = progress::observer(output);
    // A file that is no bundle leaves nothing behind, not even an empty layout.
    head(&arguments.file)?;
    let cache = Cache::open(session::cache_directory(arguments.cache.cache_dir.as_deref())?)?;
    let layout = Layout::open_or_create(&arguments.layout.layout)?;
    let destination = Destination { directory: arguments.directory.clone(), layout: &layout, cache: &cache };
    let interrupt = session::stop_on_signals()?;
    let file = Stoppable { file: open(&arguments.file)?, interrupt: &interrupt };
    let loaded = interrupted_or(&interrupt, bundle::load(file, &destination))?;
    let mut text = String::new();
    for reference in &loaded.images {
        if let Some(manifest) = layout.find(reference)? {
            let _ = writeln!(text, "{reference} {}", manifest.digest);
        }
    }
    session::print(&text)?;
    let (images, place) = (loaded.images.len(), loaded.directory.display());
    let sources = if loaded.bundle.with_sources { "with what it is built from" } else { "without its sources" };
    let text =
        format!("loaded {images} images into `{}`, and the family into `{place}`, {sources}", layout.root().display());
    observer.observe(Event::Note(&text));
    Ok(())
}

/// What came of reading or writing a bundle, unless somebody asked to stop, which shows as an error like others.
fn interrupted_or<T>(interrupt: &AtomicBool, done: Result<T, BundleError>) -> Result<T, Failure> {
    match interrupt.load(Ordering::Relaxed) {
        true => Err(Failure::Interrupted),
        false => done.map_err(Failure::of_bundle),
    }
}

/// A file that is read until somebody asks to stop.
struct Stoppable<'a> {
    file: File,
    interrupt: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.interrupt.load(Ordering::Relaxed) {
            true => Err(io::Error::other("interrupted")),
            false => self.file.read(buffer),
        }
    }
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", file.display())))
}

fn head(file: &Path) -> Result<(Bundle, Vec<Reference>), Failure> {
    bundle::read_head(open(file)?)
        .map_err(|error| Failure::new(format!("`{}`: {}", file.display(), drystone::error::chain(&error))))
}

fn inspect(arguments: &BundleInspect) -> Result<(), Failure> {
    let (bundle, images) = head(&arguments.file)?;
    let mut areas: BTreeMap<&str, (usize, u64, usize)> = BTreeMap::new();
    for member in &bundle.files {
        let area = member.path.strip_prefix("drystone/").unwrap_or(&member.path).split('/').next().unwrap_or_default();
        let (files, bytes, earlier) = areas.entry(area).or_default();
        *files += 1;
        *bytes += if member.earlier { 0 } else { member.size };
        *earlier += usize::from(member.earlier);
    }
    let tagged: Vec<&Reference> = images.iter().filter(|image| image.tag().is_some()).collect();
    if arguments.format == TextFormat::Json {
        let area = |(name, (files, bytes, earlier)): (&&str, &(usize, u64, usize))| {
            ((*name).to_owned(), json!({"files": files, "bytes": bytes, "in_earlier_bundle": earlier}))
        };
        let areas: serde_json::Map<String, serde_json::Value> = areas.iter().map(area).collect();
        let whole = json!({
            "id": bundle.id(), "family": bundle.family, "with_sources": bundle.with_sources, "since": bundle.since,
            "images": tagged, "contents": areas,
        });
        return session::print(&(serde_json::to_string_pretty(&whole).map_err(Failure::of)? + "\n"));
    }
    let mut text = format!("family {}\nid     {}\n", bundle.family, bundle.id());
    if let Some(since) = bundle.since {
        let _ = writeln!(text, "since  {since}, which has to be loaded first");
    }
    let _ = writeln!(text, "{}\n", if bundle.with_sources { "with sources" } else { "without sources" });
    let header = ["CONTENT", "FILES", "SIZE", "IN THE EARLIER BUNDLE"].map(str::to_owned).to_vec();
    let row = |(area, (files, bytes, earlier)): (&&str, &(usize, u64, usize))| {
        vec![(*area).to_owned(), files.to_string(), table::size(*bytes), earlier.to_string()]
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(areas.iter().map(row)).collect();
    text.push_str(&table::columns(&rows));
    text.push('\n');
    for image in tagged {
        let _ = writeln!(text, "{image}");
    }
    session::print(&text)
}
