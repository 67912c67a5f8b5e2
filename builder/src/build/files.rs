//! Steps that put files in.

use std::io::Write;

use content::Digest;
use layer::view::View;
use spec::ImageName;

use super::step::{StepName, StepRecord};
use super::{Builder, State, StepReport};
use crate::error::BuildError;
use crate::steps::files::{Files, Inputs};

/// Counts versions of what this step does; part of its key.
pub(super) const VERSION: &str = "files 1";

impl Builder<'_> {
    pub(super) fn files(
        &self,
        image: &ImageName,
        files: &Files,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let key = self.files_key(files, state);
        let facts = || self.files_facts(files);
        let name = StepName { kind: "files", described: "files", key, facts: &facts };
        self.step(image, &name, state, reports, |state| {
            let below = self.trees(&state.layers)?;
            let write = |writer: &mut dyn Write| files.write(&View::new(&below), state.epoch, writer);
            let layer = self.layer_of_entries(key, image, &files.describe(), write)?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs { family: &self.options.family, fetcher: self.fetcher, cache: self.cache, pinned: &self.options.files }
    }

    pub(super) fn files_key(&self, files: &Files, state: &State) -> Digest {
        self.key(VERSION, state).field("files", files.key().as_bytes()).finish()
    }
}
