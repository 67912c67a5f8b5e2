//! What a build would have to fetch, found out before anything is built, for builds that may not fetch anything.
//!
//! A step whose result is kept needs nothing, so the keys of all steps are worked out as the build itself does it.

use spec::Step;

use super::{Builder, State};
use crate::cut::{self, Cut};
use crate::dockerfile::bases;
use crate::error::BuildError;
use crate::image::configuration;
use crate::layering;
use crate::missing::Missing;
use crate::package::segment::Segment;
use crate::plan::{Plan, PlannedImage};
use crate::steps::accounts::Wanted;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

impl Builder<'_> {
    /// Fails if the cache lacks something that the build needs, and names all of it.
    pub(super) fn refuse_what_is_missing(&self, plan: &Plan<'_>, cut: &Cut) -> Result<(), BuildError> {
        let mut missing = Missing::new(self.cache, self.fetcher);
        let mut states: Vec<Option<State>> = Vec::with_capacity(plan.images.len());
        for (place, planned) in plan.images.iter().enumerate() {
            let start = match (planned.parent, &planned.base) {
                (Some(parent), _) => states[parent].clone(),
                (None, Some(base)) => Some(self.on_base(base, &planned.image.from.span)?),
                (None, None) => Some(self.nothing(&plan.platform)),
            };
            let groups = |step| layering::of_step(cut, plan, place, step);
            states.push(match start.filter(|_| planned.wanted) {
                Some(start) => Some(self.look_for(planned, &groups, start, &mut missing)?),
                None => None,
            });
        }
        for needed in bases::needed(plan)? {
            missing.base_unless_here(&needed.name, &needed.platform, self.bases);
        }
        missing.refuse()
    }

    /// Notes what an image lacks. Returns what is known of the image, whose keys are right if nothing is missing.
    fn look_for<'c>(
        &self,
        planned: &PlannedImage<'_>,
        groups: &dyn Fn(usize) -> &'c [cut::Group],
        mut state: State,
        missing: &mut Missing<'_>,
    ) -> Result<State, BuildError> {
        let image = planned.image;
        for command in std::mem::take(&mut state.triggers) {
            state.key = self.command_key(&command, &Mounts::read(&command, &self.inputs())?, &state);
        }
        for (place, step) in image.steps.iter().enumerate() {
            match step {
                Step::Packages(_) => {
                    let packages = &planned.packages[&place];
                    if packages.is_empty() {
                        continue;
                    }
                    state.key = self.packages_key(packages, groups(place), &planned.compiling[&place], &state);
                    let laid = self.is_kept(state.key);
                    state.key = self.configure_key(&state);
                    if laid && self.is_kept(state.key) {
                        continue;
                    }
                    for package in packages {
                        missing.package(package, || Segment::is_kept(self.cache, package, self.options.compression));
                    }
                }
                Step::Files(entries) => {
                    if missing.files(entries, &self.options.files) {
                        continue;
                    }
                    state.key = self.files_key(&Files::read(entries, &self.inputs())?, &state);
                }
                Step::Run(command) => {
                    state.key = self.command_key(command, &Mounts::read(command, &self.inputs())?, &state);
                }
                Step::Groups(groups) => state.key = self.accounts_key(&Wanted::Groups(groups), &state),
                Step::Users(users) => state.key = self.accounts_key(&Wanted::Users(users), &state),
            }
        }
        state.config = Some(configuration(image, state.config.as_ref(), &state.platform, &[], state.epoch));
        state.triggers = image.on_build.clone();
        Ok(state)
    }
}
