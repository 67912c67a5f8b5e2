//! What commands do about the lock: it is read before anything is decided, and written once that is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use drystone::apt::archive::Archives;
use drystone::base::Bases;
use drystone::cut::Cut;
use drystone::error::chain;
use drystone::events::{Event, Observer};
use drystone::fetch::Fetcher;
use drystone::layering::{self, Memory};
use drystone::load::LoadedFamily;
use drystone::lock::changes::Changes;
use drystone::lock::file::{self, Conflicts};
use drystone::lock::{self, Fit, Known, Update, files, record};
use drystone::plan::Plan;
use drystone::platform::{self, debian_architecture, is_for};
use oci::{Platform, Reference};
use spec::Image;
use spec::lock::Lock;
use store::{Cache, Layout};

use crate::args::{BuildArgs, LockFileArgs, MirrorArgs};
use crate::failure::Failure;
use crate::session::{family_tag, matches, mirrors, now, references};

/// How many changes a line of a build names.
const CHANGES_SHOWN: usize = 3;

/// What decides what a family means.
pub struct Question<'a> {
    /// The family.
    pub loaded: &'a LoadedFamily,
    /// Which images are to be built; none means all.
    pub patterns: &'a [String],
    /// Where Debian is.
    pub mirror: &'a MirrorArgs,
    /// Where the lock is.
    pub lock: &'a LockFileArgs,
    /// The platforms that the command line names; none means those of the specs.
    pub platforms: &'a [Platform],
    /// Whether those of the lock are meant too, if the command line names none.
    pub with_locked_platforms: bool,
    /// What of it is to be resolved again.
    pub update: Update,
    /// What is done about the marks of a merge.
    pub conflicts: Conflicts,
    /// Whether packages are cut anew.
    pub recut: bool,
    /// How many layers images may have, whatever their specs say.
    pub layer_budget: Option<usize>,
    /// The command line, which may name a registry and a tag.
    pub naming: Option<&'a BuildArgs>,
    /// Whether files by address that are not known yet are fetched.
    pub fetches: bool,
}

impl<'a> Question<'a> {
    /// As a build asks.
    pub fn of(loaded: &'a LoadedFamily, patterns: &'a [String], arguments: &'a BuildArgs) -> Self {
        Self {
            loaded,
            patterns,
            mirror: &arguments.mirror,
            lock: &arguments.lock,
            platforms: &arguments.platform,
            with_locked_platforms: false,
            update: Update::Nothing,
            conflicts: Conflicts::Refuse,
            recut: arguments.recut,
            layer_budget: arguments.layer_budget.map(usize::from),
            naming: Some(arguments),
            fetches: true,
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, name))
    }

    /// The platforms that are meant, in the order in which an index lists them.
    fn platforms(&self, lock: Option<&Lock>) -> Result<Vec<Platform>, Failure> {
        let family = &self.loaded.family;
        let of_family = || platform::of_family(family, &|name| self.is_wanted(name));
        let somebody_is_for = |platform: &Platform| {
            family.images.iter().any(|image| self.is_wanted(image.name.as_str()) && is_for(image, platform))
        };
        let mut platforms = if self.platforms.is_empty() { of_family() } else { Vec::new() };
        if self.with_locked_platforms && self.platforms.is_empty() {
            let locked = lock.map(|lock| lock.images.as_slice()).unwrap_or_default();
            let locked = locked.iter().filter_map(|image| image.platform.parse::<Platform>().ok());
            platforms.extend(locked.filter(somebody_is_for));
        }
        platforms.extend_from_slice(self.platforms);
        if let Some(nowhere) = platforms.iter().find(|platform| !somebody_is_for(platform)) {
            let known: Vec<String> = of_family().iter().map(ToString::to_string).collect();
            let text = format!("--platform {nowhere}: no image is for it; the specs have {}", known.join(", "));
            return Err(Failure::Usage(text));
        }
        Ok(platform::each_once(platforms))
    }

    fn lock_path(&self) -> PathBuf {
        self.lock.lock_file.clone().unwrap_or_else(|| file::path(&self.loaded.directory))
    }
}

/// What a family means, and how that differs from what its lock says.
pub struct Decided<'a> {
    /// The packages, for each platform.
    pub plans: Vec<Decision<'a>>,
    /// The names of the images.
    pub names: BTreeMap<String, Reference>,
    /// The lock as it was.
    pub old: Option<Lock>,
    /// The lock as it has to be.
    pub lock: Lock,
    /// Whether the file is not as it has to be, whatever it says.
    repaired: bool,
    path: PathBuf,
}

/// What a family means on one platform.
pub struct Decision<'a> {
    /// The packages.
    pub plan: Plan<'a>,
    /// The layers.
    pub cut: Cut,
}

/// Where inputs are, and come from.
pub struct Tools<'a> {
    /// What was fetched.
    pub cache: &'a Cache,
    /// Fetches more.
    pub fetcher: &'a Fetcher,
    /// The layout, if there is one.
    pub layout: Option<&'a Layout>,
}

/// Decides what a family means: as its lock says, and where that says nothing, as archives and registries do.
/// `bases` gets to know what the lock says of them.
pub fn decide<'a>(question: &Question<'a>, tools: &Tools<'_>, bases: &mut Bases<'_>) -> Result<Decided<'a>, Failure> {
    let Tools { cache, fetcher, layout } = *tools;
    let Question { loaded, update, recut, layer_budget, .. } = question;
    let path = question.lock_path();
    let known = file::read(&path, question.conflicts)?;
    let mirrors = mirrors(question.mirror, &loaded.directory)?;
    let old = known.as_ref().map(|known| &known.lock);
    match update {
        Update::Everything => bases.refresh = true,
        Update::Nothing | Update::Packages(_) => bases.pins = old.map(lock::bases).unwrap_or_default(),
    }
    let platforms = question.platforms(old)?;
    let mut plans = Vec::with_capacity(platforms.len());
    for platform in &platforms {
        let architecture = debian_architecture(platform);
        let family = &loaded.directory;
        let archives = Archives { mirrors: &mirrors, fetcher, cache, family, now: now(), architecture };
        let fit = Fit::new(&loaded.family, known.as_ref(), update, platform, &archives)?;
        if let Some(name) = fit.unknown_update() {
            return Err(Failure::Usage(format!("--update={name}: the lock `{}` has no such package", path.display())));
        }
        plans.push(Plan::make(&loaded.family, &|name| question.is_wanted(name), &archives, bases, &fit)?);
    }
    let files = match question.fetches {
        true => files::Finder { lock: old, update, fetcher, cache }.files(&plans)?,
        false => old.map(|lock| lock.files.clone()).unwrap_or_default(),
    };
    let registry = question.naming.and_then(|arguments| arguments.registry.as_ref());
    let registry = registry.unwrap_or(&loaded.family.registry.value);
    let tag = question.naming.map(family_tag).transpose()?.flatten();
    let names = references(&plans, registry.as_str(), tag.as_ref())?;
    let reference = |image: &Image| names[image.name.as_str()].clone();
    let memory = match (recut, old, layout) {
        (true, _, _) | (_, None, None) => Memory::Nothing,
        (_, Some(lock), _) => Memory::Lock(lock),
        (_, None, Some(layout)) => Memory::Layout(layout),
    };
    let (mut decided, mut remembered) = (Vec::with_capacity(plans.len()), Vec::with_capacity(plans.len()));
    for plan in plans {
        let cut = layering::cut(&plan, memory, *layer_budget, &reference)?;
        // The lock remembers what the specs ask for, not what a command line tries.
        remembered.push(layer_budget.and_then(|_| layering::cut(&plan, memory, None, &reference).ok()));
        decided.push(Decision { plan, cut });
    }
    let plans: Vec<(&Plan<'_>, &Cut)> = decided
        .iter()
        .zip(&remembered)
        .map(|(Decision { plan, cut }, usual)| (plan, usual.as_ref().unwrap_or(cut)))
        .collect();
    let lock = record(&loaded.family, &plans, old, files);
    let repaired = known.as_ref().is_some_and(|known| !known.preferred.is_empty());
    Ok(Decided { plans: decided, names, old: known.map(|Known { lock, .. }| lock), lock, repaired, path })
}

impl Decided<'_> {
    /// What differs, if the lock has to be written.
    pub fn changes(&self) -> Option<Changes> {
        let nothing = Lock::default();
        let changed = self.repaired || self.old.as_ref() != Some(&self.lock);
        changed.then(|| Changes::between(self.old.as_ref().unwrap_or(&nothing), &self.lock))
    }

    /// Adds what a build found out: what the images of Dockerfiles are built on.
    pub fn note(&mut self, bases: &Bases<'_>) {
        lock::note_bases(&mut self.lock, &bases.all());
    }

    /// Fails if the lock has to be written.
    pub fn must_be_locked(&self) -> Result<(), Failure> {
        let Some(changes) = self.changes() else { return Ok(()) };
        let path = self.path.display();
        let text = match &self.old {
            None => format!("--locked: there is no lock `{path}`"),
            Some(_) => format!("--locked: the lock `{path}` would change:\n  {}", changes.lines().join("\n  ")),
        };
        Err(Failure::with_hint(text, "`drystone lock` writes it; look at what it says, and keep it with the specs"))
    }

    /// Writes the lock if it has to be written.
    pub fn write(&self) -> Result<(), Failure> {
        match self.changes() {
            Some(_) => Ok(file::write(&self.path, &self.lock)?),
            None => Ok(()),
        }
    }

    /// Writes the lock for a build, which goes on without if that cannot be done.
    pub fn keep(&self, observer: &dyn Observer) {
        let Some(changes) = self.changes() else { return };
        let path = self.path.display();
        match file::write(&self.path, &self.lock) {
            Ok(()) if self.old.is_none() => {
                let packages = self.lock.packages().len();
                observer.observe(Event::Note(&format!("wrote the lock `{path}`: {packages} packages")));
            }
            Ok(()) => {
                let lines = changes.lines();
                let mut shown = lines.iter().take(CHANGES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
                if lines.len() > CHANGES_SHOWN {
                    shown.push_str(&format!(", and {} more", lines.len() - CHANGES_SHOWN));
                }
                observer.observe(Event::Note(&format!("the lock `{path}` changed: {shown}")));
            }
            Err(error) => {
                let text = format!(
                    "{}: another build may take other versions (--lock-file names another place)",
                    chain(&error)
                );
                observer.observe(Event::Warning(&text));
            }
        }
    }

    /// Where the lock is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// What `--update` asks for.
pub fn update(given: &[String]) -> Update {
    let names: BTreeSet<String> = given.iter().filter(|name| !name.is_empty()).cloned().collect();
    match (given.is_empty(), names.is_empty()) {
        (true, _) => Update::Nothing,
        (false, true) => Update::Everything,
        (false, false) => Update::Packages(names),
    }
}
