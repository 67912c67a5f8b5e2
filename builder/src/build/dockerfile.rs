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
        let directory = self.options.family.join(&image.directory);
        let context = Context::of_dockerfile(&directory.join(DOCKERFILE), &directory)?;
        let annotations = image.annotations.iter().map(|entry| (entry.key.to_string(), entry.value.value.clone()));
        self.image_of_recipe(&Recipe {
            dockerfile,
            context: Some(&context),
            name: image.name.value.clone(),
            reference,
            target: None,
            arguments: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: annotations.collect(),
            platform: platform.clone(),
            network: Network::Host,
            agents: BTreeMap::new(),
            siblings: siblings.iter().map(|image| (image.name.to_string(), Arc::clone(image))).collect(),
        })
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
        let arguments = Arguments::read(dockerfile, recipe.arguments.clone(), recipe.platform_arguments());
        let arguments = arguments.map_err(BuildError::Spec)?;
        for name in arguments.unused(dockerfile) {
            let text = format!("the Dockerfile has no ARG `{name}`: its value was given, and is not used");
            crate::events::Observer::observe(self, crate::events::Event::Warning(&text));
        }
        let target = target(dockerfile, recipe.target.as_deref())?;
        let order = needs(dockerfile, target, &arguments, &recipe.platform)?;
        let place =
            |stage: &usize| order.iter().position(|need| need.stage == *stage).expect("what is needed is there");
        let parents: Vec<Vec<usize>> = order.iter().map(|need| need.stages.iter().map(place).collect()).collect();
        let work = |place: usize, done: &[Arc<Stage>]| {
            let need: &Need = &order[place];
            let stages: BTreeMap<usize, Arc<Stage>> = need.stages.iter().copied().zip(done.iter().cloned()).collect();
            StageBuild::new(self, recipe, &arguments, need, stages, need.stage == target).build().map(Arc::new)
        };
        // First the stage that the most others wait for.
        let urgency = graph::remaining(&parents, &vec![1; parents.len()]);
        let mut outcomes = graph::run(&parents, &urgency, self.options.jobs, false, work);
        let last = outcomes.pop().expect("the target is the last");
        let failed = outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Done(_) | Outcome::Skipped => None,
        });
        match (failed, last) {
            (Some(error), _) | (None, Outcome::Failed(error)) => Err(error),
            (None, Outcome::Done(stage)) => self.finish(recipe, Arc::unwrap_or_clone(stage)),
            (None, Outcome::Skipped) => Err(BuildError::Interrupted),
        }
    }

    /// Writes the documents of an image whose last stage is built.
    fn finish(&self, recipe: &Recipe<'_>, stage: Stage) -> Result<BuiltImage, BuildError> {
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

/// Whether commands see an argument without its being declared.
fn is_proxy(name: &str) -> bool {
    PROXY_ARGUMENTS.contains(&name)
}
