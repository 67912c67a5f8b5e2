//! What a build would have to run, found out before anything is built, for machines on which nothing can be run.
//!
//! A step whose result is kept need not run, so the keys of all steps are worked out, as the build itself does later.
//! For that the inputs of `files` steps are read where something follows that may have to run, and nothing else is
//! done. What cannot be known yet is left to the build: an image that has dpkg from elsewhere than a package of that
//! name, a file that cannot be read, a layer of the cache that turns out to be damaged.

use content::Digest;
use spec::{Command, Diagnostic, Diagnostics, Step};
use store::Area;

use super::command::command_cannot_run;
use super::packages::{packages_span, scripts_cannot_run};
use super::step::{StepRecord, StoredLayer};
use super::{Builder, State};
use crate::cut::{self, Cut};
use crate::error::BuildError;
use crate::image::{Layer, configuration};
use crate::layering;
use crate::plan::{Plan, PlannedImage};
use crate::steps::accounts::Wanted;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

/// The package that makes scripts run.
const DPKG: &str = "dpkg";

/// An image, as far as it can be known before it is built.
#[derive(Clone)]
struct Foreseen {
    /// Without layers.
    state: State,
    has_dpkg: bool,
}

/// What keeps an image from being foreseen.
enum Unforeseen {
    /// This has to run.
    MustRun(Box<Diagnostic>),
    /// Only the build will know.
    Unknown,
}

impl Builder<'_> {
    /// Fails if something has to be run and nothing can be; names the first such step of every image whose parent has
    /// none.
    pub(super) fn refuse_what_cannot_run(&self, plan: &Plan<'_>, cut: &Cut) -> Result<(), BuildError> {
        let Err(why) = self.sandbox.may_run_for(&plan.platform.architecture) else { return Ok(()) };
        let runs_above = runs_above(plan);
        let mut images: Vec<Option<Foreseen>> = Vec::with_capacity(plan.images.len());
        let mut steps = Diagnostics::new();
        for (place, planned) in plan.images.iter().enumerate() {
            let start = match (planned.parent, &planned.base) {
                (Some(parent), _) => images[parent].clone(),
                (None, Some(base)) => self.on_base(base, &planned.image.from.span).ok().map(|state| Foreseen {
                    state,
                    has_dpkg: base.packages.as_ref().is_some_and(|packages| !packages.is_empty()),
                }),
                (None, None) => Some(Foreseen { state: self.nothing(&plan.platform), has_dpkg: false }),
            };
            // What a Dockerfile runs is found out when it is built.
            let start = start.filter(|_| planned.wanted && planned.image.dockerfile.is_none());
            let groups = |step| layering::of_step(cut, plan, place, step);
            images.push(match start.map(|start| self.foresee(planned, &groups, start, runs_above[place])) {
                Some(Ok(foreseen)) => Some(foreseen),
                Some(Err(Unforeseen::MustRun(step))) => {
                    steps.push(*step);
                    None
                }
                Some(Err(Unforeseen::Unknown)) | None => None,
            });
        }
        if steps.is_empty() { Ok(()) } else { Err(BuildError::CannotRun { steps, why }) }
    }

    fn foresee<'c>(
        &self,
        planned: &PlannedImage<'_>,
        groups: &dyn Fn(usize) -> &'c [cut::Group],
        mut image: Foreseen,
        runs_above: bool,
    ) -> Result<Foreseen, Unforeseen> {
        let spec = planned.image;
        let name = &spec.name.value;
        let must_run = |step: Diagnostic| Unforeseen::MustRun(Box::new(step));
        let command = |command: &Command, state: &mut State| {
            let mounts = Mounts::read(command, &self.inputs()).map_err(|_| Unforeseen::Unknown)?;
            state.key = self.command_key(command, &mounts, state);
            if self.is_kept(state.key) { Ok(()) } else { Err(must_run(command_cannot_run(name, command))) }
        };
        for trigger in std::mem::take(&mut image.state.triggers) {
            command(&trigger, &mut image.state)?;
        }
        for (place, step) in spec.steps.iter().enumerate() {
            match step {
                Step::Packages(_) => {
                    let packages = &planned.packages[&place];
                    if packages.is_empty() {
                        continue;
                    }
                    image.has_dpkg |= packages.iter().any(|package| package.name == DPKG);
                    image.state.key =
                        self.packages_key(packages, groups(place), &planned.compiling[&place], &image.state);
                    image.state.key = self.configure_key(&image.state);
                    if image.has_dpkg && !self.is_kept(image.state.key) {
                        return Err(must_run(scripts_cannot_run(name, packages, packages_span(spec, step))));
                    }
                }
                Step::Files(_) if !runs_above && !spec.steps[place..].iter().any(may_run) => {
                    return Err(Unforeseen::Unknown);
                }
                Step::Files(entries) => {
                    let files = Files::read(entries, &self.inputs()).map_err(|_| Unforeseen::Unknown)?;
                    image.state.key = self.files_key(&files, &image.state);
                }
                Step::Run(line) => command(line, &mut image.state)?,
                Step::Groups(groups) => {
                    image.state.key = self.accounts_key(&Wanted::Groups(groups), &image.state);
                }
                Step::Users(users) => image.state.key = self.accounts_key(&Wanted::Users(users), &image.state),
            }
        }
        let state = &image.state;
        image.state.config = Some(configuration(spec, state.config.as_ref(), &state.platform, &[], state.epoch));
        image.state.triggers = spec.on_build.clone();
        Ok(image)
    }

    /// Whether the result of a step is known and its layer is at hand; no layer is touched.
    pub(super) fn is_kept(&self, key: Digest) -> bool {
        self.kept(key).is_some()
    }

    /// The layers of a step whose result is known and at hand, which need not be in the layout; no layer is touched.
    pub(super) fn kept(&self, key: Digest) -> Option<Vec<Layer>> {
        if self.options.no_cache {
            return None;
        }
        self.borrow_record(key);
        let record = self.cache.get_json::<StepRecord>(Area::Steps, key).ok()??;
        let is_at_hand = record.layers.iter().all(|StoredLayer { key, layer }| {
            self.layout.has_blob(layer.digest, layer.size)
                || self.cache.file(Area::Layers, *key).is_some()
                || self.elsewhere.has_layer(layer.digest)
        });
        is_at_hand.then(|| record.layers.into_iter().map(|stored| stored.layer).collect())
    }
}

fn may_run(step: &Step) -> bool {
    matches!(step, Step::Packages(_) | Step::Run(_))
}

/// For each image, whether one that is built on it has something that may have to run.
fn runs_above(plan: &Plan<'_>) -> Vec<bool> {
    let mut above = vec![false; plan.images.len()];
    for (place, planned) in plan.images.iter().enumerate().rev() {
        let Some(parent) = planned.parent else { continue };
        let triggered = !plan.images[parent].image.on_build.is_empty();
        if !planned.wanted {
            continue;
        }
        above[parent] |= above[place] || triggered || planned.image.steps.iter().any(may_run);
    }
    above
}
