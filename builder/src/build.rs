//! Builds a plan: every image's steps over its parent's layers, each step done once and remembered by everything that
//! its result depends on, independent images at the same time.

mod foresight;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use content::{Digest, FramedHasher};
use layer::compress::{Compression, decompress};
use layer::record::TreeDir;
use layer::unpack::Unpacker;
use layer::view::View;
use layer::write::EntryWriter;
use oci::{Descriptor, ImageConfig, MediaType, Platform, Reference};
use sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use spec::{Command, Diagnostic, ImageName, Span, Step};
use store::{Area, Cache, CacheWriter, Layout, StoreError};

use crate::cut;
use crate::error::{BuildError, chain};
use crate::events::{Event, Observer};
use crate::fetch::Fetcher;
use crate::graph::{self, Outcome};
use crate::image::{LAYER_BUDGET, Layer, configuration, documents};
use crate::layering;
use crate::layers::LayerWriter;
use crate::logs::Logs;
use crate::package::segment::Segment;
use crate::pause::Pause;
use crate::plan::{LockedPackage, Plan, PlannedImage};
use crate::python::Compiling;
use crate::secrets::{Redactor, Secrets};
use crate::steps::accounts::{self, Wanted};
use crate::steps::bytecode::Compiler;
use crate::steps::commands::{self, LookAround, Runner, lay_changes};
use crate::steps::configure::{self, Waiting};
use crate::steps::files::{Files, Inputs};
use crate::steps::mounts::{Mounts, Place};
use crate::steps::packages::{Ground, Group, Places, Workshop, right_directories};

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
    /// Cut the packages into layers anew, whatever the layout's images have.
    pub recut: bool,
}

/// Builds plans into a layout.
pub struct Builder<'a> {
    /// How to build.
    pub options: Options,
    /// Where images go.
    pub layout: &'a Layout,
    /// Where everything that can be made again is kept.
    pub cache: &'a Cache,
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

/// An image between two steps.
#[derive(Clone, Debug)]
struct State {
    /// Names everything done so far.
    key: Digest,
    layers: Vec<Layer>,
    /// The date of the newest input, in seconds since 1970.
    epoch: i64,
    /// Commands that the image wants run in its direct children.
    triggers: Vec<Command>,
    /// The environment and directory that commands see.
    config: Option<ImageConfig>,
}

/// What the cache remembers of a step.
#[derive(Clone, Serialize, Deserialize)]
struct StepRecord {
    /// None if the step changed nothing; one for each group of packages.
    layers: Vec<StoredLayer>,
    /// The image's date after the step.
    epoch: i64,
}

/// A layer, and where the cache has it.
#[derive(Clone, Serialize, Deserialize)]
struct StoredLayer {
    key: Digest,
    layer: Layer,
}

/// A step that lays packages, as it is done.
struct PackagesStep<'a> {
    image: &'a ImageName,
    /// In the order in which they are unpacked.
    packages: &'a [LockedPackage],
    /// The packages of each layer.
    groups: &'a [cut::Group],
    /// Who compiles their modules.
    compiling: &'a Compiling,
    /// Where the spec asks for them.
    span: &'a Span,
    workshop: Workshop<'a>,
}

impl PackagesStep<'_> {
    fn cannot_run(&self) -> Diagnostic {
        scripts_cannot_run(self.image, self.packages, self.span)
    }
}

/// What a step is, for people and for the cache.
struct StepName<'a> {
    kind: &'static str,
    described: &'a str,
    key: Digest,
}

impl Builder<'_> {
    /// Builds all images of a plan. `reference` gives the name of each.
    ///
    /// Where nothing can be run, a plan in which something has to be is refused before anything is done; to keep going
    /// is to build what can be built all the same.
    pub fn build(
        &self,
        plan: &Plan<'_>,
        reference: &(dyn Fn(&spec::Image) -> Reference + Sync),
    ) -> Result<Vec<BuiltImage>, BuildError> {
        self.secrets.check(plan)?;
        let Options { recut, layer_budget, .. } = self.options;
        let cut = layering::cut(plan, Some(self.layout), recut, layer_budget, reference)?;
        if !self.options.keep_going {
            self.refuse_what_cannot_run(plan, &cut)?;
        }
        let wanted: Vec<usize> = (0..plan.images.len()).filter(|place| plan.images[*place].wanted).collect();
        let place = |parent: usize| wanted.binary_search(&parent).expect("parents of what is wanted are wanted");
        let parents: Vec<Option<usize>> = wanted.iter().map(|image| plan.images[*image].parent.map(place)).collect();
        let work = |place: usize, parent: Option<&Arc<BuiltImage>>| {
            let planned = &plan.images[wanted[place]];
            let (name, reference) = (&planned.image.name.value, reference(planned.image));
            let groups = |step| layering::of_step(&cut, plan, wanted[place], step);
            self.logs.name(name, &reference);
            let mut built = self.image(planned, &groups, parent.map(AsRef::as_ref), reference);
            self.tell(name, &built);
            if let Err(BuildError::Command { log, .. }) = &mut built {
                *log = self.logs.path(name);
            }
            built.map(Arc::new)
        };
        let outcomes = graph::run(&parents, self.options.jobs, self.options.keep_going, work);
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        let (built, problem) = collect(plan, outcomes);
        // Whoever asked to go on keeps what could be built; otherwise all images change together or none does.
        if problem.is_none() || self.options.keep_going {
            self.name(&built)?;
        }
        problem.map_or(Ok(built), Err)
    }

    fn name(&self, built: &[BuiltImage]) -> Result<(), BuildError> {
        let named: Vec<(Reference, Descriptor)> =
            built.iter().map(|image| (image.reference.clone(), image.manifest.clone())).collect();
        if named.iter().any(|(reference, descriptor)| !self.is_named(reference, descriptor)) {
            self.layout.set_references(&named)?;
        }
        Ok(())
    }

    fn is_named(&self, reference: &Reference, descriptor: &Descriptor) -> bool {
        self.layout.find(reference).ok().flatten().is_some_and(|found| found.digest == descriptor.digest)
    }

    fn tell(&self, image: &ImageName, built: &Result<BuiltImage, BuildError>) {
        match built {
            Ok(built) => {
                let log = self.logs.path(image);
                self.observe(Event::ImageFinished { image, cached: built.is_cached(), log: log.as_deref() });
            }
            Err(BuildError::Interrupted) => {}
            Err(error) => {
                let last_lines = match error {
                    BuildError::Command { last_lines, .. } => last_lines.as_slice(),
                    _ => &[],
                };
                let log = self.logs.path(image);
                self.observe(Event::ImageFailed { image, error: &chain(error), last_lines, log: log.as_deref() });
            }
        }
    }

    /// Builds one image. `groups` gives the layers of the packages of each step.
    fn image<'c>(
        &self,
        planned: &PlannedImage<'_>,
        groups: &dyn Fn(usize) -> &'c [cut::Group],
        parent: Option<&BuiltImage>,
        reference: Reference,
    ) -> Result<BuiltImage, BuildError> {
        let image = planned.image;
        let name = &image.name.value;
        let mut state = parent.map_or_else(|| self.nothing(), |parent| parent.state.clone());
        let mut reports = Vec::new();
        for command in std::mem::take(&mut state.triggers) {
            self.command(name, &command, &mut state, &mut reports)?;
        }
        for (place, step) in image.steps.iter().enumerate() {
            match step {
                Step::Packages(_) => {
                    let (packages, compiling) = (planned.packages[&place].as_slice(), &planned.compiling[&place]);
                    let (groups, span) = (groups(place), packages_span(image, step));
                    let step =
                        PackagesStep { image: name, packages, groups, compiling, span, workshop: self.workshop() };
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
        self.assemble(image, parent, reference, state, reports)
    }

    fn nothing(&self) -> State {
        State {
            key: FramedHasher::new("scratch 1").finish(),
            layers: Vec::new(),
            epoch: self.options.epoch.unwrap_or(0),
            triggers: Vec::new(),
            config: None,
        }
    }

    /// Writes the documents of an image whose layers are all there.
    fn assemble(
        &self,
        image: &spec::Image,
        parent: Option<&BuiltImage>,
        reference: Reference,
        mut state: State,
        mut steps: Vec<StepReport>,
    ) -> Result<BuiltImage, BuildError> {
        let started = Instant::now();
        let platform = Platform::linux("amd64");
        let parent_config = parent.map(|parent| &parent.config);
        let config = configuration(image, parent_config, &platform, &state.layers, state.epoch);
        let mut annotations: BTreeMap<String, String> =
            image.annotations.iter().map(|entry| (entry.key.to_string(), entry.value.value.clone())).collect();
        let budget = layering::budget(image, self.options.layer_budget);
        annotations.insert(LAYER_BUDGET.to_owned(), layering::written(budget));
        let made = documents(&config, &state.layers, annotations);
        let cached = self.layout.has_blob(made.descriptor.digest, made.descriptor.size);
        self.layout.put_bytes(&made.config)?;
        self.layout.put_bytes(&made.manifest)?;
        let config_digest = Digest::of(&made.config);
        let seconds = started.elapsed().as_secs_f64();
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
            layers: state.layers.clone(),
            steps,
            build_only: image.build_only,
            state,
        })
    }

    fn workshop(&self) -> Workshop<'_> {
        Workshop {
            cache: self.cache,
            fetcher: self.fetcher,
            compression: self.options.compression,
            jobs: self.options.jobs,
            places: &self.places,
            observer: self.observer,
            interrupt: self.interrupt,
        }
    }

    /// What compiles the modules of a step's packages, if that is done apart from the image.
    fn compiler<'b>(&'b self, step: &'b PackagesStep<'b>) -> Option<Compiler<'b>> {
        let Compiling::Once(interpreter) = step.compiling else { return None };
        let (workshop, image, owners) = (&step.workshop, step.image, self.sandbox.owners());
        Some(Compiler { workshop, runner: self.runner(), owners, image, interpreter })
    }

    /// The segments of a step's packages, with their bytecode.
    fn segments(&self, step: &PackagesStep<'_>, below: &[TreeDir]) -> Result<Vec<Segment>, BuildError> {
        let mut segments = step.workshop.segments(step.packages)?;
        if let Some(compiler) = self.compiler(step) {
            self.must_run(|| step.cannot_run())?;
            compiler.compile(step.packages, &mut segments, &View::new(below))?;
        }
        Ok(segments)
    }

    /// Removes what the disk damaged of the packages' segments and bytecode. Returns whether there was any.
    fn discard_damaged(&self, step: &PackagesStep<'_>, below: &[TreeDir]) -> Result<bool, BuildError> {
        let PackagesStep { packages, workshop, .. } = step;
        let damaged = workshop.discard_damaged(packages)?;
        let Some(compiler) = self.compiler(step) else { return Ok(damaged) };
        Ok(compiler.discard_damaged(packages, &workshop.segments(packages)?, &View::new(below))? || damaged)
    }

    fn packages(
        &self,
        step: &PackagesStep<'_>,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let PackagesStep { image, packages, .. } = step;
        if packages.is_empty() {
            return Ok(());
        }
        let key = self.packages_key(packages, step.groups, step.compiling, state);
        let described = counted(packages.len());
        let name = StepName { kind: "packages", described: &described, key };
        let before = state.layers.len();
        self.step(image, &name, state, reports, |state| {
            let below = self.trees(&state.layers)?;
            match self.lay(step, &below, state) {
                // What the disk damaged can be made again.
                Err(BuildError::Io(_)) if self.discard_damaged(step, &below)? => self.lay(step, &below, state),
                other => other,
            }
        })?;
        self.configure(step, before, state, reports)
    }

    /// Lays the packages of a step, each group as one layer.
    fn lay(&self, step: &PackagesStep<'_>, below: &[TreeDir], state: &State) -> Result<StepRecord, BuildError> {
        let segments = self.segments(step, below)?;
        let newest = segments.iter().map(|segment| segment.record.date).max().unwrap_or(0);
        let epoch = self.options.epoch.unwrap_or_else(|| state.epoch.max(newest));
        let ground = Ground::survey(&segments, below)?;
        let mut layers = Vec::with_capacity(step.groups.len());
        for (place, members) in step.groups.iter().enumerate() {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(BuildError::Interrupted);
            }
            let group = Group::new(members.iter().map(|member| &segments[*member]).collect(), &ground, place == 0);
            let labels = members.iter().map(|member| step.packages[*member].label()).collect();
            layers.push(self.group(step.image, &group, labels)?);
        }
        Ok(StepRecord { layers, epoch })
    }

    /// The layer of a group, which may have been made for another image.
    fn group(&self, image: &ImageName, group: &Group<'_>, labels: Vec<String>) -> Result<StoredLayer, BuildError> {
        let key = group.key();
        let made = || self.groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record_key = FramedHasher::new("group record").field("group", key.as_bytes()).finish();
        let _laying = self.cache.lock(Area::Layers, key, &mut || {})?;
        let known = made().get(&key).cloned();
        let found = match known {
            None if !self.options.no_cache => self.cache.get_json(Area::Steps, record_key)?,
            found => found,
        };
        if let Some(found) = found
            && self.is_stored(&found)?
        {
            made().insert(key, found.clone());
            return Ok(found);
        }
        let made_by = format!("drystone: {}", counted(labels.len()));
        let mut stands_alone = false;
        let laid = self.layer(key, image, &made_by, labels, |layer| {
            stands_alone = group.lay(layer)?;
            Ok(true)
        })?;
        let mut stored = laid.expect("a group has packages");
        stored.layer.stands_alone = stands_alone;
        self.cache.put_json(Area::Steps, record_key, &stored)?;
        made().insert(key, stored.clone());
        Ok(stored)
    }

    /// Runs the scripts of packages that were laid over the first `before` layers.
    fn configure(
        &self,
        step: &PackagesStep<'_>,
        before: usize,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let PackagesStep { image, packages, compiling, .. } = step;
        let key = self.configure_key(state);
        let name = StepName { kind: "configure", described: "maintainer scripts", key };
        self.step(image, &name, state, reports, |state| {
            let laid = self.trees(&state.layers)?;
            let stack = (laid.as_slice(), before);
            let segments = self.segments(step, &laid)?;
            let waiting = Waiting { packages, segments: &segments, compiling };
            let runs = configure::has_dpkg(&View::new(&laid))?;
            let made_by = if runs { "drystone: maintainer scripts" } else { "drystone: package database" };
            if runs {
                self.must_run(|| step.cannot_run())?;
            }
            let layer = self.changed(image, made_by, key, &laid, state.epoch, |upper| {
                right_directories(&segments, stack, upper, self.sandbox.owners())?;
                match runs {
                    true => configure::run(&self.runner(), image, &waiting, stack, upper, state.epoch),
                    false => configure::without_dpkg(image, &waiting, stack, upper),
                }
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    fn files(
        &self,
        image: &ImageName,
        files: &Files,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let key = self.files_key(files, state);
        let name = StepName { kind: "files", described: "files", key };
        self.step(image, &name, state, reports, |state| {
            let below = self.trees(&state.layers)?;
            let layer = self.layer(key, image, &files.describe(), Vec::new(), |layer| {
                let mut failed = None;
                let written = layer.counted_entries(|writer| {
                    files.write(&View::new(&below), state.epoch, writer).map_err(|error| {
                        failed = Some(error);
                        io::Error::other("see the error kept beside")
                    })
                });
                match failed {
                    Some(error) => Err(error),
                    None => Ok(written.map(|()| true)?),
                }
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    fn accounts(
        &self,
        image: &ImageName,
        wanted: Wanted<'_>,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let described = wanted.describe();
        let key = self.accounts_key(&wanted, state);
        let kind = match wanted {
            Wanted::Groups(_) => "groups",
            Wanted::Users(_) => "users",
        };
        let name = StepName { kind, described: &described, key };
        self.step(image, &name, state, reports, |state| {
            let below = self.trees(&state.layers)?;
            let mut files = accounts::Files::read(&below, self.sandbox.owners(), state.epoch)?;
            files.add(wanted)?;
            let layer = self.layer(key, image, &format!("drystone: {described}"), Vec::new(), |layer| {
                layer.entries(files.size(), |writer| files.write(&mut EntryWriter::new(writer)))?;
                Ok(true)
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    fn command(
        &self,
        image: &ImageName,
        command: &Command,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let described = commands::describe(command);
        let (env, workdir) = surroundings(state);
        let mounts = Mounts::read(command, &self.inputs())?;
        let key = self.command_key(command, &mounts, state);
        let brief = commands::brief(&described);
        let name = StepName { kind: "run", described: &brief, key };
        self.step(image, &name, state, reports, |state| {
            self.must_run(|| command_cannot_run(image, command))?;
            let below = self.trees(&state.layers)?;
            let view = View::new(&below);
            let mut invocation = commands::invocation(image, &brief, command, (&env, &workdir), &view)?;
            let user = invocation.user.clone();
            let mut ready = mounts.prepare(&self.place(&user, state.epoch), &self.pause)?;
            invocation.mounts = std::mem::take(&mut ready.mounts);
            let layer = self.changed(image, &described, key, &below, state.epoch, |upper| {
                self.runner().run(invocation, &below, upper)
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    fn runner(&self) -> Runner<'_> {
        Runner {
            sandbox: self.sandbox,
            observer: self,
            interrupt: self.interrupt,
            redactor: &self.redactor,
            look_around: self.look_around,
            pause: &self.pause,
        }
    }

    /// What the mounts of a command are made of.
    fn place<'p>(&'p self, user: &'p sandbox::User, epoch: i64) -> Place<'p> {
        let (owners, owners_name) = (self.sandbox.owners(), self.sandbox.kind_of_trees());
        Place { cache: self.cache, secrets: self.secrets, owners, owners_name, user, epoch }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { family: &self.options.family, fetcher: self.fetcher, cache: self.cache }
    }

    /// Fails if commands cannot be run here, and says so of `step`.
    fn must_run(&self, step: impl FnOnce() -> Diagnostic) -> Result<(), BuildError> {
        self.sandbox.may_run().map_err(|why| BuildError::CannotRun { steps: step().into(), why })
    }

    fn packages_key(
        &self,
        packages: &[LockedPackage],
        groups: &[cut::Group],
        compiling: &Compiling,
        state: &State,
    ) -> Digest {
        let digests: Vec<&[u8; 32]> = packages.iter().map(|package| package.sha256.as_bytes()).collect();
        let groups = groups.iter().map(|group| group.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
        self.key("packages 5", state)
            .list("debs", digests)
            .list("groups", groups.collect::<Vec<_>>())
            .field("compiling", compiling.key())
            .finish()
    }

    fn configure_key(&self, state: &State) -> Digest {
        self.key(configure::VERSION, state).finish()
    }

    fn files_key(&self, files: &Files, state: &State) -> Digest {
        self.key("files 1", state).field("files", files.key().as_bytes()).finish()
    }

    fn accounts_key(&self, wanted: &Wanted<'_>, state: &State) -> Digest {
        self.key("accounts 1", state).field("accounts", wanted.key().as_bytes()).finish()
    }

    fn command_key(&self, command: &Command, mounts: &Mounts<'_>, state: &State) -> Digest {
        let (env, workdir) = surroundings(state);
        self.key("run 1", state)
            .field("command", commands::key(command, mounts).as_bytes())
            .list("env", &env)
            .field("workdir", &workdir)
            .finish()
    }

    /// Starts the key of a step: what it is, and all that was done before it.
    fn key(&self, kind: &str, state: &State) -> FramedHasher {
        FramedHasher::new(kind)
            .field("below", state.key.as_bytes())
            .field("encoder", self.options.compression.encoder())
            .field("epoch", self.options.epoch.map(|epoch| epoch.to_string()).unwrap_or_default())
    }

    /// Does a step, or takes its result from the cache.
    fn step(
        &self,
        image: &ImageName,
        name: &StepName<'_>,
        state: &mut State,
        reports: &mut Vec<StepReport>,
        work: impl FnOnce(&State) -> Result<StepRecord, BuildError>,
    ) -> Result<(), BuildError> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        let started = Instant::now();
        let mut cached = true;
        let record = match self.remembered(name.key)? {
            Some(record) => record,
            None => {
                let _doing = self.cache.lock(Area::Steps, name.key, &mut || {
                    self.observe(Event::Note("waiting for another build that does the same step"));
                })?;
                match self.remembered(name.key)? {
                    Some(record) => record,
                    None => {
                        cached = false;
                        let _working = self.pause.work();
                        self.observe(Event::StepStarted { image, step: name.described });
                        let record = work(state)?;
                        self.cache.put_json(Area::Steps, name.key, &record)?;
                        record
                    }
                }
            }
        };
        let elapsed = started.elapsed();
        self.report(image, name, cached, elapsed, reports);
        // The layer may have been made for another image that began in the same way.
        let layers = record.layers.into_iter().map(|stored| stored.layer);
        state.layers.extend(layers.map(|layer| Layer { from: image.to_string(), ..layer }));
        state.epoch = record.epoch;
        state.key = name.key;
        Ok(())
    }

    fn report(
        &self,
        image: &ImageName,
        name: &StepName<'_>,
        cached: bool,
        elapsed: Duration,
        reports: &mut Vec<StepReport>,
    ) {
        self.observe(Event::StepFinished { image, step: name.described, cached, elapsed });
        let id = name.key.to_string();
        reports.push(StepReport { id, kind: name.kind, cached, seconds: elapsed.as_secs_f64() });
    }

    /// The result of a step, if it is known and its layers are in the layout or can be put there.
    fn remembered(&self, key: Digest) -> Result<Option<StepRecord>, BuildError> {
        if self.options.no_cache {
            return Ok(None);
        }
        let Some(record) = self.cache.get_json::<StepRecord>(Area::Steps, key)? else { return Ok(None) };
        for stored in &record.layers {
            if !self.is_stored(stored)? {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    /// Whether a layer is in the layout, where it is put if the cache has it.
    fn is_stored(&self, StoredLayer { key, layer }: &StoredLayer) -> Result<bool, BuildError> {
        if self.layout.has_blob(layer.digest, layer.size) {
            return Ok(true);
        }
        let Some(path) = self.cache.file(Area::Layers, *key) else { return Ok(false) };
        match self.layout.put_file_link(&path, layer.digest, layer.size) {
            Ok(()) => Ok(true),
            Err(StoreError::Damaged { .. } | StoreError::WrongSize { .. }) => {
                self.cache.remove(Area::Layers, *key)?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one layer; none if `write` says that there is nothing in it.
    fn layer(
        &self,
        key: Digest,
        image: &ImageName,
        made_by: &str,
        packages: Vec<String>,
        write: impl FnOnce(&mut LayerWriter<CacheWriter<'_>>) -> Result<bool, BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        let mut writer = LayerWriter::new(self.cache.writer(Area::Layers, key)?, self.options.compression);
        if !write(&mut writer)? {
            return Ok(None);
        }
        let (stored, laid) = writer.finish()?;
        let (path, digest, size) = stored.commit()?;
        self.layout.put_file_link(&path, digest, size)?;
        let layer = Layer {
            digest,
            diff_id: laid.diff_id,
            size,
            uncompressed_size: laid.uncompressed_size,
            unpacked_size: laid.unpacked_size,
            media_type: match self.options.compression {
                Compression::Gzip => MediaType::ImageLayerGzip,
                Compression::Zstd => MediaType::ImageLayerZstd,
            },
            from: image.to_string(),
            made_by: made_by.to_owned(),
            packages,
            stands_alone: false,
        };
        Ok(Some(StoredLayer { key, layer }))
    }

    /// Runs `change` over an empty upper tree, and makes a layer of what it changed.
    fn changed(
        &self,
        image: &ImageName,
        made_by: &str,
        key: Digest,
        below: &[TreeDir],
        epoch: i64,
        change: impl FnOnce(&TreeDir) -> Result<(), BuildError>,
    ) -> Result<Option<StoredLayer>, BuildError> {
        let scratch = self.cache.scratch_dir()?;
        let upper = TreeDir::create(scratch.path().join("upper"))?;
        change(&upper)?;
        self.layer(key, image, made_by, Vec::new(), |layer| {
            Ok(lay_changes(&upper, below, self.sandbox.owners(), epoch, layer)?)
        })
    }

    /// The unpacked trees of layers, the lowest first.
    fn trees(&self, layers: &[Layer]) -> Result<Vec<TreeDir>, BuildError> {
        let mut trees = Vec::with_capacity(layers.len());
        let mut chain = self.tree_key();
        for layer in layers {
            let key = |below: Digest| {
                FramedHasher::new("tree")
                    .field("below", below.as_bytes())
                    .field("layer", layer.diff_id.0.as_bytes())
                    .finish()
            };
            chain = key(chain);
            // What stands alone is unpacked once, whatever it lies on.
            let tree = match layer.stands_alone {
                true => self.tree(key(self.tree_key()), layer, &[])?,
                false => self.tree(chain, layer, &trees)?,
            };
            trees.push(tree);
        }
        Ok(trees)
    }

    /// Trees are kept apart by how they store owners, and where that is by a map of ids, by the map: those of one kind
    /// may be unreadable for a builder of another.
    fn tree_key(&self) -> Digest {
        FramedHasher::new("trees 1").field("owners", self.sandbox.kind_of_trees()).finish()
    }

    fn tree(&self, key: Digest, layer: &Layer, below: &[TreeDir]) -> Result<TreeDir, BuildError> {
        const TREE: &str = "tree";
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let _unpacking = self.cache.lock(Area::Trees, key, &mut || {})?;
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let new = self.cache.new_tree()?;
        let tree = TreeDir::create(new.path().join(TREE))?;
        let mut unpacker = Unpacker::new(&tree, below, self.sandbox.owners())?;
        let stored = self.layout.open_blob(layer.digest, layer.size)?;
        layer::read::entries(decompress(stored)?, |entry, content| unpacker.apply(&entry, content))?;
        unpacker.finish()?;
        Ok(TreeDir::new(new.commit(key)?.join(TREE)))
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

/// The environment and directory that a command finds.
fn surroundings(state: &State) -> (Vec<String>, String) {
    match &state.config {
        Some(config) => (config.config.env.clone(), config.config.working_dir.clone()),
        None => (vec![format!("PATH={}", crate::image::DEFAULT_PATH)], String::new()),
    }
}

/// A number of packages in words.
fn counted(packages: usize) -> String {
    if packages == 1 { "1 package".to_owned() } else { format!("{packages} packages") }
}

/// Where a step asks for packages.
fn packages_span<'a>(image: &'a spec::Image, step: &'a Step) -> &'a Span {
    match step {
        Step::Packages(requests) => requests.first().map_or(&image.name.span, |request| &request.span),
        _ => &image.name.span,
    }
}

fn scripts_cannot_run(image: &ImageName, packages: &[LockedPackage], span: &Span) -> Diagnostic {
    Diagnostic::new(span.clone(), format!("{image}: the scripts of {} cannot be run", counted(packages.len())))
}

fn command_cannot_run(image: &ImageName, command: &Command) -> Diagnostic {
    let brief = commands::brief(&commands::describe(command));
    Diagnostic::new(command.line.span.clone(), format!("{image}: `{brief}` cannot be run"))
}

/// The images that were built, and what kept the others from it: the only error, or a summary of several images.
fn collect(
    plan: &Plan<'_>,
    outcomes: Vec<Outcome<Arc<BuiltImage>, BuildError>>,
) -> (Vec<BuiltImage>, Option<BuildError>) {
    let (mut built, mut errors, mut failed, mut skipped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (planned, outcome) in plan.images.iter().filter(|planned| planned.wanted).zip(outcomes) {
        match outcome {
            Outcome::Done(image) => built.push(Arc::unwrap_or_clone(image)),
            Outcome::Failed(error) => {
                errors.push(error);
                failed.push(planned.image.name.value.clone());
            }
            Outcome::Skipped => skipped.push(planned.image.name.value.clone()),
        }
    }
    let problem = match errors.len() {
        0 => None,
        1 if skipped.is_empty() => errors.pop(),
        _ => Some(BuildError::Images { failed, skipped, errors }),
    };
    (built, problem)
}
