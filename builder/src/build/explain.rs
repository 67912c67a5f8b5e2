//! Why steps of an image would run again: their keys are worked out as a build does it, and where the result of one is
//! not kept, its inputs are compared with those of the last build under the same name.

use std::collections::BTreeMap;

use content::Digest;
use oci::Reference;
use serde::Serialize;
use spec::{Command, Step};

use super::inputs::{Facts, LastStep, config_facts};
use super::{Builder, State};
use crate::cut::Cut;
use crate::error::BuildError;
use crate::image::configuration;
use crate::layering;
use crate::plan::{Plan, PlannedImage};
use crate::steps::accounts::Wanted;
use crate::steps::commands;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

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
    /// The key under which its result is kept.
    pub key: Digest,
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
    /// What it does is found out when it is built, as with a Dockerfile.
    Unforeseen,
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

/// A step as it would be done.
struct Ahead {
    kind: &'static str,
    described: String,
    key: Digest,
    facts: Facts,
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
        let mut chain: Vec<usize> = std::iter::successors(Some(image), |place| plan.images[*place].parent).collect();
        chain.reverse();
        let root = &plan.images[chain[0]];
        let mut state = match &root.base {
            Some(base) => self.on_base(base, &root.image.from.span)?,
            None => self.nothing(&plan.platform),
        };
        let mut explained: Vec<ExplainedStep> = Vec::new();
        for place in chain {
            let planned = &plan.images[place];
            if planned.image.dockerfile.is_some() {
                // Nor can what follows be known.
                explained.push(unforeseen(explained.len() + 1, planned));
                break;
            }
            let mut last = Last::new(self.last_steps(&reference(planned.image))?.unwrap_or_default());
            let before = state.key;
            let steps = self.ahead(plan, cut, place, &mut state)?;
            let mut below = before;
            for step in steps {
                let number = explained.len() + 1;
                let cached = match step.kind {
                    "config" => !self.options.no_cache && last.is(&step),
                    _ => self.is_kept(step.key),
                };
                let reasons = if cached { Vec::new() } else { self.reasons(&step, below, number, &mut last)? };
                last.pass(step.kind);
                if step.kind != "config" {
                    below = step.key;
                }
                let Ahead { kind, described, key, .. } = step;
                let (image, kind) = (planned.image.name.to_string(), kind.to_owned());
                explained.push(ExplainedStep { number, image, kind, described, key, cached, reasons });
            }
        }
        Ok(explained)
    }

    fn reasons(&self, step: &Ahead, below: Digest, number: usize, last: &mut Last) -> Result<Vec<Reason>, BuildError> {
        if self.options.no_cache {
            return Ok(vec![Reason::NoCache]);
        }
        let Some(before) = last.of(step.kind) else { return Ok(vec![Reason::New]) };
        if before == step.key {
            return Ok(vec![Reason::Lost]);
        }
        let Some(inputs) = self.inputs_of(before)? else { return Ok(vec![Reason::New]) };
        let mut reasons = differences(&inputs.facts, &step.facts);
        if inputs.below != below && step.kind != "config" {
            reasons.insert(0, Reason::Below { step: number - 1 });
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
                    let files = Files::read(entries, &self.inputs())?;
                    let described = files.describe().trim_start_matches("drystone: ").to_owned();
                    state.key = self.files_key(&files, state);
                    steps.push(Ahead { kind: "files", described, key: state.key, facts: self.files_facts(&files) });
                }
                Step::Run(command) => steps.push(self.command_ahead(command, state)?),
                Step::Groups(groups) => steps.push(self.accounts_ahead("groups", &Wanted::Groups(groups), state)),
                Step::Users(users) => steps.push(self.accounts_ahead("users", &Wanted::Users(users), state)),
            }
        }
        let config = configuration(image, state.config.as_ref(), &state.platform, &[], state.epoch);
        let (key, facts) = config_facts(&config);
        steps.push(Ahead { kind: "config", described: "configuration".to_owned(), key, facts });
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
        state.key = self.packages_key(packages, groups, compiling, state);
        let facts = self.packages_facts(packages, groups, compiling);
        let described = super::packages::counted(packages.len());
        steps.push(Ahead { kind: "packages", described, key: state.key, facts });
        state.key = self.configure_key(state);
        let described = "maintainer scripts".to_owned();
        steps.push(Ahead { kind: "configure", described, key: state.key, facts: self.configure_facts() });
    }

    fn command_ahead(&self, command: &Command, state: &mut State) -> Result<Ahead, BuildError> {
        let mounts = Mounts::read(command, &self.inputs())?;
        let facts = self.command_facts(command, &mounts, state);
        state.key = self.command_key(command, &mounts, state);
        let described = commands::brief(&commands::describe(command));
        Ok(Ahead { kind: "run", described, key: state.key, facts })
    }

    fn accounts_ahead(&self, kind: &'static str, wanted: &Wanted<'_>, state: &mut State) -> Ahead {
        state.key = self.accounts_key(wanted, state);
        Ahead { kind, described: wanted.describe(), key: state.key, facts: self.accounts_facts(wanted) }
    }
}

/// All steps of an image with a Dockerfile.
fn unforeseen(number: usize, planned: &PlannedImage<'_>) -> ExplainedStep {
    ExplainedStep {
        number,
        image: planned.image.name.to_string(),
        kind: "dockerfile".to_owned(),
        described: "its Dockerfile".to_owned(),
        key: Digest::of(b""),
        cached: false,
        reasons: vec![Reason::Unforeseen],
    }
}

/// The steps of an image as it was built last, by kind: the second command now is compared with the second one then.
struct Last {
    steps: BTreeMap<String, Vec<Digest>>,
    passed: BTreeMap<&'static str, usize>,
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

    fn is(&self, step: &Ahead) -> bool {
        self.of(step.kind) == Some(step.key)
    }

    fn pass(&mut self, kind: &'static str) {
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
