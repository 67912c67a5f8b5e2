//! What a build would have to fetch, found out before anything is built, for builds that may not fetch anything.
//!
//! A step whose result is kept needs nothing, so the keys of all steps are worked out as the build itself does it.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use spec::{FileContent, Step};
use store::Area;
use url::Url;

use super::{Builder, State};
use crate::cut::{self, Cut};
use crate::error::{BuildError, MissingInput};
use crate::fetch::shown;
use crate::image::configuration;
use crate::layering;
use crate::package::segment::Segment;
use crate::plan::{LockedPackage, Plan, PlannedImage};
use crate::steps::accounts::Wanted;
use crate::steps::files::Files;
use crate::steps::mounts::Mounts;

/// What is missing, by its name.
type Missing = BTreeMap<String, MissingInput>;

impl Builder<'_> {
    /// Fails if the cache lacks something that the build needs, and names all of it.
    pub(super) fn refuse_what_is_missing(&self, plan: &Plan<'_>, cut: &Cut) -> Result<(), BuildError> {
        let mut missing = Missing::new();
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
        let missing: Vec<MissingInput> = missing.into_values().collect();
        if missing.is_empty() { Ok(()) } else { Err(BuildError::NotCached { missing }) }
    }

    /// Notes what an image lacks. Returns what is known of the image, whose keys are right if nothing is missing.
    fn look_for<'c>(
        &self,
        planned: &PlannedImage<'_>,
        groups: &dyn Fn(usize) -> &'c [cut::Group],
        mut state: State,
        missing: &mut Missing,
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
                    let is_local = |url: &Url| self.fetcher.local(url).is_some_and(|path| path.is_file());
                    let is_here = |package: &&LockedPackage| {
                        self.cache.file(Area::Debs, package.sha256).is_some() || package.urls.iter().any(is_local)
                    };
                    let needed = packages.iter().filter(|package| !is_here(package));
                    for package in
                        needed.filter(|package| !Segment::is_kept(self.cache, package, self.options.compression))
                    {
                        let input = MissingInput { what: package.label(), size: Some(package.size) };
                        missing.insert(package.label(), input);
                    }
                }
                Step::Files(entries) => {
                    if self.lacks_files(entries, missing) {
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

    /// Notes the files by address that the cache lacks.
    fn lacks_files(&self, entries: &[spec::FileEntry], missing: &mut Missing) -> bool {
        let mut lacking = BTreeSet::new();
        for entry in entries {
            let FileContent::Url { url, sha256, .. } = &entry.content else { continue };
            let Ok(address) = Url::parse(url) else { continue };
            if self.fetcher.may_fetch(&address) {
                continue;
            }
            let name = shown(&address).to_string();
            let by_spec = sha256.as_ref().and_then(|sha256| Digest::from_hex(sha256).ok());
            let digest = by_spec.or_else(|| self.options.files.get(&name).copied());
            if digest.is_none_or(|digest| self.cache.file(Area::Debs, digest).is_none()) {
                lacking.insert(name);
            }
        }
        let found = !lacking.is_empty();
        missing.extend(lacking.into_iter().map(|name| (name.clone(), MissingInput { what: name, size: None })));
        found
    }
}
