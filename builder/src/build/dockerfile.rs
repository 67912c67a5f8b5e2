//! Builds an image from a Dockerfile: its stages as a graph, each a line of steps.

mod copy;
mod run;
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use content::Digest;
use oci::{ImageConfig, Platform, Reference};
use sandbox::Network;
use spec::dockerfile::{Arguments, Dockerfile, PROXY_ARGUMENTS, Scope};

use self::stage::StageBuild;
use super::explain::Foreseen;
use super::inputs::{Facts, LastStep};
use super::{Builder, BuiltImage, State, StepReport};
use crate::accounts::Accounts;
use crate::dockerfile::Recipe;
use crate::dockerfile::context::Context;
use crate::dockerfile::needs::{Need, needs, target};
use crate::error::BuildError;
use crate::graph::{self, Outcome};
use crate::image::{documents, rfc3339};
use crate::load::DOCKERFILE;

/// A stage that is built.
#[derive(Clone)]
struct Stage {
    state: State,
    /// Its variables, for stages that are built on it.
    scope: Scope,
    reports: Vec<StepReport>,
    /// How many of these are those of the stage that it is built on.
    inherited: usize,
    known: Known,
    /// Its steps, if it was only looked at.
    ahead: Vec<Ahead>,
}

/// What is known of a stage or an image. All of it is, of one that is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The key of all that was done for it.
    pub(super) key: bool,
    /// Its layers, which are in the layout.
    pub(super) layers: bool,
}

impl Known {
    pub(super) const ALL: Self = Self { key: true, layers: true };
}

/// A step as it would be done.
#[derive(Clone)]
pub(super) struct Ahead {
    pub(super) kind: &'static str,
    pub(super) described: String,
    /// None if it depends on what another step makes that has to run first.
    pub(super) key: Option<Digest>,
    pub(super) facts: Facts,
    /// The key of what it is done over, and of what there is after it.
    pub(super) below: Digest,
    pub(super) after: Digest,
}

/// An image as it would be built.
pub(super) struct RecipeAhead {
    /// The steps of its stages, by what a stage is called.
    pub(super) stages: Vec<(String, Vec<Ahead>)>,
    /// The image, but for its date.
    pub(super) image: Foreseen,
}

impl Builder<'_> {
    /// Builds the image of a recipe, and tells how it went. To name it in the layout is left to the caller.
    pub fn dockerfile(&self, recipe: &Recipe<'_>) -> Result<BuiltImage, BuildError> {
        self.logs.name(&recipe.name, &recipe.reference);
        let mut built = self.image_of_recipe(recipe);
        if self.interrupt.load(Ordering::Relaxed) {
            built = Err(BuildError::Interrupted);
        }
        self.tell(&recipe.name, &built);
        built.map_err(|error| self.with_log(error, recipe))
    }

    /// Builds an image of a family that has a Dockerfile. `siblings` are those that it needs.
    pub(super) fn of_dockerfile(
        &self,
        (image, dockerfile): (&spec::Image, &Dockerfile),
        platform: &Platform,
        siblings: &[Arc<BuiltImage>],
        reference: Reference,
    ) -> Result<BuiltImage, BuildError> {
        let context = self.context_of(image)?;
        let siblings = siblings.iter().map(|image| (image.name.to_string(), Arc::clone(image))).collect();
        self.image_of_recipe(&Recipe { siblings, ..recipe_of((image, dockerfile), platform, &context, reference) })
    }

    /// Looks at what would be done for an image of a family that has a Dockerfile. `siblings` are those that it needs.
    pub(super) fn dockerfile_ahead(
        &self,
        (image, dockerfile): (&spec::Image, &Dockerfile),
        platform: &Platform,
        siblings: &BTreeMap<String, Foreseen>,
        reference: Reference,
    ) -> Result<RecipeAhead, BuildError> {
        let context = self.context_of(image)?;
        self.recipe_ahead(&recipe_of((image, dockerfile), platform, &context, reference), siblings)
    }

    /// Looks at what would be done for a recipe. `siblings` are the images of its family that it needs.
    pub(super) fn recipe_ahead(
        &self,
        recipe: &Recipe<'_>,
        siblings: &BTreeMap<String, Foreseen>,
    ) -> Result<RecipeAhead, BuildError> {
        let (arguments, order) = read(recipe)?;
        let mut done: BTreeMap<usize, Arc<Stage>> = BTreeMap::new();
        let mut stages = Vec::new();
        for need in &order {
            let is_target = need.stage == order.last().map_or(0, |last| last.stage);
            let known = need.stages.iter().map(|stage| (*stage, Arc::clone(&done[stage]))).collect();
            let stage = StageBuild::new(self, recipe, &arguments, need, known, (is_target, Some(siblings))).build()?;
            stages.push((stage_name(recipe.dockerfile, need.stage), stage.ahead.clone()));
            done.insert(need.stage, Arc::new(stage));
        }
        let (_, last) = done.pop_last().expect("the target is needed");
        let Stage { mut state, known, .. } = Arc::unwrap_or_clone(last);
        let config = state.config.as_mut().expect("every stage has a configuration");
        config.config.labels.extend(recipe.labels.clone());
        Ok(RecipeAhead { stages, image: Foreseen { state, known } })
    }

    /// The directory of an image with a Dockerfile.
    fn context_of(&self, image: &spec::Image) -> Result<Context, BuildError> {
        let directory = self.options.family.join(&image.directory);
        Context::of_dockerfile(&directory.join(DOCKERFILE), &directory)
    }

    /// Says of a command that failed where all of its output is.
    fn with_log(&self, error: BuildError, recipe: &Recipe<'_>) -> BuildError {
        match error {
            BuildError::Located { span, source } => {
                BuildError::Located { span, source: Box::new(self.with_log(*source, recipe)) }
            }
            BuildError::Command { image, what, outcome, last_lines, .. } => {
                BuildError::Command { image, what, outcome, last_lines, log: self.logs.path(&recipe.name) }
            }
            other => other,
        }
    }

    /// Builds the image of a recipe; its name is not in the layout yet.
    pub(super) fn image_of_recipe(&self, recipe: &Recipe<'_>) -> Result<BuiltImage, BuildError> {
        let dockerfile = recipe.dockerfile;
        let (arguments, order) = read(recipe)?;
        for name in arguments.unused(dockerfile) {
            let text = format!("the Dockerfile has no ARG `{name}`: its value was given, and is not used");
            crate::events::Observer::observe(self, crate::events::Event::Warning(&text));
        }
        let target = order.last().expect("the target is needed").stage;
        let place =
            |stage: &usize| order.iter().position(|need| need.stage == *stage).expect("what is needed is there");
        let parents: Vec<Vec<usize>> = order.iter().map(|need| need.stages.iter().map(place).collect()).collect();
        let work = |place: usize, done: &[Arc<Stage>]| {
            let need: &Need = &order[place];
            let stages: BTreeMap<usize, Arc<Stage>> = need.stages.iter().copied().zip(done.iter().cloned()).collect();
            StageBuild::new(self, recipe, &arguments, need, stages, (need.stage == target, None)).build().map(Arc::new)
        };
        // First the stage that the most others wait for.
        let urgency = graph::remaining(&parents, &vec![1; parents.len()]);
        let mut outcomes = graph::run(&parents, &urgency, self.options.jobs, false, work);
        let steps = order.iter().zip(&outcomes).flat_map(|(need, outcome)| match outcome {
            Outcome::Done(stage) => last_steps(dockerfile, need.stage, &stage.reports[stage.inherited..]),
            Outcome::Failed(_) | Outcome::Skipped => Vec::new(),
        });
        let steps: Vec<LastStep> = steps.collect();
        let last = outcomes.pop().expect("the target is the last");
        let failed = outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Done(_) | Outcome::Skipped => None,
        });
        match (failed, last) {
            (Some(error), _) | (None, Outcome::Failed(error)) => Err(error),
            (None, Outcome::Done(stage)) => self.finish(recipe, Arc::unwrap_or_clone(stage), steps),
            (None, Outcome::Skipped) => Err(BuildError::Interrupted),
        }
    }

    /// Writes the documents of an image whose last stage is built.
    fn finish(&self, recipe: &Recipe<'_>, stage: Stage, steps: Vec<LastStep>) -> Result<BuiltImage, BuildError> {
        let started = Instant::now();
        let Stage { mut state, mut reports, .. } = stage;
        let mut config = state.config.clone().expect("every stage has a configuration");
        self.check_user(recipe, &config, &state)?;
        config.config.labels.extend(recipe.labels.clone());
        config.created = Some(rfc3339(state.epoch));
        config.rootfs.diff_ids = state.layers.iter().map(|layer| layer.diff_id).collect();
        let made = documents(&config, &state.layers, recipe.annotations.clone());
        let cached = self.layout.has_blob(made.descriptor.digest, made.descriptor.size);
        self.layout.put_bytes(&made.config)?;
        self.layout.put_bytes(&made.manifest)?;
        self.note(&recipe.reference, steps, &config)?;
        let config_digest = Digest::of(&made.config);
        let seconds = started.elapsed().as_secs_f64();
        reports.push(StepReport { id: config_digest.to_string(), kind: "config", cached, seconds });
        state.config = Some(config.clone());
        Ok(BuiltImage {
            name: recipe.name.clone(),
            reference: recipe.reference.clone(),
            manifest: made.descriptor,
            config,
            config_digest,
            config_size: made.config.len() as u64,
            layers: state.layers.clone(),
            steps: reports,
            build_only: false,
            state,
        })
    }

    /// An image whose user nobody knows cannot be started; a number needs no account.
    fn check_user(&self, recipe: &Recipe<'_>, config: &ImageConfig, state: &State) -> Result<(), BuildError> {
        let user = &config.config.user;
        let Ok(owner) = user.parse::<spec::Owner>() else { return Ok(()) };
        let is_number = |name: &str| name.parse::<u32>().is_ok();
        if user.is_empty() || is_number(&owner.user) && owner.group.as_deref().is_none_or(is_number) {
            return Ok(());
        }
        let instructions = recipe.dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
        let mut span = instructions.filter_map(|instruction| match &instruction.kind {
            spec::dockerfile::Kind::User(user) => Some(&user.span),
            _ => None,
        });
        // One that the base has is the base's business.
        let Some(span) = span.next_back() else { return Ok(()) };
        let trees = self.trees(&state.layers)?;
        match Accounts::read(&layer::view::View::new(&trees))?.ids(&owner) {
            Ok(_) => Ok(()),
            Err(error) => {
                let help = "make the user with RUN useradd, or give a number";
                Err(BuildError::at(span, format!("USER: {error}"), help))
            }
        }
    }
}

/// The recipe of an image of a family, but for its siblings.
fn recipe_of<'a>(
    (image, dockerfile): (&spec::Image, &'a Dockerfile),
    platform: &Platform,
    context: &'a Context,
    reference: Reference,
) -> Recipe<'a> {
    let annotations = image.annotations.iter().map(|entry| (entry.key.to_string(), entry.value.value.clone()));
    Recipe {
        dockerfile,
        context: Some(context),
        name: image.name.value.clone(),
        reference,
        target: None,
        arguments: BTreeMap::new(),
        labels: BTreeMap::new(),
        annotations: annotations.collect(),
        platform: platform.clone(),
        network: Network::Host,
        agents: BTreeMap::new(),
        siblings: BTreeMap::new(),
    }
}

/// The values of the arguments, and the stages that are needed, the target last.
fn read(recipe: &Recipe<'_>) -> Result<(Arguments, Vec<Need>), BuildError> {
    let dockerfile = recipe.dockerfile;
    let arguments = Arguments::read(dockerfile, recipe.arguments.clone(), recipe.platform_arguments());
    let arguments = arguments.map_err(BuildError::Spec)?;
    let target = target(dockerfile, recipe.target.as_deref())?;
    let order = needs(dockerfile, target, &arguments, &recipe.platform)?;
    Ok((arguments, order))
}

/// What a stage is called where its steps are compared with those of the last build: its name, or its number.
fn stage_name(dockerfile: &Dockerfile, place: usize) -> String {
    dockerfile.stages[place].name.as_ref().map_or_else(|| place.to_string(), |name| name.value.clone())
}

/// The kind under which a step of a stage is compared with those of the last build.
pub(super) fn kind_in_stage(kind: &str, stage: &str) -> String {
    format!("{kind} in {stage}")
}

fn last_steps(dockerfile: &Dockerfile, stage: usize, reports: &[StepReport]) -> Vec<LastStep> {
    let stage = stage_name(dockerfile, stage);
    LastStep::of(reports, |kind| kind_in_stage(kind, &stage))
}

/// Whether commands see an argument without its being declared.
fn is_proxy(name: &str) -> bool {
    PROXY_ARGUMENTS.contains(&name)
}
