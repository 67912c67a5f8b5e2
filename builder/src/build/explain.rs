//! Why steps of an image would run again: their keys are worked out as a build does it, and where the result of one is
//! not kept, its inputs are compared with those of the last build under the same name.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use oci::{ImageConfig, Reference};
use serde::Serialize;
use spec::{Command, ImageName, Step};

use super::dockerfile::{Ahead, Known, RecipeAhead, kind_in_stage};
use super::inputs::{Facts, LastStep, config_facts};
use super::{Builder, State};
use crate::base;
use crate::cut::Cut;
use crate::dockerfile::Recipe;
use crate::error::BuildError;
use crate::image::configuration;
use crate::layering;
use crate::plan::{Plan, PlannedImage};
use crate::steps::accounts::Wanted;
use crate::steps::commands;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

/// The kind of step that is an image's configuration.
const CONFIG: &str = "config";

/// A step of an image, or of one that it is built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedStep {
    /// Its number, from 1, the lowest first.
    pub number: usize,
    /// The image that it belongs to.
    pub image: String,
    /// What kind of step it is; `config` is the image's configuration.
    pub kind: String,
    /// What it does, for people.
    pub described: String,
    /// The key under which its result is kept; none if that depends on what another step has to make first.
    pub key: Option<Digest>,
    /// Whether its result is kept, so that it would not run.
    pub cached: bool,
    /// Why it would run.
    pub reasons: Vec<Reason>,
}

/// Why a step would run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// No build under this name had such a step.
    New,
    /// Nothing has changed, but its result is not kept any more.
    Lost,
    /// Somebody asked for it.
    NoCache,
    /// What it is done with, another step has to make first.
    Unforeseen,
    /// What it is built on is not on this machine; a build pulls it.
    Absent {
        /// Its name.
        base: String,
    },
    /// It is done over the result of a step that is another one now.
    Below {
        /// The number of that step.
        step: usize,
    },
    /// An input is another one.
    Input {
        /// Its name.
        input: String,
        /// What it was; nothing if it is new.
        before: Option<String>,
        /// What it is; nothing if it is gone.
        now: Option<String>,
    },
}

/// An image as it would be built, as far as others need it that are built on it.
#[derive(Clone)]
pub(super) struct Foreseen {
    pub(super) state: State,
    pub(super) known: Known,
}

impl Builder<'_> {
    /// Explains the steps of the image at a place of the plan, and of all that it is built on. Nothing is changed.
    pub fn explain(
        &self,
        plan: &Plan<'_>,
        cut: &Cut,
        image: usize,
        reference: &dyn Fn(&spec::Image) -> Reference,
    ) -> Result<Vec<ExplainedStep>, BuildError> {
        let mut foreseen: BTreeMap<usize, Option<Foreseen>> = BTreeMap::new();
        let mut explained = Explained::default();
        for place in all_below(plan, image) {
            let planned = &plan.images[place];
            let last = Last::new(self.last_steps(&reference(planned.image))?.unwrap_or_default());
            let needed: Vec<usize> = planned.parent.iter().chain(&planned.needs).copied().collect();
            let below: Option<Vec<Foreseen>> = needed.iter().map(|place| foreseen[place].clone()).collect();
            let result = match below {
                None => {
                    match planned.image.dockerfile {
                        Some(_) => explained.all_of_dockerfile(&planned.image.name, Reason::Unforeseen),
                        None => explained.all_of_spec(&planned.image.name, Reason::Unforeseen),
                    }
                    None
                }
                Some(below) => match &planned.image.dockerfile {
                    Some(dockerfile) => {
                        let names = needed.iter().map(|place| plan.images[*place].image.name.to_string());
                        let siblings = names.zip(below).collect();
                        let reference = reference(planned.image);
                        match self.dockerfile_ahead((planned.image, dockerfile), &plan.platform, &siblings, reference) {
                            Ok(ahead) => {
                                Some(self.explain_dockerfile(&planned.image.name, ahead, last, &mut explained)?)
                            }
                            Err(error) => {
                                let base = error.absent_base().map(str::to_owned).ok_or(error)?;
                                explained.all_of_dockerfile(&planned.image.name, Reason::Absent { base });
                                None
                            }
                        }
                    }
                    None => {
                        Some(self.explain_spec(plan, cut, place, (below.into_iter().next(), last), &mut explained)?)
                    }
                },
            };
            foreseen.insert(place, result);
        }
        Ok(explained.steps)
    }

    /// Explains the steps of an image that is built from a Dockerfile outside of a family. Nothing is changed.
    pub fn explain_recipe(&self, recipe: &Recipe<'_>) -> Result<Vec<ExplainedStep>, BuildError> {
        let mut explained = Explained::default();
        let last = Last::new(self.last_steps(&recipe.reference)?.unwrap_or_default());
        match self.recipe_ahead(recipe, &BTreeMap::new()) {
            Ok(ahead) => drop(self.explain_dockerfile(&recipe.name, ahead, last, &mut explained)?),
            Err(error) => {
                let base = error.absent_base().map(str::to_owned).ok_or(error)?;
                explained.all_of_dockerfile(&recipe.name, Reason::Absent { base });
            }
        }
        Ok(explained.steps)
    }

    fn explain_dockerfile(
        &self,
        name: &ImageName,
        RecipeAhead { stages, mut image }: RecipeAhead,
        mut last: Last,
        explained: &mut Explained,
    ) -> Result<Foreseen, BuildError> {
        for (stage, steps) in stages {
            for step in steps {
                self.explain_step(name, &step, kind_in_stage(step.kind, &stage), &mut last, explained)?;
            }
        }
        let config = image.state.config.as_ref().expect("every stage has a configuration");
        self.explain_step(name, &config_ahead(config, &image.state), CONFIG.to_owned(), &mut last, explained)?;
        image.state.triggers = Vec::new();
        Ok(image)
    }

    fn explain_spec(
        &self,
        plan: &Plan<'_>,
        cut: &Cut,
        place: usize,
        (parent, mut last): (Option<Foreseen>, Last),
        explained: &mut Explained,
    ) -> Result<Foreseen, BuildError> {
        let planned = &plan.images[place];
        let on_dockerfile = planned.parent.map(|parent| plan.images[parent].image).filter(|it| it.dockerfile.is_some());
        let (mut state, mut known) = match (parent, &planned.base) {
            (Some(parent), _) => (parent.state, parent.known),
            (None, Some(base)) => (self.on_base(base, &planned.image.from.span)?, Known::ALL),
            (None, None) => (self.nothing(&plan.platform), Known::ALL),
        };
        // A Dockerfile leaves its own as text.
        if let (Some(parent), Some(config)) = (on_dockerfile, &state.config) {
            state.triggers = base::triggers(parent.name.as_str(), &config.config.on_build, &planned.image.from.span)?;
        }
        let mut layers = state.layers.clone();
        for step in self.ahead(plan, cut, place, &mut state)? {
            let step = Ahead { key: step.key.filter(|_| known.key || step.kind == CONFIG), ..step };
            self.explain_step(&planned.image.name, &step, step.kind.to_owned(), &mut last, explained)?;
            if step.kind == CONFIG {
                continue;
            }
            match step.key.and_then(|key| self.kept(key)) {
                Some(own) => {
                    known.layers &= own.iter().all(|layer| self.layout.has_blob(layer.digest, layer.size));
                    layers.extend(own);
                }
                None => known.layers = false,
            }
        }
        state.layers = layers;
        Ok(Foreseen { state, known })
    }

    fn explain_step(
        &self,
        image: &ImageName,
        step: &Ahead,
        kind: String,
        last: &mut Last,
        explained: &mut Explained,
    ) -> Result<(), BuildError> {
        let number = explained.steps.len() + 1;
        let before = last.of(&kind);
        let cached = match step.kind {
            CONFIG => !self.options.no_cache && before.is_some() && before == step.key,
            _ => step.key.is_some_and(|key| self.is_kept(key)),
        };
        let reasons = if cached { Vec::new() } else { self.reasons(step, before, explained)? };
        last.pass(kind);
        if step.kind != CONFIG {
            explained.after.insert(step.after, number);
        }
        explained.steps.push(ExplainedStep {
            number,
            image: image.to_string(),
            kind: step.kind.to_owned(),
            described: step.described.clone(),
            key: step.key,
            cached,
            reasons,
        });
        Ok(())
    }

    fn reasons(&self, step: &Ahead, before: Option<Digest>, done: &Explained) -> Result<Vec<Reason>, BuildError> {
        if self.options.no_cache {
            return Ok(vec![Reason::NoCache]);
        }
        let Some(before) = before else { return Ok(vec![Reason::New]) };
        if step.key == Some(before) {
            return Ok(vec![Reason::Lost]);
        }
        let Some(inputs) = self.inputs_of(before)? else { return Ok(vec![Reason::New]) };
        let mut reasons = match step.facts.is_empty() {
            true => Vec::new(),
            false => differences(&inputs.facts, &step.facts),
        };
        if step.key.is_none() {
            reasons.insert(0, Reason::Unforeseen);
        } else if inputs.below != step.below && step.kind != CONFIG {
            let below = match done.after.get(&step.below) {
                Some(step) => Reason::Below { step: *step },
                None => Reason::Input {
                    input: "image below".to_owned(),
                    before: Some(inputs.below.to_string()),
                    now: Some(step.below.to_string()),
                },
            };
            reasons.insert(0, below);
        }
        Ok(reasons)
    }

    /// The steps of an image over `state`, which is that of the image afterwards, but for its layers and its date.
    fn ahead(&self, plan: &Plan<'_>, cut: &Cut, place: usize, state: &mut State) -> Result<Vec<Ahead>, BuildError> {
        let planned = &plan.images[place];
        let image = planned.image;
        let mut steps = Vec::new();
        for command in std::mem::take(&mut state.triggers) {
            steps.push(self.command_ahead(&command, state)?);
        }
        for (number, step) in image.steps.iter().enumerate() {
            match step {
                Step::Packages(_) => self.packages_ahead(planned, number, (plan, cut, place), state, &mut steps),
                Step::Files(entries) => {
                    let below = state.key;
                    let files = Files::read(entries, &self.inputs())?;
                    let described = files.describe().trim_start_matches("drystone: ").to_owned();
                    state.key = self.files_key(&files, state);
                    steps.push(ahead("files", described, self.files_facts(&files), below, state));
                }
                Step::Run(command) => steps.push(self.command_ahead(command, state)?),
                Step::Groups(groups) => steps.push(self.accounts_ahead("groups", &Wanted::Groups(groups), state)),
                Step::Users(users) => steps.push(self.accounts_ahead("users", &Wanted::Users(users), state)),
            }
        }
        let config = configuration(image, state.config.as_ref(), &state.platform, &[], state.epoch);
        steps.push(config_ahead(&config, state));
        state.config = Some(config);
        state.triggers = image.on_build.clone();
        Ok(steps)
    }

    fn packages_ahead(
        &self,
        planned: &PlannedImage<'_>,
        number: usize,
        (plan, cut, place): (&Plan<'_>, &Cut, usize),
        state: &mut State,
        steps: &mut Vec<Ahead>,
    ) {
        let (packages, compiling) = (planned.packages[&number].as_slice(), &planned.compiling[&number]);
        if packages.is_empty() {
            return;
        }
        let groups = layering::of_step(cut, plan, place, number);
        let below = state.key;
        state.key = self.packages_key(packages, groups, compiling, state);
        let facts = self.packages_facts(packages, groups, compiling);
        let described = super::packages::counted(packages.len());
        steps.push(ahead("packages", described, facts, below, state));
        let below = state.key;
        state.key = self.configure_key(state);
        steps.push(ahead("configure", "maintainer scripts".to_owned(), self.configure_facts(), below, state));
    }

    fn command_ahead(&self, command: &Command, state: &mut State) -> Result<Ahead, BuildError> {
        let mounts = Mounts::read(command, &self.inputs())?;
        let facts = self.command_facts(command, &mounts, state);
        let below = state.key;
        state.key = self.command_key(command, &mounts, state);
        let described = commands::brief(&commands::describe(command));
        Ok(ahead("run", described, facts, below, state))
    }

    fn accounts_ahead(&self, kind: &'static str, wanted: &Wanted<'_>, state: &mut State) -> Ahead {
        let below = state.key;
        state.key = self.accounts_key(wanted, state);
        ahead(kind, wanted.describe(), self.accounts_facts(wanted), below, state)
    }
}

/// A step that was done over `below`, and after which there is `state`.
fn ahead(kind: &'static str, described: String, facts: Facts, below: Digest, state: &State) -> Ahead {
    Ahead { kind, described, key: Some(state.key), facts, below, after: state.key }
}

fn config_ahead(config: &ImageConfig, state: &State) -> Ahead {
    let (key, facts) = config_facts(config);
    let (kind, described) = (CONFIG, "configuration".to_owned());
    Ahead { kind, described, key: Some(key), facts, below: state.key, after: state.key }
}

/// The places of an image and of all that it needs, the lowest first.
fn all_below(plan: &Plan<'_>, image: usize) -> BTreeSet<usize> {
    let (mut found, mut waiting) = (BTreeSet::new(), vec![image]);
    while let Some(place) = waiting.pop() {
        if found.insert(place) {
            waiting.extend(plan.images[place].parent.iter().chain(&plan.images[place].needs));
        }
    }
    // A plan has an image after all that it needs.
    found
}

/// The steps that were explained so far.
#[derive(Default)]
struct Explained {
    steps: Vec<ExplainedStep>,
    /// Their numbers, by the key of what there is after each.
    after: BTreeMap<Digest, usize>,
}

impl Explained {
    /// Says one thing of all steps of an image with a Dockerfile.
    fn all_of_dockerfile(&mut self, image: &ImageName, reason: Reason) {
        self.all_of(image, ("dockerfile", "its Dockerfile"), reason);
    }

    /// Says one thing of all steps of an image with a spec.
    fn all_of_spec(&mut self, image: &ImageName, reason: Reason) {
        self.all_of(image, ("spec", "all of its steps"), reason);
    }

    fn all_of(&mut self, image: &ImageName, (kind, described): (&str, &str), reason: Reason) {
        self.steps.push(ExplainedStep {
            number: self.steps.len() + 1,
            image: image.to_string(),
            kind: kind.to_owned(),
            described: described.to_owned(),
            key: None,
            cached: false,
            reasons: vec![reason],
        });
    }
}

/// The steps of an image as it was built last, by kind: the second command now is compared with the second one then.
struct Last {
    steps: BTreeMap<String, Vec<Digest>>,
    passed: BTreeMap<String, usize>,
}

impl Last {
    fn new(all: Vec<LastStep>) -> Self {
        let mut steps: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
        for LastStep { kind, key } in all {
            steps.entry(kind).or_default().push(key);
        }
        Self { steps, passed: BTreeMap::new() }
    }

    /// The key of the step of this kind that is next.
    fn of(&self, kind: &str) -> Option<Digest> {
        self.steps.get(kind)?.get(self.passed.get(kind).copied().unwrap_or_default()).copied()
    }

    fn pass(&mut self, kind: String) {
        *self.passed.entry(kind).or_default() += 1;
    }
}

/// What differs between two lists of inputs, by name.
fn differences(before: &Facts, now: &Facts) -> Vec<Reason> {
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let reasons: Vec<Reason> = differing
        .map(|name| Reason::Input {
            input: name.clone(),
            before: before.get(name).cloned(),
            now: now.get(name).cloned(),
        })
        .collect();
    // Other packages are in other layers and another order: that is no reason of its own.
    let is_package = |reason: &Reason| matches!(reason, Reason::Input { input, .. } if input.starts_with("package "));
    let follows = |reason: &Reason| matches!(reason, Reason::Input { input, .. } if input.ends_with("of the packages"));
    match reasons.iter().any(is_package) {
        true => reasons.into_iter().filter(|reason| !follows(reason)).collect(),
        false => reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(entries: &[(&str, &str)]) -> Facts {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_new_gone_or_another_one_differs() {
        let before = facts(&[("package a", "1"), ("package b", "1"), ("encoder", "x"), ("order of the packages", "1")]);
        let now = facts(&[("package a", "2"), ("package c", "1"), ("encoder", "x"), ("order of the packages", "2")]);
        let input = |input: &str, before: Option<&str>, now: Option<&str>| Reason::Input {
            input: input.to_owned(),
            before: before.map(str::to_owned),
            now: now.map(str::to_owned),
        };
        let expected = [
            input("package a", Some("1"), Some("2")),
            input("package b", Some("1"), None),
            input("package c", None, Some("1")),
        ];
        assert_eq!(differences(&before, &now), expected);
        let recut = facts(&[("order of the packages", "3")]);
        assert_eq!(differences(&facts(&[("order of the packages", "1")]), &recut).len(), 1);
    }
}
