//! What commands that build share: the environment and the clock are read here, and the library gets what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use content::{Digest, FramedHasher};
use drystone::apt::mirror::Mirrors;
use drystone::archive::Named;
use drystone::base::{Bases, Puller};
use drystone::build::{Builder, BuiltImage, Finished, Groups, Options, lend};
use drystone::bundle::carried::Carried;
use drystone::cut::Cut;
use drystone::events::{Event, Observer};
use drystone::fetch::Fetcher;
use drystone::load::{FAMILY_FILE, IMAGE_FILE, LoadedFamily, load};
use drystone::lock::files::{self, Pinned};
use drystone::logs::Logs;
use drystone::parallel::Places;
use drystone::pause::Pause;
use drystone::plan::{self, Plan};
use drystone::platform;
use drystone::remote::{Elsewhere, Lent};
use drystone::rootfs::directory::Owners;
use drystone::secrets::Secrets;
use drystone::statements::{self, Wanted};
use drystone::steps::commands::LookAround;
use drystone::steps::files::Inputs;
use oci::{Reference, Registry};
use sandbox::{Choice, Rung, Sandbox};
use spec::lock::LockedFile;
use spec::{Image, Parent, Variables};
use store::{Area, Cache, Layout, ScratchDir};

use crate::args::{
    BuildArgs, ColorKind, LayoutArgs, MirrorArgs, Output, RegistryArgs, SecretArgument, SecretSource, SharedCacheArgs,
};
use crate::destination::{self, Destination};
use crate::failure::Failure;
use crate::locking::{self, Decided, Decision, Question, Tools};
use crate::progress;
use crate::pulling::RegistryPuller;
use crate::remote::Caches;
use crate::shell::{self, AtTerminal};

/// Where apt keeps its sources.
pub const HOST_APT: &str = "/etc/apt";
/// The directory of logs in the cache.
const LOGS: &str = "logs";
/// As much as a secret may be, as for BuildKit.
const LARGEST_SECRET: u64 = 500 << 10;
/// How long work may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// A build that is done.
pub struct Built {
    /// Its images, platform by platform, parents first.
    pub images: Vec<BuiltImage>,
    /// What their names stand for, by name.
    pub named: Vec<Finished>,
    /// The images or patterns that were asked for; if there are none, all images were.
    patterns: Vec<String>,
    /// Where they are.
    pub layout: Arc<Layout>,
    /// What was kept of the build.
    cache: Cache,
    /// Whom files belong to that are written elsewhere.
    file_owners: Owners,
    /// Who is told of what follows.
    observer: Arc<dyn Observer>,
    /// Set when somebody asks to stop.
    pub interrupt: Arc<AtomicBool>,
    /// When the command was started.
    pub started: Instant,
    /// What is to be stored in remote caches.
    pub lent: Option<Lent>,
    /// Holds a place that is gone afterwards.
    _aside: Option<ScratchDir>,
}

impl Built {
    /// The images that were asked for, without those that only came along and those that are only parents for others.
    pub fn asked(&self) -> impl Iterator<Item = &Finished> {
        let asked = |name: &str| self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, name));
        let names: BTreeSet<&Reference> =
            self.images.iter().filter(|image| asked(image.name.as_str())).map(|image| &image.reference).collect();
        self.named.iter().filter(move |image| !image.build_only && names.contains(&image.reference))
    }

    /// Writes the images that were asked for to these places.
    pub fn write_to(&self, destinations: &[Destination]) -> Result<(), Failure> {
        let images: Vec<Named> = self.asked().map(|image| (image.reference.clone(), image.manifest.clone())).collect();
        let writer = destination::Writer {
            layout: &self.layout,
            cache: &self.cache,
            observer: self.observer.as_ref(),
            interrupt: &self.interrupt,
            owners: self.file_owners,
        };
        writer.write(destinations, &images, &platform::usual())
    }
}

/// Where a build happens.
pub struct Surroundings<'a> {
    /// Where images go.
    pub layout: &'a Arc<Layout>,
    /// The registry of the family.
    pub registry: &'a Registry,
    /// Who is told.
    pub observer: &'a Arc<dyn Observer>,
}

/// Somebody who does something with images before all of them are built.
pub trait Follow: Sync {
    /// All is decided, and nothing is built yet.
    fn begin(&self, _: &Surroundings<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// An image is whole.
    fn finished(&self, _: &Finished) {}

    /// Whether the images go to their registry.
    fn pushes(&self) -> bool {
        false
    }
}

/// Nobody does.
impl Follow for () {}

/// Builds the images that `names` ask for: a family's directory first, if there is one, and then images or patterns.
pub fn build<'a>(
    names: &[String],
    arguments: &BuildArgs,
    (shared, registry): (&'a SharedCacheArgs, &RegistryArgs),
    output: Output,
    follower: &dyn Follow,
) -> Result<(Built, Option<Caches<'a>>), Failure> {
    let started = Instant::now();
    let (loaded, patterns) = load_family(names, &arguments.set)?;
    let place = Workplace::open(arguments, output)?;
    build_in(place, (loaded, patterns), arguments, (shared, registry), follower, started)
}

/// The same in a layout and a cache of their own, which are gone afterwards; only downloads are the cache's. The lock is
/// not written.
pub fn build_aside(
    names: &[String],
    arguments: &BuildArgs,
    registry: &RegistryArgs,
    output: Output,
) -> Result<Built, Failure> {
    let started = Instant::now();
    let (loaded, patterns) = load_family(names, &arguments.set)?;
    let place = Workplace::open(arguments, output)?.aside(&loaded)?;
    let nobody = SharedCacheArgs::default();
    Ok(build_in(place, (loaded, patterns), arguments, (&nobody, registry), &(), started)?.0)
}

fn build_in<'a>(
    place: Workplace,
    (loaded, patterns): (LoadedFamily, Vec<String>),
    arguments: &BuildArgs,
    (shared, registry): (&'a SharedCacheArgs, &RegistryArgs),
    follower: &dyn Follow,
    started: Instant,
) -> Result<(Built, Option<Caches<'a>>), Failure> {
    let Workplace { cache, layout, observer, .. } = &place;
    let fetcher = fetcher(&loaded, cache, arguments.lock.offline)?;
    let puller = puller(&loaded, registry, layout, observer, arguments.lock.offline)?;
    let mut bases = bases(&loaded, layout, cache, puller.as_ref());
    let tools = Tools { cache, fetcher: &fetcher, layout: Some(layout) };
    let mut decided = locking::decide(&Question::of(&loaded, &patterns, arguments), &tools, &mut bases)?;
    if arguments.locked {
        decided.must_be_locked()?;
    }
    for source in of_plans(&decided.plans, |plan| &plan.stand_ins) {
        let text = format!(
            "the packages of `{source}` are stand-ins, which answer in the place of the vendor's programs; \
             the family says which variable names the real archive"
        );
        observer.observe(Event::Warning(&text));
    }
    let stand_ins = of_plans(&decided.plans, |plan| &plan.stand_ins);
    for source in of_plans(&decided.plans, |plan| &plan.unsigned_sources).difference(&stand_ins) {
        let text = format!("nobody signs the source `{source}`: the family says `trusted: true`");
        observer.observe(Event::Warning(&text));
    }
    let home = arguments.registry.as_ref().unwrap_or(&loaded.family.registry.value);
    let reference = |image: &Image| decided.names[image.name.as_str()].clone();
    let home: Registry = home.as_str().parse().map_err(Failure::of)?;
    follower.begin(&Surroundings { layout, registry: &home, observer })?;
    let caches = Caches::new(shared, registry, arguments.lock.offline, observer)?;
    let borrowing = caches.as_ref().map(|caches| caches.borrowing(cache, layout, observer));
    let elsewhere: &dyn Elsewhere = borrowing.as_ref().map_or(&(), |borrowing| borrowing);
    let pinned = files::pinned(&decided.lock.files);
    let builder = place.builder(arguments, &loaded.directory, &fetcher, &bases)?.with_files(pinned.clone());
    let builder = Builder { elsewhere, ..builder };
    let plans: Vec<(&Plan<'_>, &Cut)> = decided.plans.iter().map(|Decision { plan, cut }| (plan, cut)).collect();
    let (images, named) = builder.build(&plans, &reference, &|image| follower.finished(image))?;
    let lent = match &caches {
        Some(caches) if caches.wants_results() => Some(lend(cache, elsewhere, &images, follower.pushes())?),
        _ => None,
    };
    let inputs = Inputs { family: &loaded.directory, fetcher: &fetcher, cache, pinned: &pinned };
    let plans: Vec<&Plan<'_>> = plans.into_iter().map(|(plan, _)| plan).collect();
    attach_statements(layout, &images, Some((&plans, &inputs)), arguments, observer.as_ref())?;
    drop(builder);
    drop(borrowing);
    // Only now is it known what Dockerfiles are built on, and that an archive has what its index promised.
    decided.note(&bases);
    match (arguments.locked, &place.aside) {
        (true, _) => decided.must_be_locked()?,
        (false, None) => decided.keep(observer.as_ref()),
        (false, Some(_)) => {}
    }
    drop(decided);
    drop(bases);
    let Workplace { layout, cache, file_owners, observer, interrupt, aside, .. } = place;
    let built = Built {
        images,
        named,
        patterns,
        layout,
        cache,
        file_owners,
        observer,
        interrupt,
        started,
        lent,
        _aside: aside,
    };
    Ok((built, caches))
}

/// Keeps what is to be said about images.
pub fn attach_statements(
    layout: &Layout,
    images: &[BuiltImage],
    from: Option<(&[&Plan<'_>], &Inputs<'_>)>,
    arguments: &BuildArgs,
    observer: &dyn Observer,
) -> Result<(), Failure> {
    let bills = arguments.sbom.iter().filter_map(|bill| bill.0).collect();
    let wanted = Wanted { bills, provenance: arguments.provenance };
    let said = statements::attach(layout, images, from, &wanted).map_err(Failure::of_statement)?;
    if said > 0 {
        observer.observe(Event::Note(&format!("{said} new statements about images: bills of materials, provenance")));
    }
    Ok(())
}

/// What the plans of all platforms name.
fn of_plans<'a>(plans: &'a [Decision<'_>], names: impl Fn(&'a Plan<'_>) -> &'a Vec<String>) -> BTreeSet<&'a str> {
    plans.iter().flat_map(|decision| names(&decision.plan)).map(String::as_str).collect()
}

/// Stores the results of a build in the caches of `--cache-to`.
pub fn store_results(built: &Built, caches: Option<&Caches<'_>>) -> Result<(), Failure> {
    match (caches, &built.lent) {
        (Some(caches), Some(lent)) => caches.store(&built.layout, lent),
        _ => Ok(()),
    }
}

/// What every build needs: places, secrets, a sandbox, and people.
pub struct Workplace {
    /// When the command was started.
    pub started: Instant,
    /// The cache.
    pub cache: Cache,
    /// Where images go.
    pub layout: Arc<Layout>,
    /// Who is told of what happens.
    pub observer: Arc<dyn Observer>,
    /// Set when somebody asks to stop.
    pub interrupt: Arc<AtomicBool>,
    /// Whom files belong to that are written elsewhere.
    pub file_owners: Owners,
    sandbox: Sandbox,
    secrets: Secrets,
    somebody: Option<AtTerminal>,
    /// Where cache and layout are, if they are gone afterwards.
    aside: Option<ScratchDir>,
}

impl Workplace {
    /// Makes everything ready. Nothing may have started a thread before.
    pub fn open(arguments: &BuildArgs, output: Output) -> Result<Self, Failure> {
        let started = Instant::now();
        if arguments.shell_fail {
            shell::must_be_on_terminal()?;
        }
        let secrets = secrets(&arguments.secret)?;
        // The cache's directory may lie where only the user that was before may write; the sandbox must also be entered
        // while there is one thread, and everything below starts some.
        let cache_directory = cache_directory(arguments.cache.cache_dir.as_deref())?;
        let file_owners = owners_of_files();
        let sandbox = sandbox::enter(arguments.sandbox).map_err(|error| {
            let fixes = error.fixes();
            if fixes.is_empty() {
                Failure::of(error)
            } else {
                Failure::with_hint(error.to_string(), fixes.join("\n      "))
            }
        })?;
        let interrupt = stop_on_signals()?;
        let (observer, screen) = progress::observer_on_screen(output);
        let somebody = arguments.shell_fail.then(|| AtTerminal::new(screen));
        observer.observe(Event::Note(&format!("sandbox {}", sandbox.reason())));
        let cache = Cache::open(&cache_directory)?;
        let layout = Arc::new(Layout::open_or_create(&arguments.layout.layout)?);
        let aside = None;
        Ok(Self { started, cache, layout, observer, interrupt, file_owners, sandbox, secrets, somebody, aside })
    }

    /// Makes ready to look at what would be built, which runs nothing and tells nobody. Where there is no layout, an empty
    /// one stands for it, elsewhere.
    pub fn to_look_at(arguments: &BuildArgs) -> Result<Self, Failure> {
        let started = Instant::now();
        let secrets = secrets(&arguments.secret)?;
        let cache_directory = cache_directory(arguments.cache.cache_dir.as_deref())?;
        // While there is one thread.
        let sandbox = sandbox::enter(Choice::Forced(Rung::None)).map_err(Failure::of)?;
        let interrupt = stop_on_signals()?;
        let cache = Cache::open(cache_directory)?;
        let elsewhere = cache.scratch_dir()?;
        let layout = match arguments.layout.layout.exists() {
            true => Layout::open(&arguments.layout.layout)?,
            false => Layout::open_or_create(elsewhere.path().join("oci"))?,
        };
        let (layout, observer) = (Arc::new(layout), Arc::new(()));
        let (file_owners, somebody, aside) = (Owners::Writer, None, Some(elsewhere));
        Ok(Self { started, cache, layout, observer, interrupt, file_owners, sandbox, secrets, somebody, aside })
    }

    /// The same with an empty layout and an empty cache, which has only the downloads of this one, and what images of the
    /// family may be built on.
    fn aside(mut self, loaded: &LoadedFamily) -> Result<Self, Failure> {
        let directory = self.cache.scratch_dir()?;
        let layout = Layout::open_or_create(directory.path().join("oci"))?;
        share_bases(loaded, &self.layout, &layout)?;
        self.cache = cache_with_downloads_of(&self.cache, directory.path())?;
        self.layout = Arc::new(layout);
        self.aside = Some(directory);
        Ok(self)
    }

    /// The secrets of the command line.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A builder for what lies in `directory`.
    pub fn builder<'a>(
        &'a self,
        arguments: &BuildArgs,
        directory: &Path,
        fetcher: &'a Fetcher,
        bases: &'a Bases<'a>,
    ) -> Result<Builder<'a>, Failure> {
        let options = options(directory, arguments)?;
        let places = Places::new(options.jobs);
        Ok(Builder {
            options,
            layout: &self.layout,
            cache: &self.cache,
            bases,
            elsewhere: &(),
            fetcher,
            sandbox: &self.sandbox,
            observer: self.observer.as_ref(),
            interrupt: &self.interrupt,
            places,
            secrets: &self.secrets,
            redactor: self.secrets.redactor(),
            logs: Logs::new(self.cache.root().join(LOGS)),
            look_around: self.somebody.as_ref().map(|somebody| somebody as &dyn LookAround),
            pause: Pause::default(),
            groups: Groups::default(),
        })
    }
}

/// Whom files belong to that are written elsewhere: root may give them away. A user whom a sandbox makes root of a
/// namespace would get files that are not his outside of it; so this is asked before.
fn owners_of_files() -> Owners {
    if rustix::process::geteuid().is_root() { Owners::Kept } else { Owners::Writer }
}

/// An empty cache in a directory, with the downloads of another one.
fn cache_with_downloads_of(cache: &Cache, directory: &Path) -> Result<Cache, Failure> {
    let root = directory.join("cache");
    std::fs::create_dir(&root).map_err(Failure::of)?;
    for area in [Area::Debs, Area::Indexes] {
        let shared = cache.root().join(area.directory());
        std::fs::create_dir_all(&shared).map_err(Failure::of)?;
        let shared = shared.canonicalize().map_err(Failure::of)?;
        std::os::unix::fs::symlink(shared, root.join(area.directory())).map_err(Failure::of)?;
    }
    Ok(Cache::open(root)?)
}

/// Ready once somebody asked to stop.
pub async fn interrupted(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A family thought through, and where it would be built.
pub struct Planned<'a> {
    /// What it means, for each platform.
    pub plans: &'a [Decision<'a>],
    /// The layout, if there is one.
    pub layout: Option<&'a Layout>,
    /// The cache.
    pub cache: &'a Cache,
    /// The names of its images.
    pub names: &'a BTreeMap<String, Reference>,
    /// What the lock says of files by address.
    pub pinned: &'a [LockedFile],
    /// What its files say.
    pub loaded: &'a LoadedFamily,
    /// Who fetches what it is built from.
    pub fetcher: &'a Fetcher,
    /// Finds images that others made.
    pub bases: &'a Bases<'a>,
}

impl<'a> Planned<'a> {
    /// The plan of the first platform, for commands that look at one at a time.
    pub fn first(&self) -> (&'a Plan<'a>, &'a Cut) {
        let Decision { plan, cut } = &self.plans[0];
        (plan, cut)
    }
}

/// Plans what [`build`] would build, and builds nothing.
pub fn plan<T>(
    names: &[String],
    arguments: &BuildArgs,
    registry: &RegistryArgs,
    then: impl FnOnce(&Planned<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (loaded, patterns) = load_family(names, &arguments.set)?;
    let cache = Cache::open(cache_directory(arguments.cache.cache_dir.as_deref())?)?;
    let is_there = arguments.layout.layout.exists();
    let (layout, _elsewhere) = layout_for_bases(&loaded, &arguments.layout, &cache)?;
    let known = is_there.then_some(layout.as_ref());
    let fetcher = fetcher(&loaded, &cache, arguments.lock.offline)?;
    let observer: Arc<dyn Observer> = Arc::new(());
    let puller = puller(&loaded, registry, &layout, &observer, arguments.lock.offline)?;
    let mut bases = bases(&loaded, &layout, &cache, puller.as_ref());
    let question = Question { fetches: false, ..Question::of(&loaded, &patterns, arguments) };
    let tools = Tools { cache: &cache, fetcher: &fetcher, layout: known };
    let decided = locking::decide(&question, &tools, &mut bases)?;
    if arguments.locked {
        decided.must_be_locked()?;
    }
    let Decided { plans, names, .. } = &decided;
    then(&Planned {
        plans,
        layout: known,
        cache: &cache,
        names,
        loaded: &loaded,
        fetcher: &fetcher,
        bases: &bases,
        pinned: &decided.lock.files,
    })
}

/// Plans what [`build`] would build, and lets `then` ask a builder about it, which can run nothing. `then` also gets the
/// patterns of the images that were asked for.
pub fn explain<T>(
    names: &[String],
    arguments: &BuildArgs,
    registry: &RegistryArgs,
    then: impl FnOnce(&Planned<'_>, &Builder<'_>, &[String]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // While there is one thread.
    let sandbox = sandbox::enter(Choice::Forced(Rung::None)).map_err(Failure::of)?;
    let (_, patterns) = family_and_patterns(names);
    plan(names, arguments, registry, |planned| {
        let nothing = tempfile::tempdir().map_err(Failure::of)?;
        // Where there is no layout yet, there is an empty one.
        let empty = match planned.layout {
            Some(_) => None,
            None => Some(Layout::open_or_create(nothing.path().join("oci"))?),
        };
        let layout = planned.layout.or(empty.as_ref()).expect("there is one of the two");
        let (interrupt, secrets) = (Arc::default(), secrets(&arguments.secret)?);
        let options =
            Options { files: files::pinned(planned.pinned), ..options(&planned.loaded.directory, arguments)? };
        let builder = Builder {
            places: Places::new(options.jobs),
            options,
            layout,
            cache: planned.cache,
            bases: planned.bases,
            elsewhere: &(),
            fetcher: planned.fetcher,
            sandbox: &sandbox,
            observer: &(),
            interrupt: &interrupt,
            secrets: &secrets,
            redactor: secrets.redactor(),
            logs: Logs::new(planned.cache.root().join(LOGS)),
            look_around: None,
            pause: Pause::default(),
            groups: Groups::default(),
        };
        then(planned, &builder, &patterns)
    })
}

/// The layout, for looking at what images are built on. Where there is none and nothing to look at, none is made: an
/// empty one stands for it, elsewhere.
pub fn layout_for_bases(
    loaded: &LoadedFamily,
    arguments: &LayoutArgs,
    cache: &Cache,
) -> Result<(Arc<Layout>, ScratchDir), Failure> {
    let elsewhere = cache.scratch_dir()?;
    let layout = match arguments.layout.exists() || has_bases(loaded) {
        true => Layout::open_or_create(&arguments.layout)?,
        false => Layout::open_or_create(elsewhere.path().join("oci"))?,
    };
    Ok((Arc::new(layout), elsewhere))
}

/// Reads the family that names begin with, and checks the patterns that follow.
pub fn load_family(names: &[String], set: &[(String, String)]) -> Result<(LoadedFamily, Vec<String>), Failure> {
    let (family, patterns) = family_and_patterns(names);
    let loaded = load(&family, &variables(set))?;
    if loaded.family.images.is_empty() {
        let text = format!("the family `{}` has no images: no directory in it has an {IMAGE_FILE}", family.display());
        return Err(Failure::Usage(text));
    }
    check_patterns(&loaded, &patterns)?;
    Ok((loaded, patterns))
}

/// Fails if destinations take the files of one image, and more than one is asked for. That is known before it is built.
pub fn must_be_one_image(
    destinations: &[Destination],
    names: &[String],
    set: &[(String, String)],
) -> Result<(), Failure> {
    if !destination::takes_files(destinations) {
        return Ok(());
    }
    let (loaded, patterns) = load_family(names, set)?;
    let asked = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name));
    let images = loaded.family.images.iter().filter(|image| !image.build_only && asked(image.name.as_str()));
    match images.count() {
        0 | 1 => Ok(()),
        several => Err(destination::several_images(several)),
    }
}

/// What fetches files, stand-ins included.
pub fn fetcher(loaded: &LoadedFamily, cache: &Cache, offline: bool) -> Result<Fetcher, Failure> {
    let copies = Carried::of(&loaded.directory).map(|carried| carried.copies(&loaded.family)).unwrap_or_default();
    let fetcher = plain_fetcher(offline).with_copies(copies);
    match plan::uses_stand_ins(&loaded.family) {
        true => Ok(fetcher.with_stand_ins("opencontrail", stand_ins(cache)?)),
        false => Ok(fetcher),
    }
}

/// What fetches files where there are no stand-ins.
pub fn plain_fetcher(offline: bool) -> Fetcher {
    if offline { Fetcher::new().offline() } else { Fetcher::new() }
}

/// Whether images are built on what others made.
fn has_bases(loaded: &LoadedFamily) -> bool {
    loaded
        .family
        .images
        .iter()
        .any(|image| image.dockerfile.is_some() || matches!(image.from.value, Parent::External(_)))
}

/// Who pulls what the family's images are built on, if anything has to be and may be.
pub fn puller(
    loaded: &LoadedFamily,
    registry: &RegistryArgs,
    layout: &Arc<Layout>,
    observer: &Arc<dyn Observer>,
    offline: bool,
) -> Result<Option<RegistryPuller>, Failure> {
    let make = || RegistryPuller::new(registry, Arc::clone(layout), Arc::clone(observer));
    (has_bases(loaded) && !offline).then(make).transpose()
}

/// Puts what images may be built on from one layout into another: all but the family's own images.
fn share_bases(loaded: &LoadedFamily, from: &Layout, into: &Layout) -> Result<(), Failure> {
    if !has_bases(loaded) {
        return Ok(());
    }
    let is_own = |reference: &Reference| loaded.family.image(reference.repository().as_str()).is_some();
    let mut bases = from.references()?;
    bases.retain(|(reference, _)| reference.tag().is_none() || !is_own(reference));
    let roots: Vec<_> = bases.iter().map(|(_, descriptor)| descriptor.clone()).collect();
    for blob in from.reachable(&roots)?.values() {
        into.put_file_link(&from.blob_path(blob.digest), blob.digest, blob.size)?;
    }
    Ok(into.set_references(&bases)?)
}

/// Finds what the family's images are built on.
pub fn bases<'a>(
    loaded: &LoadedFamily,
    layout: &'a Layout,
    cache: &'a Cache,
    puller: Option<&'a RegistryPuller>,
) -> Bases<'a> {
    Bases::new(layout, cache, puller.map(|puller| puller as &dyn Puller)).relative_to(&loaded.directory)
}

fn options(directory: &Path, arguments: &BuildArgs) -> Result<Options, Failure> {
    Ok(Options {
        family: directory.to_path_buf(),
        compression: arguments.compression,
        jobs: arguments.jobs.map_or_else(processors, usize::from),
        no_cache: arguments.no_cache,
        keep_going: arguments.keep_going,
        epoch: source_date_epoch()?,
        layer_budget: arguments.layer_budget.map(usize::from),
        files: Pinned::new(),
    })
}

/// The directory of the packages that stand in for OpenContrail's, made when it is not there yet.
///
/// Making them takes longer than all else where nothing is to be built; so it is kept which ones this program makes.
fn stand_ins(cache: &Cache) -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().and_then(std::fs::metadata).ok();
    let known = program.map(|file| {
        let stamp = [file.dev(), file.ino(), file.size()].map(u64::to_be_bytes);
        let changed = [file.mtime(), file.mtime_nsec()].map(i64::to_be_bytes);
        FramedHasher::new("stand-ins of a program 1").list("file", stamp).list("changed", changed).finish()
    });
    let key = known.map_or(Ok(None), |known| cache.get_json::<Digest>(Area::Steps, known))?;
    if let Some(found) = key.map_or(Ok(None), |key| cache.tree(key))? {
        return Ok(found);
    }
    let (key, found) = made_stand_ins(cache)?;
    if let Some(known) = known {
        cache.put_json(Area::Steps, known, &key)?;
    }
    Ok(found)
}

fn made_stand_ins(cache: &Cache) -> Result<(Digest, PathBuf), Failure> {
    let packages = fixtures::standins::packages();
    let digests: Vec<_> = packages.iter().map(|package| package.digest()).collect();
    let kafka = fixtures::standins::kafka_tarball();
    let key = FramedHasher::new("stand-ins 1").list("packages", digests).field("kafka", kafka).finish();
    if let Some(found) = cache.tree(key)? {
        return Ok((key, found));
    }
    let new = cache.new_tree()?;
    fixtures::standins::write_repository(new.path()).map_err(Failure::of)?;
    Ok((key, new.commit(key)?))
}

/// The tag that a command line gives a family.
pub fn family_tag(arguments: &BuildArgs) -> Result<Option<spec::Tag>, Failure> {
    match arguments.tag.as_slice() {
        [] => Ok(None),
        [tag] => tag.parse().map(Some).map_err(|error: spec::Invalid| {
            Failure::Usage(format!("`{tag}` cannot be the tag of a family: {}", error.title))
        }),
        _ => Err(Failure::Usage("a family has one tag: give --tag once".to_owned())),
    }
}

/// The full name of every image of plans.
pub fn references(
    plans: &[Plan<'_>],
    registry: &str,
    tag: Option<&spec::Tag>,
) -> Result<BTreeMap<String, Reference>, Failure> {
    let name = |image: &Image| {
        let text = format!("{registry}/{}:{}", image.name, tag.unwrap_or(&image.tag.value));
        let reference = text.parse::<Reference>();
        let reference = reference.map_err(|error| Failure::Usage(format!("`{text}` cannot name an image: {error}")))?;
        Ok((image.name.to_string(), reference))
    };
    plans.iter().flat_map(|plan| &plan.images).map(|planned| name(planned.image)).collect()
}

/// The first name is a family's directory if it holds a family; otherwise the family is here, and all are patterns.
fn family_and_patterns(names: &[String]) -> (PathBuf, Vec<String>) {
    let is_family = |name: &String| {
        let path = Path::new(name);
        path.join(FAMILY_FILE).is_file() || path.file_name().is_some_and(|file| file == FAMILY_FILE)
    };
    let here = Path::new(FAMILY_FILE).is_file();
    match names.split_first() {
        // Without a family here, the first name must have meant one: the error is then about that directory.
        Some((first, rest)) if is_family(first) || !here => (first.into(), rest.to_vec()),
        _ => (PathBuf::from("."), names.to_vec()),
    }
}

fn check_patterns(loaded: &LoadedFamily, patterns: &[String]) -> Result<(), Failure> {
    let names: BTreeSet<&str> = loaded.family.images.iter().map(|image| image.name.as_str()).collect();
    match patterns.iter().find(|pattern| !names.iter().any(|name| matches(pattern, name))) {
        None => Ok(()),
        Some(pattern) => {
            let known = names.into_iter().collect::<Vec<_>>().join(", ");
            Err(Failure::Usage(format!("no image of the family is called `{pattern}`; there are: {known}")))
        }
    }
}

/// Whether a name fits a pattern, in which `*` stands for any text and `?` for one character.
pub fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            matches(rest, name) || name.chars().next().is_some_and(|first| matches(pattern, &name[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => matches(&pattern[1..], &name[first.len_utf8()..]),
        (Some(wanted), Some(found)) if wanted == found => {
            matches(&pattern[wanted.len_utf8()..], &name[found.len_utf8()..])
        }
        _ => false,
    }
}

/// Where suites are: as the command line or the environment says, or what a bundle brought, or what the host's apt uses.
pub fn mirrors(arguments: &MirrorArgs, family: &Path) -> Result<Mirrors, Failure> {
    if let Some(named) = named_mirrors(arguments)? {
        return Ok(named);
    }
    let carried = Carried::of(family).map(|carried| carried.mirrors()).unwrap_or_default();
    match carried.is_empty() {
        false => Mirrors::parse(carried.iter().map(String::as_str)).map_err(Failure::of),
        true => Mirrors::of_host(Path::new(HOST_APT)).map_err(Failure::of),
    }
}

/// The mirrors that the command line or the environment names.
pub fn named_mirrors(arguments: &MirrorArgs) -> Result<Option<Mirrors>, Failure> {
    let given: Vec<&str> = arguments.mirror.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).collect();
    if given.is_empty() {
        return Ok(None);
    }
    Mirrors::parse(given).map(Some).map_err(|error| Failure::Usage(error.to_string()))
}

/// Variables for specs: those of the command line, then those of the environment.
pub fn variables(set: &[(String, String)]) -> Variables {
    let mut variables = Variables::new();
    for (name, value) in set {
        variables.set(name, value);
    }
    for (name, value) in std::env::vars_os() {
        if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
            variables.set_default(name, value);
        }
    }
    variables
}

/// Reads the secrets of the command line.
fn secrets(given: &[SecretArgument]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for SecretArgument { id, from } in given {
        let value = value_of(from).map_err(|problem| Failure::Usage(format!("the secret `{id}`: {problem}")))?;
        if !secrets.add(id, value) {
            return Err(Failure::Usage(format!("the secret `{id}` is given twice")));
        }
    }
    Ok(secrets)
}

fn value_of(source: &SecretSource) -> Result<Vec<u8>, String> {
    match source {
        SecretSource::SameName(name) => {
            #[expect(clippy::disallowed_methods, reason = "this is the command line")]
            let is_set = std::env::var_os(name).is_some();
            value_of(&if is_set { SecretSource::Variable(name.clone()) } else { SecretSource::File(name.into()) })
        }
        SecretSource::Variable(name) => {
            #[expect(clippy::disallowed_methods, reason = "this is the command line")]
            let value = std::env::var_os(name);
            let value = value.ok_or_else(|| format!("the variable {name} is not set"))?;
            Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
        }
        SecretSource::File(path) => {
            let failed = |error: io::Error| format!("cannot read `{}`: {error}", path.display());
            let mut value = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut value))
                .map_err(failed)?;
            match value.len() as u64 > LARGEST_SECRET {
                true => Err(format!("`{}` is larger than {LARGEST_SECRET} bytes", path.display())),
                false => Ok(value),
            }
        }
    }
}

/// `$XDG_CACHE_HOME/drystone`, or `~/.cache/drystone`. See the XDG base directory specification.
#[expect(clippy::disallowed_methods, reason = "this is the command line")]
pub fn cache_directory(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let caches = caches.ok_or_else(|| {
        Failure::Usage("neither XDG_CACHE_HOME nor HOME is set: say with --cache-dir where to keep downloads".into())
    })?;
    Ok(caches.join("drystone"))
}

#[expect(clippy::disallowed_methods, reason = "this is the command line")]
fn source_date_epoch() -> Result<Option<i64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()) else { return Ok(None) };
    epoch_of(&value.to_string_lossy())
}

/// A date of images, as `SOURCE_DATE_EPOCH` has it; none if it says nothing.
pub fn epoch_of(text: &str) -> Result<Option<i64>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let epoch = text.parse().ok().filter(|epoch| (0..=253_402_300_799).contains(epoch));
    let wrong = || Failure::Usage(format!("SOURCE_DATE_EPOCH is `{text}`: expected seconds since 1970"));
    epoch.map(Some).ok_or_else(wrong)
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the command line")]
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets the flag at the first Ctrl-C or SIGTERM. Gives the process up at the second, or if it does not stop: a read
/// from a server that says nothing does not look at the flag.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::of)?;
    let wait = async move {
        let (Ok(mut pressed), Ok(mut asked)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {} }
        flag.store(true, Ordering::SeqCst);
        tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {}, () = tokio::time::sleep(PATIENCE) => {} }
        Failure::Interrupted.print(ColorKind::Never);
        #[expect(
            clippy::disallowed_methods,
            clippy::exit,
            reason = "the user asked twice, or something does not stop"
        )]
        std::process::exit(130);
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(wait)).map_err(Failure::of)?;
    Ok(interrupt)
}

/// Prints a result. A reader that has gone away wants no more, which is not an error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::of(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("redis", "redis", true),
            ("redis", "redis2", false),
            ("web*", "webui-job", true),
            ("*-api", "nova-api", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*i-*", "webui-job", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
