//! Steps that make users and groups.

use content::Digest;
use layer::write::EntryWriter;
use spec::ImageName;

use super::step::{StepName, StepRecord};
use super::{Builder, State, StepReport};
use crate::error::BuildError;
use crate::steps::accounts::{self, Wanted};

/// Counts versions of what this step does; part of its key.
pub(super) const VERSION: &str = "accounts 1";

impl Builder<'_> {
    pub(super) fn accounts(
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
        let facts = || self.accounts_facts(&wanted);
        let name = StepName { kind, described: &described, key, facts: &facts };
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

    pub(super) fn accounts_key(&self, wanted: &Wanted<'_>, state: &State) -> Digest {
        self.key(VERSION, state).field("accounts", wanted.key().as_bytes()).finish()
    }
}
