//! A family that is thought through, for commands that build nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use drystone::base::Bases;
use drystone::build::{Builder, Groups, Options};
use drystone::cut::Cut;
use drystone::events::Observer;
use drystone::fetch::Fetcher;
use drystone::load::LoadedFamily;
use drystone::lock::files;
use drystone::logs::Logs;
use drystone::parallel::Places;
use drystone::pause::Pause;
use drystone::plan::Plan;
use oci::Reference;
use sandbox::{Choice, Rung};
use spec::lock::LockedFile;
use store::{Cache, Layout, ScratchDir};

use super::environment::{cache_directory, secrets};
use super::family::{bases, family_and_patterns, has_bases, load_family, puller};
use super::fetching::fetcher;
use super::workplace::{LOGS, options};
use crate::args::{BuildArgs, LayoutArgs, RegistryArgs};
use crate::failure::Failure;
use crate::locking::{self, Decided, Decision, Question, Tools};

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
