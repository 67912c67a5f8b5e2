//! What every build needs, made ready once.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use drystone::base::Bases;
use drystone::build::{Builder, Groups, Options};
use drystone::events::{Event, Observer};
use drystone::fetch::Fetcher;
use drystone::load::LoadedFamily;
use drystone::lock::files::Pinned;
use drystone::logs::Logs;
use drystone::parallel::Places;
use drystone::pause::Pause;
use drystone::rootfs::directory::Owners;
use drystone::secrets::Secrets;
use drystone::steps::commands::LookAround;
use oci::Reference;
use sandbox::{Choice, Rung, Sandbox};
use spec::Parent;
use store::{Area, Cache, Layout, ScratchDir};

use super::environment::{cache_directory, processors, secrets, source_date_epoch, stop_on_signals};
use super::family::has_bases;
use crate::args::{BuildArgs, Output};
use crate::failure::Failure;
use crate::progress;
use crate::shell::{self, AtTerminal};

/// The directory of logs in the cache.
pub(super) const LOGS: &str = "logs";

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
    pub(super) aside: Option<ScratchDir>,
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
    pub(super) fn aside(mut self, loaded: &LoadedFamily) -> Result<Self, Failure> {
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

/// Puts what images may be built on from one layout into another: all but the family's own images. An image of another
/// registry that is called like one of them is no image of the family where a spec builds on it.
fn share_bases(loaded: &LoadedFamily, from: &Layout, into: &Layout) -> Result<(), Failure> {
    if !has_bases(loaded) {
        return Ok(());
    }
    let is_own = |reference: &Reference| loaded.family.image(reference.repository().as_str()).is_some();
    let named = loaded.family.images.iter().filter_map(|image| match &image.from.value {
        Parent::External(name) => Reference::parse_familiar(name).ok(),
        Parent::Sibling(_) | Parent::Scratch => None,
    });
    let named: BTreeSet<Reference> = named.collect();
    let mut bases = from.references()?;
    bases.retain(|(reference, _)| reference.tag().is_none() || !is_own(reference) || named.contains(reference));
    let roots: Vec<_> = bases.iter().map(|(_, descriptor)| descriptor.clone()).collect();
    for blob in from.reachable(&roots)?.values() {
        into.put_file_link(&from.blob_path(blob.digest), blob.digest, blob.size)?;
    }
    Ok(into.set_references(&bases)?)
}

pub(super) fn options(directory: &Path, arguments: &BuildArgs) -> Result<Options, Failure> {
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
