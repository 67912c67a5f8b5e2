//! What the plans of a family and their cuts are as a lock.

use std::collections::BTreeSet;

use spec::lock::{
    Lock, LockedFile, LockedImage, LockedIndex, LockedParent, LockedPython, LockedRelease, LockedSource, LockedStep,
};
use spec::{Family, Image};

use super::{asks, description, from, locked_parent};
use crate::cut::Cut;
use crate::layering;
use crate::plan::{Plan, PlannedImage};
use crate::platform::is_for;
use crate::python::Compiling;

/// The lock that the plans of a family lead to, one for each platform. What they leave out keeps what `previous` says of
/// it, and so do platforms that are not among them; `files` are those of the images of all plans.
pub fn record(family: &Family, plans: &[(&Plan<'_>, &Cut)], previous: Option<&Lock>, files: Vec<LockedFile>) -> Lock {
    let mut images: Vec<LockedImage> = Vec::new();
    for (plan, cut) in plans {
        images.extend((0..plan.images.len()).map(|place| image(plan, cut, place)));
        let platform = plan.platform.to_string();
        let left_out = plan.left_out.iter().map(|image| image.name.as_str());
        images.extend(left_out.filter_map(|name| previous?.image(name, &platform)).cloned());
    }
    let others = previous.map(|lock| others(family, plans, lock)).unwrap_or_default();
    let all_are_planned = others.is_empty();
    images.extend(others);
    let used: BTreeSet<&str> =
        images.iter().flat_map(LockedImage::packages).map(|package| package.source.as_str()).collect();
    let source = |source: &spec::AptSource| {
        used.contains(source.name.as_str()).then(|| asked(source, plans, previous, all_are_planned))
    };
    let sources = family.sources.iter().filter_map(source).collect();
    let mut lock = Lock { sources, parents: parents(family, plans, previous, &images), files, images };
    lock.sort();
    lock
}

/// What a lock says of platforms that are not planned now, as far as the family's images may still be built for them.
fn others(family: &Family, plans: &[(&Plan<'_>, &Cut)], previous: &Lock) -> Vec<LockedImage> {
    let is_other = |image: &&LockedImage| {
        let Ok(platform) = image.platform.parse() else { return false };
        let spec = family.images.iter().find(|spec| spec.name.as_str() == image.name);
        !plans.iter().any(|(plan, _)| plan.platform == platform) && spec.is_some_and(|spec| is_for(spec, &platform))
    };
    previous.images.iter().filter(is_other).cloned().collect()
}

/// What is remembered of an archive: what it said to the plans that asked, and what it said before of the indexes that
/// none of them asked for, which are of other architectures.
fn asked(
    source: &spec::AptSource,
    plans: &[(&Plan<'_>, &Cut)],
    previous: Option<&Lock>,
    all_are_planned: bool,
) -> LockedSource {
    let name = source.name.as_str();
    let described = description(source);
    let answers: Vec<&LockedSource> = plans.iter().filter_map(|(plan, _)| plan.sources.get(name)).collect();
    let before = previous.and_then(|lock| lock.source(name));
    // Of a source that is another one now, nothing is kept, and nothing if everybody has asked.
    let has_asked = all_are_planned && answers.len() == plans.len();
    let before = before.filter(|before| answers.is_empty() || !has_asked && before.description == described);
    let mut found = LockedSource {
        name: name.to_owned(),
        description: before.filter(|_| answers.is_empty()).map_or(described, |before| before.description.clone()),
        releases: Vec::new(),
        indexes: Vec::new(),
    };
    for answer in answers.into_iter().chain(before) {
        let is_new = |index: &&LockedIndex| {
            !found.indexes.iter().any(|known| (&known.suite, &known.path) == (&index.suite, &index.path))
        };
        let new: Vec<LockedIndex> = answer.indexes.iter().filter(is_new).cloned().collect();
        let vouches = |release: &&LockedRelease| {
            new.iter().any(|index| index.suite == release.suite) && !found.releases.contains(release)
        };
        let releases: Vec<LockedRelease> = answer.releases.iter().filter(vouches).cloned().collect();
        found.releases.extend(releases);
        found.indexes.extend(new);
    }
    found
}

/// What images are built on that others made.
fn parents(
    family: &Family,
    plans: &[(&Plan<'_>, &Cut)],
    previous: Option<&Lock>,
    images: &[LockedImage],
) -> Vec<LockedParent> {
    let planned = plans.iter().flat_map(|(plan, _)| &plan.images);
    let mut parents: Vec<LockedParent> =
        planned.filter_map(|planned| planned.base.as_deref()).map(|base| locked_parent(base, previous)).collect();
    let is_new = |parents: &[LockedParent], parent: &LockedParent| {
        !parents.iter().any(|known| (&known.reference, &known.platform) == (&parent.reference, &parent.platform))
    };
    // What Dockerfiles are built on is known once they are built.
    let has_dockerfiles = family.images.iter().any(|image| image.dockerfile.is_some());
    let of_dockerfiles = previous.map(|lock| lock.parents.as_slice()).filter(|_| has_dockerfiles).unwrap_or_default();
    let left_out = images.iter().filter_map(|image| previous?.parent(&image.from, &image.platform));
    for parent in of_dockerfiles.iter().chain(left_out) {
        if is_new(&parents, parent) {
            parents.push(parent.clone());
        }
    }
    parents
}

fn image(plan: &Plan<'_>, cut: &Cut, place: usize) -> LockedImage {
    let planned = &plan.images[place];
    let spec: &Image = planned.image;
    let steps = planned.packages.keys().zip(asks(spec));
    LockedImage {
        name: spec.name.to_string(),
        platform: plan.platform.to_string(),
        from: from(spec),
        budget: layering::number(layering::budget(spec, None)),
        squashed: cut.squashed[place],
        sources: spec.sources.iter().map(|name| name.value.clone()).collect(),
        recommends: spec.recommends,
        steps: steps.map(|(step, asks)| self::step(plan, cut, place, *step, asks)).collect(),
    }
}

fn step(plan: &Plan<'_>, cut: &Cut, image: usize, step: usize, asks: Vec<String>) -> LockedStep {
    let planned: &PlannedImage<'_> = &plan.images[image];
    let python = match &planned.compiling[&step] {
        Compiling::Never => LockedPython::Never,
        Compiling::ByScripts => LockedPython::ByScripts,
        Compiling::Once(interpreter) => LockedPython::Interpreter {
            version: interpreter.version.clone(),
            packages: interpreter.packages.iter().map(|package| package.name.clone()).collect(),
        },
    };
    let packages = planned.packages[&step].iter().map(crate::plan::LockedPackage::to_lock).collect();
    let layers = layering::of_step(cut, plan, image, step).to_vec();
    LockedStep { asks, python, packages, layers }
}
