//! Steps that lay packages: segments, the layers of groups, and the scripts that follow.

use std::sync::PoisonError;

use content::Digest;
use layer::record::TreeDir;
use layer::unpack::Unpacker;
use layer::view::View;
use oci::Platform;
use spec::{Diagnostic, ImageName, Span, Step};
use store::Area;

use super::lend::{group_record_key, parts_key};
use super::step::{StepName, StepRecord, StoredLayer};
use super::{Builder, State, StepReport};
use crate::cut;
use crate::error::BuildError;
use crate::package::segment::Segment;
use crate::parallel::map;
use crate::plan::LockedPackage;
use crate::python::Compiling;
use crate::steps::bytecode::Compiler;
use crate::steps::commands::{Leaving, Runner};
use crate::steps::configure::{self, Waiting};
use crate::steps::packages::{Ground, Group, Workshop, right_directories};

/// Counts versions of what this step does; part of its key.
pub(super) const VERSION: &str = "packages 5";

/// A step that lays packages, as it is done.
pub(super) struct PackagesStep<'a> {
    pub(super) image: &'a ImageName,
    /// The machine that the packages are for.
    pub(super) platform: &'a Platform,
    /// In the order in which they are unpacked.
    pub(super) packages: &'a [LockedPackage],
    /// The packages of each layer.
    pub(super) groups: &'a [cut::Group],
    /// Who compiles their modules.
    pub(super) compiling: &'a Compiling,
    /// Where the spec asks for them.
    pub(super) span: &'a Span,
    pub(super) workshop: Workshop<'a>,
    pub(super) runner: Runner<'a>,
    /// Called when the packages have to be laid.
    pub(super) begun: &'a (dyn Fn() + Sync),
}

/// Where the layer of a group goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// To the cache, for those who may need it.
    InCache,
    /// To the cache and to the layout.
    InLayout,
}

impl PackagesStep<'_> {
    fn cannot_run(&self) -> Diagnostic {
        scripts_cannot_run(self.image, self.packages, self.span)
    }
}

impl Builder<'_> {
    /// What compiles the modules of a step's packages, if that is done apart from the image.
    pub(super) fn compiler<'b>(&'b self, step: &'b PackagesStep<'b>) -> Option<Compiler<'b>> {
        let Compiling::Once(interpreter) = step.compiling else { return None };
        let (workshop, image, owners) = (&step.workshop, step.image, self.sandbox.owners());
        Some(Compiler {
            workshop,
            runner: Runner { look_around: None, ..step.runner },
            owners,
            trees: self.tree_key(),
            image,
            interpreter,
        })
    }

    /// The segments of a step's packages, with their bytecode.
    pub(super) fn segments(&self, step: &PackagesStep<'_>, below: &[TreeDir]) -> Result<Vec<Segment>, BuildError> {
        let mut segments = step.workshop.segments(step.packages)?;
        if let Some(compiler) = self.compiler(step) {
            self.must_run(step.platform, || step.cannot_run())?;
            compiler.compile(step.packages, &mut segments, &View::new(below))?;
        }
        Ok(segments)
    }

    /// Removes what the disk damaged of the packages' segments and bytecode. Returns whether there was any.
    pub(super) fn discard_damaged(&self, step: &PackagesStep<'_>, below: &[TreeDir]) -> Result<bool, BuildError> {
        let PackagesStep { packages, workshop, .. } = step;
        let damaged = workshop.discard_damaged(packages)?;
        let Some(compiler) = self.compiler(step) else { return Ok(damaged) };
        Ok(compiler.discard_damaged(packages, &workshop.segments(packages)?, &View::new(below))? || damaged)
    }

    pub(super) fn packages(
        &self,
        step: &PackagesStep<'_>,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let PackagesStep { image, packages, .. } = step;
        if packages.is_empty() {
            return Ok(());
        }
        let key = self.packages_key(packages, step.groups, step.compiling, state);
        let described = counted(packages.len());
        let facts = || self.packages_facts(packages, step.groups, step.compiling);
        let name = StepName { kind: "packages", described: &described, key, facts: &facts };
        let before = state.layers.len();
        self.step(image, &name, state, reports, |state| {
            (step.begun)();
            let below = self.trees(&state.layers)?;
            match self.lay(step, &below, state) {
                // What the disk damaged can be made again.
                Err(BuildError::Io(_)) if self.discard_damaged(step, &below)? => self.lay(step, &below, state),
                other => other,
            }
        })?;
        self.configure(step, before, state, reports)
    }

    /// Lays the packages of a step, each group as one layer.
    pub(super) fn lay(
        &self,
        step: &PackagesStep<'_>,
        below: &[TreeDir],
        state: &State,
    ) -> Result<StepRecord, BuildError> {
        let segments = self.segments(step, below)?;
        let newest = segments.iter().map(|segment| segment.record.date).max().unwrap_or(0);
        let epoch = self.options.epoch.unwrap_or_else(|| state.epoch.max(newest));
        let layers = self.groups(step, &segments, &Ground::survey(&segments, below)?, Keep::InLayout)?;
        Ok(StepRecord { layers, epoch })
    }

    /// Lays the groups of a step before what they are laid on is there. Where that has nothing to say about it, which is
    /// nearly everywhere, these are the layers that the step will find.
    pub(super) fn lay_ahead(&self, step: &PackagesStep<'_>) -> Result<(), BuildError> {
        let segments = self.segments(step, &[])?;
        // The layout gets what an image has, and it is not known yet whether one will.
        self.groups(step, &segments, &Ground::presumed(&segments)?, Keep::InCache).map(drop)
    }

    fn groups(
        &self,
        step: &PackagesStep<'_>,
        segments: &[Segment],
        ground: &Ground,
        keep: Keep,
    ) -> Result<Vec<StoredLayer>, BuildError> {
        let groups: Vec<(usize, &cut::Group)> = step.groups.iter().enumerate().collect();
        map(&groups, self.options.jobs, step.workshop.interrupt, |(place, members)| {
            let group = Group::new(members.iter().map(|member| &segments[*member]).collect(), ground, *place == 0);
            let labels = members.iter().map(|member| step.packages[*member].label()).collect();
            let _place = self.places.take();
            self.group(step.image, &group, labels, keep)
        })
    }

    /// The layer of a group, which may have been made for another image.
    pub(super) fn group(
        &self,
        image: &ImageName,
        group: &Group<'_>,
        labels: Vec<String>,
        keep: Keep,
    ) -> Result<StoredLayer, BuildError> {
        let key = group.key();
        let made = || self.groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record_key = group_record_key(key);
        let _laying = self.cache.lock(Area::Layers, key, &mut || {})?;
        let known = made().get(&key).cloned();
        let found = match known {
            None if !self.options.no_cache => {
                self.borrow_record(record_key);
                self.cache.get_json(Area::Steps, record_key)?
            }
            found => found,
        };
        let is_there = |found: &StoredLayer| match keep {
            Keep::InCache => Ok(self.cache.file(Area::Layers, key).is_some()),
            Keep::InLayout => self.is_stored(found),
        };
        if let Some(found) = found
            && is_there(&found)?
        {
            made().insert(key, found.clone());
            return Ok(found);
        }
        let made_by = format!("drystone: {}", counted(labels.len()));
        let directories = group.directories()?;
        let stands_alone = group.stands_alone(&directories)?;
        // Whoever lays packages runs their scripts over them, so the tree is made in the same pass.
        let new = stands_alone.then(|| self.new_tree()).transpose()?;
        let mut parts = Vec::new();
        let laid = self.layer_in_cache(key, image, &made_by, labels, |layer| {
            let unpacker = new.as_ref().map(|new| Unpacker::new(&new.tree, &[], self.sandbox.owners()));
            let mut unpacker = unpacker.transpose()?;
            parts = group.lay(layer, &directories, unpacker.as_mut())?;
            unpacker.map_or(Ok(()), Unpacker::finish)?;
            Ok(true)
        })?;
        let mut stored = laid.expect("a group has packages");
        stored.layer.stands_alone = stands_alone;
        if let Some(new) = new {
            self.keep_tree(&stored.layer, new)?;
        }
        if keep == Keep::InLayout {
            self.put_in_layout(&stored)?;
        }
        self.cache.put_json(Area::Steps, parts_key(key), &parts)?;
        self.cache.put_json(Area::Steps, record_key, &stored)?;
        made().insert(key, stored.clone());
        Ok(stored)
    }

    /// Runs the scripts of packages that were laid over the first `before` layers.
    pub(super) fn configure(
        &self,
        step: &PackagesStep<'_>,
        before: usize,
        state: &mut State,
        reports: &mut Vec<StepReport>,
    ) -> Result<(), BuildError> {
        let PackagesStep { image, packages, compiling, .. } = step;
        let key = self.configure_key(state);
        let facts = || self.configure_facts();
        let name = StepName { kind: "configure", described: "maintainer scripts", key, facts: &facts };
        self.step(image, &name, state, reports, |state| {
            let laid = self.trees(&state.layers)?;
            let stack = (laid.as_slice(), before);
            let segments = self.segments(step, &laid)?;
            let waiting = Waiting { packages, segments: &segments, compiling };
            let runs = configure::has_dpkg(&View::new(&laid))?;
            let made_by = if runs { "drystone: maintainer scripts" } else { "drystone: package database" };
            if runs {
                self.must_run(step.platform, || step.cannot_run())?;
            }
            let layer = self.changed(image, made_by, key, (&laid, state.epoch), Leaving::Scrubbed, |upper| {
                right_directories(&segments, stack, upper, self.sandbox.owners())?;
                match runs {
                    true => configure::run(&step.runner, image, &waiting, stack, upper, state.epoch),
                    false => configure::without_dpkg(image, &waiting, stack, upper),
                }
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    pub(super) fn packages_key(
        &self,
        packages: &[LockedPackage],
        groups: &[cut::Group],
        compiling: &Compiling,
        state: &State,
    ) -> Digest {
        let digests: Vec<&[u8]> = packages.iter().map(|package| package.sha256.as_bytes()).collect();
        let groups = groups.iter().map(|group| group.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
        self.key(VERSION, state)
            .list("debs", digests)
            .list("groups", groups.collect::<Vec<_>>())
            .field("compiling", compiling.key())
            .finish()
    }

    pub(super) fn configure_key(&self, state: &State) -> Digest {
        self.key(configure::VERSION, state).finish()
    }
}

/// A number of packages in words.
pub(super) fn counted(packages: usize) -> String {
    if packages == 1 { "1 package".to_owned() } else { format!("{packages} packages") }
}

/// Where a step asks for packages.
pub(super) fn packages_span<'a>(image: &'a spec::Image, step: &'a Step) -> &'a Span {
    match step {
        Step::Packages(requests) => requests.first().map_or(&image.name.span, |request| &request.span),
        _ => &image.name.span,
    }
}

pub(super) fn scripts_cannot_run(image: &ImageName, packages: &[LockedPackage], span: &Span) -> Diagnostic {
    Diagnostic::new(span.clone(), format!("{image}: the scripts of {} cannot be run", counted(packages.len())))
}
