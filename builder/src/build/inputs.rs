//! What the results of steps depend on, in words, and where that is kept: beside the records of the steps, so that
//! `explain` can say later what has changed.
//!
//! A step's key is a digest and says nothing. So the cache keeps, by the key, a list of everything that went into it,
//! each with a name and a value; and by the name of an image, the keys of its steps when it was built last. Values that
//! may be secret are kept as digests. Losing any of it costs an explanation, and no result.

use std::collections::BTreeMap;

use content::{Digest, FramedHasher};
use oci::{ImageConfig, Reference};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spec::Command;
use store::Area;

use super::command::surroundings;
use super::step::StepName;
use super::{Builder, State, StepReport};
use crate::cut;
use crate::error::BuildError;
use crate::plan::LockedPackage;
use crate::python::Compiling;
use crate::steps::accounts::Wanted;
use crate::steps::configure;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

/// Names of inputs, and what each was.
pub(super) type Facts = BTreeMap<String, String>;

/// What is kept of a step's inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Inputs {
    /// The key of the step before.
    pub(super) below: Digest,
    pub(super) facts: Facts,
}

/// A step of an image as it was built last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastStep {
    pub(super) kind: String,
    pub(super) key: Digest,
}

impl LastStep {
    /// Steps that were done, to be compared with those of the next build; `kind` says how each is found again.
    pub(super) fn of(reports: &[StepReport], kind: impl Fn(&str) -> String) -> Vec<Self> {
        let step = |step: &StepReport| Some(Self { kind: kind(step.kind), key: step.id.parse().ok()? });
        reports.iter().filter_map(step).collect()
    }
}

impl Builder<'_> {
    /// Keeps the inputs of a step over `below`, unless they are kept.
    pub(super) fn note_inputs(&self, name: &StepName<'_>, below: Digest) -> Result<(), BuildError> {
        if !self.has_inputs(name.key) {
            self.cache.put_json(Area::Steps, inputs_key(name.key), &Inputs { below, facts: (name.facts)() })?;
        }
        Ok(())
    }

    /// Whether the inputs of a step are kept.
    pub(super) fn has_inputs(&self, key: Digest) -> bool {
        self.cache.file(Area::Steps, inputs_key(key)).is_some()
    }

    /// Keeps which steps an image has, unless they are those that are kept.
    pub(super) fn note_steps(&self, reference: &Reference, steps: &[LastStep]) -> Result<(), BuildError> {
        if self.last_steps(reference)?.as_deref() != Some(steps) {
            self.cache.put_json(Area::Steps, steps_key(reference), steps)?;
        }
        Ok(())
    }

    /// The steps of an image as it was built last under this name.
    pub(super) fn last_steps(&self, reference: &Reference) -> Result<Option<Vec<LastStep>>, BuildError> {
        Ok(self.cache.get_json(Area::Steps, steps_key(reference))?)
    }

    /// The inputs of a step that was done before.
    pub(super) fn inputs_of(&self, key: Digest) -> Result<Option<Inputs>, BuildError> {
        Ok(self.cache.get_json(Area::Steps, inputs_key(key))?)
    }

    pub(super) fn facts(&self, version: &str) -> Facts {
        let mut facts = Facts::new();
        facts.insert("version of the step in drystone".to_owned(), version.to_owned());
        facts.insert("encoder".to_owned(), self.options.compression.encoder().to_owned());
        if let Some(epoch) = self.options.epoch {
            facts.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
        }
        facts
    }

    pub(super) fn packages_facts(
        &self,
        packages: &[LockedPackage],
        groups: &[cut::Group],
        compiling: &Compiling,
    ) -> Facts {
        let mut facts = self.facts(super::packages::VERSION);
        for package in packages {
            facts.insert(format!("package {}", package.name), format!("{} {}", package.version, package.sha256));
        }
        let labels =
            |group: &cut::Group| group.iter().map(|place| packages[*place].label()).collect::<Vec<_>>().join(" ");
        let layers = FramedHasher::new("layers").list("groups", groups.iter().map(labels).collect::<Vec<_>>());
        facts.insert("layers of the packages".to_owned(), layers.finish().to_string());
        let names = packages.iter().map(LockedPackage::label);
        let order = FramedHasher::new("order").list("packages", names.collect::<Vec<_>>());
        facts.insert("order of the packages".to_owned(), order.finish().to_string());
        let interpreter = match compiling {
            Compiling::Once(interpreter) => format!("python{} {}", interpreter.version, interpreter.key()),
            Compiling::ByScripts | Compiling::Never => compiling.key(),
        };
        facts.insert("bytecode interpreter".to_owned(), interpreter);
        facts
    }

    pub(super) fn configure_facts(&self) -> Facts {
        self.facts(configure::VERSION)
    }

    pub(super) fn accounts_facts(&self, wanted: &Wanted<'_>) -> Facts {
        let mut facts = self.facts(super::accounts::VERSION);
        facts.extend(wanted.facts());
        facts
    }

    pub(super) fn files_facts(&self, files: &Files) -> Facts {
        let mut facts = self.facts(super::files::VERSION);
        facts.extend(files.facts());
        facts
    }

    pub(super) fn command_facts(&self, command: &Command, mounts: &Mounts<'_>, state: &State) -> Facts {
        let mut facts = self.facts(super::command::VERSION);
        let (env, workdir) = surroundings(state);
        facts.insert("command line".to_owned(), crate::steps::commands::describe(command));
        facts.insert("user".to_owned(), command.user.as_ref().map(ToString::to_string).unwrap_or_default());
        let own = command.workdir.as_ref().map(|path| path.as_str().to_owned());
        facts.insert("directory".to_owned(), own.unwrap_or(workdir));
        for variable in &env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            facts.insert(format!("variable {name} of the image"), hidden(value));
        }
        for entry in &command.env {
            facts.insert(format!("variable {} of the command", entry.key), hidden(&entry.value.value));
        }
        let network = if matches!(command.network, spec::Network::Host(_)) { "host" } else { "none" };
        facts.insert("network".to_owned(), network.to_owned());
        facts.extend(mounts.facts());
        facts
    }
}

/// The configuration of an image, field by field; and a key for it.
pub(super) fn config_facts(config: &ImageConfig) -> (Digest, Facts) {
    let mut facts = Facts::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(&config.config) {
        for (name, value) in fields {
            match value {
                Value::Object(entries) => {
                    for (key, value) in entries {
                        facts.insert(format!("{name} {key}"), text(&value));
                    }
                }
                value => {
                    facts.insert(name, text(&value));
                }
            }
        }
    }
    let fields = facts.iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>();
    (FramedHasher::new("configuration").list("fields", fields).finish(), facts)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value that may be a secret.
pub(super) fn hidden(value: &str) -> String {
    Digest::of(value.as_bytes()).to_string()
}

fn inputs_key(step: Digest) -> Digest {
    FramedHasher::new("inputs 1").field("step", step.as_bytes()).finish()
}

fn steps_key(reference: &Reference) -> Digest {
    FramedHasher::new("steps of an image 1").field("name", reference.to_string()).finish()
}
