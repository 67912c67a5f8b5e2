//! Steps that run a command.

use content::Digest;
use layer::view::View;
use spec::{Command, Diagnostic, ImageName};

use super::step::{StepName, StepRecord};
use super::{Builder, State, StepReport};
use crate::error::BuildError;
use crate::steps::commands::{self, Leaving, Runner};
use crate::steps::mounts::{Mounts, Place};

/// Counts versions of what this step does; part of its key.
pub(super) const VERSION: &str = "run 1";

impl Builder<'_> {
    pub(super) fn command(
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
        let facts = self.command_facts(command, &mounts, state);
        let name = StepName { kind: "run", described: &brief, key, facts: &|| facts.clone() };
        self.step(image, &name, state, reports, |state| {
            self.must_run(&state.platform, || command_cannot_run(image, command))?;
            let below = self.trees(&state.layers)?;
            let view = View::new(&below);
            let mut invocation = commands::invocation(image, &brief, command, (&env, &workdir), &view)?;
            let user = invocation.user.clone();
            let mut ready = mounts.prepare(&self.place(&user, state.epoch), &self.pause)?;
            invocation.mounts = std::mem::take(&mut ready.mounts);
            let layer = self.changed(image, &described, key, (&below, state.epoch), Leaving::Scrubbed, |upper| {
                self.runner().run(invocation, &below, upper)
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    pub(super) fn runner(&self) -> Runner<'_> {
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
    pub(super) fn place<'p>(&'p self, user: &'p sandbox::User, epoch: i64) -> Place<'p> {
        let (owners, owners_name) = (self.sandbox.owners(), self.sandbox.kind_of_trees());
        Place { cache: self.cache, secrets: self.secrets, owners, owners_name, user, epoch }
    }

    pub(super) fn command_key(&self, command: &Command, mounts: &Mounts<'_>, state: &State) -> Digest {
        let (env, workdir) = surroundings(state);
        self.key(VERSION, state)
            .field("command", commands::key(command, mounts).as_bytes())
            .list("env", &env)
            .field("workdir", &workdir)
            .finish()
    }
}

/// The environment and directory that a command finds.
pub(super) fn surroundings(state: &State) -> (Vec<String>, String) {
    match &state.config {
        Some(config) => (config.config.env.clone(), config.config.working_dir.clone()),
        None => (vec![format!("PATH={}", crate::image::DEFAULT_PATH)], String::new()),
    }
}

pub(super) fn command_cannot_run(image: &ImageName, command: &Command) -> Diagnostic {
    let brief = commands::brief(&commands::describe(command));
    Diagnostic::new(command.line.span.clone(), format!("{image}: `{brief}` cannot be run"))
}
