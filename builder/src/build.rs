//! Builds a plan: every image's steps over its parent's layers, each step done once and remembered by everything that
//! its result depends on, independent images at the same time.

mod accounts;
mod ahead;
mod command;
mod dockerfile;
mod explain;
mod files;
mod foresight;
mod inputs;
mod lend;
mod missing;
mod packages;
mod platforms;
mod squash;
mod step;
mod trees;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use content::{Digest, FramedHasher};
use layer::compress::Compression;
use oci::{Descriptor, ImageConfig, Platform, Reference};
use sandbox::Sandbox;
use serde::Serialize;
use spec::{Command, Diagnostic, ImageName, Span, Step};
use store::{Cache, Layout};

use self::ahead::Ahead;
pub use self::explain::{ExplainedStep, Reason};
use self::inputs::LastStep;
pub use self::lend::lend;
use self::packages::{PackagesStep, packages_span};
pub use self::platforms::Finished;
use self::platforms::Gathering;
use self::step::{StepName, StoredLayer};
use crate::base::{self, Base, Bases};
use crate::cut::{self, Cut};
use crate::error::{BuildError, chain};
use crate::events::{Event, Observer};
use crate::fetch::Fetcher;
use crate::graph::{self, Outcome};
use crate::image::{LAYER_BUDGET, Layer, SQUASHED, configuration, documents};
use crate::layering;
use crate::lock::files::Pinned;
use crate::logs::Logs;
use crate::parallel::Places;
use crate::pause::Pause;
use crate::plan::{Plan, PlannedImage};
use crate::remote::Elsewhere;
use crate::secrets::{Redactor, Secrets};
use crate::steps::accounts::Wanted;
use crate::steps::commands::LookAround;
use crate::steps::files::Files;
use crate::steps::packages::Workshop;

/// How to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// The family's directory.
    pub family: PathBuf,
    /// How layers are compressed.
    pub compression: Compression,
    /// How much is done at the same time.
    pub jobs: usize,
    /// Do every step again, whatever the cache has.
    pub no_cache: bool,
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// The date of everything made, in seconds since 1970; otherwise it follows from the packages.
    pub epoch: Option<i64>,
    /// How many layers an image may have, whatever its spec says.
    pub layer_budget: Option<usize>,
    /// What the lock says of files by address.
    pub files: Pinned,
}

/// Builds plans into a layout.
pub struct Builder<'a> {
    /// How to build.
    pub options: Options,
    /// Where images go.
    pub layout: &'a Layout,
    /// Where everything that can be made again is kept.
    pub cache: &'a Cache,
    /// Finds images that others made, for Dockerfiles.
    pub bases: &'a Bases<'a>,
    /// What is kept elsewhere than in the cache.
    pub elsewhere: &'a dyn Elsewhere,
    /// How files are fetched.
    pub fetcher: &'a Fetcher,
    /// Where commands run.
    pub sandbox: &'a Sandbox,
    /// Learns of progress.
    pub observer: &'a dyn Observer,
    /// Set by whoever wants to stop.
    pub interrupt: &'a Arc<AtomicBool>,
    /// How many segments all images together make at the same time.
    pub places: Places,
    /// Secrets for commands that ask for them.
    pub secrets: &'a Secrets,
    /// Finds them in what commands print.
    pub redactor: Redactor,
    /// Where it is written down what happens to each image.
    pub logs: Logs,
    /// Somebody who wants to look around where a command fails.
    pub look_around: Option<&'a dyn LookAround>,
    /// Makes everybody else wait meanwhile.
    pub pause: Pause,
    /// The layers of groups that this build made or found.
    pub groups: Groups,
}

/// Layers of groups of packages, by key: what several images share is made once, even if nothing that earlier builds
/// left is taken.
#[derive(Default)]
pub struct Groups(Mutex<HashMap<Digest, StoredLayer>>);

/// An image that is in the layout.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// Its name in the family.
    pub name: ImageName,
    /// The name it has in the layout.
    pub reference: Reference,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its configuration.
    pub config: ImageConfig,
    /// The digest of the configuration, which people know as the image's id.
    pub config_digest: Digest,
    /// Bytes of the configuration.
    pub config_size: u64,
    /// Its layers, the parent's included.
    pub layers: Vec<Layer>,
    /// What was done for it.
    pub steps: Vec<StepReport>,
    /// Whether it is only a parent for others.
    pub build_only: bool,
    state: State,
}

/// What became of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The key under which its result is kept.
    pub id: String,
    /// What kind of step it is: `packages`, `configure`, `groups`, `users`, `files` or `run`.
    pub kind: &'static str,
    /// Whether the result was there.
    pub cached: bool,
    /// How long it took.
    pub seconds: f64,
}

impl BuiltImage {
    /// The same image under this name.
    #[must_use]
    pub fn called(self, reference: Reference) -> Self {
        Self { reference, ..self }
    }

    /// The platform for which it was planned.
    pub fn platform(&self) -> &Platform {
        &self.state.platform
    }

    /// Whether nothing had to be done.
    pub fn is_cached(&self) -> bool {
        self.steps.iter().all(|step| step.cached)
    }

    /// Bytes of all its blobs as they are stored: manifest, configuration and layers.
    pub fn stored_size(&self) -> u64 {
        self.manifest.size + self.config_size + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }

    /// Bytes of the files in all layers, as container engines count an image's size.
    pub fn virtual_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked_size).sum()
    }
}

/// How the layers of an image are cut.
struct ImageCut<'a> {
    /// The layers of the packages of the step whose place in the spec is given.
    groups: &'a dyn Fn(usize) -> &'a [cut::Group],
    /// Whether its own layers are squashed.
    squashed: bool,
    /// Called when packages have to be laid.
    begun: &'a (dyn Fn() + Sync),
}

/// An image between two steps.
#[derive(Clone, Debug)]
struct State {
    /// Names everything done so far.
    key: Digest,
    /// What the steps made, which is what further steps work over; the image may have fewer layers.
    layers: Vec<Layer>,
    /// The date of the newest input, in seconds since 1970.
    epoch: i64,
    /// Commands that the image wants run in its direct children.
    triggers: Vec<Command>,
    /// The environment and directory that commands see.
    config: Option<ImageConfig>,
    /// The machine that its programs are for.
    platform: Platform,
}

/// What the steps of an image came to.
struct Made {
    /// All layers of the image, its parent's included.
    layers: Vec<Layer>,
    /// Whether its own are squashed.
    squashed: bool,
    reports: Vec<StepReport>,
}

impl Builder<'_> {
    /// The same, with what a lock says of files by address.
    #[must_use]
    pub fn with_files(mut self, files: Pinned) -> Self {
        self.options.files = files;
        self
    }

    /// Builds all images of plans, one for each platform, their packages cut like this. `reference` gives the name of
    /// each, and `finished` gets each as soon as it is whole on all of its platforms, which may be long before the others
    /// are; the layout has the names of all of them at the end. Returns the images platform by platform, and what their
    /// names stand for.
    ///
    /// Where nothing can be run, a plan in which something has to be is refused before anything is done; to keep going
    /// is to build what can be built all the same.
    pub fn build(
        &self,
        plans: &[(&Plan<'_>, &Cut)],
        reference: &(dyn Fn(&spec::Image) -> Reference + Sync),
        finished: &(dyn Fn(&Finished) + Sync),
    ) -> Result<(Vec<BuiltImage>, Vec<Finished>), BuildError> {
        // What is stored here is named at the end; until then nobody may take it for garbage.
        let _lease = self.layout.lease();
        for (plan, cut) in plans {
            self.secrets.check(plan)?;
            if self.fetcher.is_offline() {
                self.refuse_what_is_missing(plan, cut)?;
            }
            if !self.options.keep_going {
                self.refuse_what_cannot_run(plan, cut)?;
            }
        }
        let gathering = Gathering::new(plans, self.layout);
        let named = Mutex::new(Vec::new());
        let mut collected = Collected::default();
        for (number, (plan, cut)) in plans.iter().enumerate() {
            if plans.len() > 1 {
                self.observe(Event::Note(&format!("building for {}", plan.platform)));
            }
            let whole = |image: &BuiltImage| -> Result<(), BuildError> {
                if let Some(image) = gathering.add(number, image)? {
                    finished(&image);
                    named.lock().unwrap_or_else(PoisonError::into_inner).push(image);
                }
                Ok(())
            };
            collected.add(plan, self.build_platform(plan, cut, reference, &whole));
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(BuildError::Interrupted);
            }
            if collected.has_failed() && !self.options.keep_going {
                break;
            }
        }
        let mut named = named.into_inner().unwrap_or_else(PoisonError::into_inner);
        let place = |image: &Finished| collected.built.iter().position(|built| built.reference == image.reference);
        named.sort_by_cached_key(place);
        // Whoever asked to go on keeps what could be built; otherwise all images change together or none does.
        if !collected.has_failed() || self.options.keep_going {
            self.name(&named)?;
        }
        Ok((collected.into_built()?, named))
    }

    /// Builds the images of one platform. `whole` gets each as soon as it is whole.
    fn build_platform(
        &self,
        plan: &Plan<'_>,
        cut: &Cut,
        reference: &(dyn Fn(&spec::Image) -> Reference + Sync),
        whole: &(dyn Fn(&BuiltImage) -> Result<(), BuildError> + Sync),
    ) -> Vec<Outcome<Arc<BuiltImage>, BuildError>> {
        let wanted: Vec<usize> = (0..plan.images.len()).filter(|place| plan.images[*place].wanted).collect();
        let place = |parent: usize| wanted.binary_search(&parent).expect("parents of what is wanted are wanted");
        let parents = |image: &usize| {
            let planned = &plan.images[*image];
            planned.parent.into_iter().chain(planned.needs.iter().copied()).map(place).collect()
        };
        let parents: Vec<Vec<usize>> = wanted.iter().map(parents).collect();
        let own: Vec<u64> = wanted.iter().map(|image| work_of(&plan.images[*image])).collect();
        let urgency = graph::remaining(&parents, &own);
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(urgency[*place]));
        let ahead = Ahead::new(plan, cut, order.iter().map(|place| wanted[*place]).collect());
        let work = |place: usize, parents: &[Arc<BuiltImage>]| {
            let planned = &plan.images[wanted[place]];
            let (name, reference) = (&planned.image.name.value, reference(planned.image));
            let groups = |step| layering::of_step(cut, plan, wanted[place], step);
            let begun = || ahead.begin(wanted[place]);
            let cut = ImageCut { groups: &groups, squashed: cut.squashed[wanted[place]], begun: &begun };
            self.logs.name(name, &reference);
            let mut built = match &planned.image.dockerfile {
                Some(dockerfile) => self.of_dockerfile((planned.image, dockerfile), &plan.platform, parents, reference),
                None => {
                    let parent = parents.first().map(AsRef::as_ref);
                    self.image(planned, &plan.platform, &cut, parent, reference)
                }
            };
            self.tell(name, &built);
            built = built.and_then(|built| whole(&built).map(|()| built));
            if let Err(BuildError::Command { log, .. }) = &mut built {
                *log = self.logs.path(name);
            }
            built.map(Arc::new)
        };
        std::thread::scope(|scope| {
            // Where one thing is done at a time, nothing is done ahead.
            if self.options.jobs > 1 {
                scope.spawn(|| ahead.work(self));
                scope.spawn(|| ahead.watch(self.interrupt));
            }
            let _over = ahead::Over(&ahead);
            graph::run(&parents, &urgency, at_once(self.options.jobs), self.options.keep_going, work)
        })
    }

    fn name(&self, built: &[Finished]) -> Result<(), BuildError> {
        let known: HashMap<Reference, Digest> = self
            .layout
            .references()
            .unwrap_or_default()
            .into_iter()
            .map(|(name, descriptor)| (name, descriptor.digest))
            .collect();
        let is_named = |image: &Finished| known.get(&image.reference) == Some(&image.manifest.digest);
        if !built.iter().all(is_named) {
            let named = built.iter().map(|image| (image.reference.clone(), image.manifest.clone()));
            self.layout.set_references(&named.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn tell(&self, image: &ImageName, built: &Result<BuiltImage, BuildError>) {
        match built {
            Ok(built) => {
                let log = self.logs.path(image);
                self.observe(Event::ImageFinished { image, cached: built.is_cached(), log: log.as_deref() });
            }
            Err(BuildError::Interrupted) => {}
            Err(error) => {
                let last_lines = error.last_lines();
                let log = self.logs.path(image);
                self.observe(Event::ImageFailed { image, error: &chain(error), last_lines, log: log.as_deref() });
            }
        }
    }

    /// Builds one image.
    fn image(
        &self,
        planned: &PlannedImage<'_>,
        platform: &Platform,
        cut: &ImageCut<'_>,
        parent: Option<&BuiltImage>,
        reference: Reference,
    ) -> Result<BuiltImage, BuildError> {
        let image = planned.image;
        let name = &image.name.value;
        let mut state = match (parent, &planned.base) {
            (Some(parent), _) => parent.state.clone(),
            (None, Some(base)) => self.on_base(base, &image.from.span)?,
            (None, None) => self.nothing(platform),
        };
        // A Dockerfile leaves its own as text.
        if let Some(parent) = parent.filter(|parent| parent.state.triggers.is_empty()) {
            let on_build = &parent.config.config.on_build;
            state.triggers = base::triggers(parent.name.as_str(), on_build, &image.from.span)?;
        }
        let mut reports = Vec::new();
        for command in std::mem::take(&mut state.triggers) {
            self.command(name, &command, &mut state, &mut reports)?;
        }
        for (place, step) in image.steps.iter().enumerate() {
            match step {
                Step::Packages(_) => {
                    let (packages, compiling) = (planned.packages[&place].as_slice(), &planned.compiling[&place]);
                    let (groups, span) = ((cut.groups)(place), packages_span(image, step));
                    let step = PackagesStep {
                        image: name,
                        platform: &state.platform.clone(),
                        packages,
                        groups,
                        compiling,
                        span,
                        workshop: self.workshop(),
                        runner: self.runner(),
                        begun: cut.begun,
                    };
                    self.packages(&step, &mut state, &mut reports)?;
                }
                Step::Files(entries) => {
                    self.files(name, &Files::read(entries, &self.inputs())?, &mut state, &mut reports)?;
                }
                Step::Run(command) => self.command(name, command, &mut state, &mut reports)?,
                Step::Groups(groups) => self.accounts(name, Wanted::Groups(groups), &mut state, &mut reports)?,
                Step::Users(users) => self.accounts(name, Wanted::Users(users), &mut state, &mut reports)?,
            }
        }
        // What others made stays as it is, and is counted like a parent's layers.
        let (mut layers, below) = match (parent, &planned.base) {
            (Some(parent), _) => (parent.layers.clone(), parent.state.layers.len()),
            (None, Some(base)) => (base.layers.clone(), base.layers.len()),
            (None, None) => (Vec::new(), 0),
        };
        let own = &state.layers[below..];
        match cut.squashed {
            true => layers.extend(self.squashed(name, &state, own)?),
            false => layers.extend_from_slice(own),
        }
        let made = Made { layers, squashed: cut.squashed, reports };
        self.assemble(image, reference, state, made)
    }

    /// What `scratch` is for a machine.
    fn nothing(&self, platform: &Platform) -> State {
        State {
            key: FramedHasher::new("scratch 2").field("platform", platform.to_string()).finish(),
            layers: Vec::new(),
            epoch: self.options.epoch.unwrap_or(0),
            triggers: Vec::new(),
            config: None,
            platform: platform.clone(),
        }
    }

    /// An image that others made, before anything is done to it at `span`.
    fn on_base(&self, base: &Base, span: &Span) -> Result<State, BuildError> {
        Ok(State {
            key: base.key(),
            layers: base.layers.clone(),
            epoch: self.options.epoch.unwrap_or_else(|| base.created()),
            triggers: base::triggers(&base.written, &base.config.config.on_build, span)?,
            config: Some(base.config.clone()),
            platform: base.platform(),
        })
    }

    /// Writes the documents of an image whose layers are all there.
    fn assemble(
        &self,
        image: &spec::Image,
        reference: Reference,
        mut state: State,
        Made { layers, squashed, reports: mut steps }: Made,
    ) -> Result<BuiltImage, BuildError> {
        let started = Instant::now();
        let config = configuration(image, state.config.as_ref(), &state.platform, &layers, state.epoch);
        let mut annotations: BTreeMap<String, String> =
            image.annotations.iter().map(|entry| (entry.key.to_string(), entry.value.value.clone())).collect();
        let budget = layering::budget(image, self.options.layer_budget);
        annotations.insert(LAYER_BUDGET.to_owned(), layering::written(budget));
        if squashed {
            annotations.insert(SQUASHED.to_owned(), "true".to_owned());
        }
        let made = documents(&config, &layers, annotations);
        let cached = self.layout.has_blob(made.descriptor.digest, made.descriptor.size);
        self.layout.put_bytes(&made.config)?;
        self.layout.put_bytes(&made.manifest)?;
        let config_digest = Digest::of(&made.config);
        let seconds = started.elapsed().as_secs_f64();
        self.note(&reference, LastStep::of(&steps, str::to_owned), &config)?;
        steps.push(StepReport { id: config_digest.to_string(), kind: "config", cached, seconds });
        state.triggers = image.on_build.clone();
        state.config = Some(config.clone());
        Ok(BuiltImage {
            name: image.name.value.clone(),
            reference,
            manifest: made.descriptor,
            config,
            config_digest,
            config_size: made.config.len() as u64,
            layers,
            steps,
            build_only: image.build_only,
            state,
        })
    }

    /// Keeps what `explain` compares the image with later.
    fn note(&self, reference: &Reference, mut steps: Vec<LastStep>, config: &ImageConfig) -> Result<(), BuildError> {
        let (key, facts) = inputs::config_facts(config);
        let name = StepName { kind: "config", described: "configuration", key, facts: &|| facts.clone() };
        self.note_inputs(&name, key)?;
        steps.push(LastStep { kind: name.kind.to_owned(), key });
        self.note_steps(reference, &steps)
    }

    fn workshop(&self) -> Workshop<'_> {
        Workshop {
            cache: self.cache,
            elsewhere: self.elsewhere,
            fetcher: self.fetcher,
            compression: self.options.compression,
            jobs: self.options.jobs,
            places: &self.places,
            observer: self.observer,
            interrupt: self.interrupt,
        }
    }

    /// Fails if commands of a machine cannot be run here, and says so of `step`.
    fn must_run(&self, platform: &Platform, step: impl FnOnce() -> Diagnostic) -> Result<(), BuildError> {
        let may_run = self.sandbox.may_run_for(&platform.architecture);
        may_run.map_err(|why| BuildError::CannotRun { steps: step().into(), why })
    }
}

/// What happens to images is written down, and told to whoever asked.
impl Observer for Builder<'_> {
    fn observe(&self, event: Event<'_>) {
        if let Err(error) = self.logs.record(&event) {
            let text = format!("a log of this build cannot be written: {error}");
            self.observer.observe(Event::Warning(&text));
        }
        self.observer.observe(event);
    }
}

/// How many images are in work where so much is done at the same time. One more than that, because scripts sleep (fc-cache
/// for two seconds after its work), and images wait for packages that another one lays; but one means one.
fn at_once(jobs: usize) -> usize {
    if jobs > 1 { jobs + 1 } else { 1 }
}

/// About how much there is to do for an image, in bytes of packages; commands take as long as some.
fn work_of(planned: &PlannedImage<'_>) -> u64 {
    const COMMAND: u64 = 1 << 20;
    let packages: u64 = planned.packages.values().flatten().map(|package| package.size).sum();
    packages + COMMAND * (1 + planned.image.steps.len() as u64)
}

/// The images that were built, and what kept the others from it.
#[derive(Default)]
struct Collected {
    built: Vec<BuiltImage>,
    errors: Vec<BuildError>,
    failed: Vec<ImageName>,
    skipped: Vec<ImageName>,
}

impl Collected {
    fn add(&mut self, plan: &Plan<'_>, outcomes: Vec<Outcome<Arc<BuiltImage>, BuildError>>) {
        for (planned, outcome) in plan.images.iter().filter(|planned| planned.wanted).zip(outcomes) {
            let name = || planned.image.name.value.clone();
            match outcome {
                Outcome::Done(image) => self.built.push(Arc::unwrap_or_clone(image)),
                Outcome::Failed(error) => {
                    self.errors.push(error);
                    self.failed.push(name());
                }
                Outcome::Skipped => self.skipped.push(name()),
            }
        }
    }

    fn has_failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// What was built, or what kept it from being all: the only error, or a summary of several images.
    fn into_built(self) -> Result<Vec<BuiltImage>, BuildError> {
        let Self { built, mut errors, failed, skipped } = self;
        match errors.len() {
            0 => Ok(built),
            1 if skipped.is_empty() => Err(errors.remove(0)),
            _ => Err(BuildError::Images { failed, skipped, errors }),
        }
    }
}
