//! What a plan and its cut are as a lock.

use std::collections::BTreeSet;

use spec::Image;
use spec::lock::{Lock, LockedFile, LockedImage, LockedParent, LockedPython, LockedSource, LockedStep};

use super::{PLATFORM, asks, description, from};
use crate::cut::Cut;
use crate::layering;
use crate::plan::{Plan, PlannedImage};
use crate::python::Compiling;

/// The lock that a plan leads to. What the plan leaves out keeps what `previous` says of it; `files` are those of the
/// images of the plan.
pub fn record(plan: &Plan<'_>, cut: &Cut, previous: Option<&Lock>, files: Vec<LockedFile>) -> Lock {
    let mut images: Vec<LockedImage> = (0..plan.images.len()).map(|place| image(plan, cut, place)).collect();
    for left_out in &plan.left_out {
        images.extend(previous.and_then(|lock| lock.image(left_out.name.as_str(), PLATFORM)).cloned());
    }
    let used: BTreeSet<&str> =
        images.iter().flat_map(LockedImage::packages).map(|package| package.source.as_str()).collect();
    let source = |source: &spec::AptSource| -> Option<LockedSource> {
        let name = source.name.as_str();
        let known = || previous.and_then(|lock| lock.source(name)).cloned();
        let asked = plan.sources.get(name).cloned();
        let none = || LockedSource {
            name: name.to_owned(),
            description: description(source),
            releases: Vec::new(),
            indexes: Vec::new(),
        };
        used.contains(name).then(|| asked.or_else(known).unwrap_or_else(none))
    };
    let sources = plan.family.sources.iter().filter_map(source).collect();
    let mut lock = Lock { sources, parents: parents(plan, previous, &images), files, images };
    lock.sort();
    lock
}

/// What images are built on that others made.
fn parents(plan: &Plan<'_>, previous: Option<&Lock>, images: &[LockedImage]) -> Vec<LockedParent> {
    let known = plan.images.iter().filter_map(|planned| planned.base.as_ref()).map(|base| LockedParent {
        reference: base.written.clone(),
        platform: PLATFORM.to_owned(),
        digest: base.digest.to_string(),
    });
    let mut parents: Vec<LockedParent> = known.collect();
    // What Dockerfiles are built on is known once they are built.
    if plan.family.images.iter().any(|image| image.dockerfile.is_some()) {
        let others = previous.map(|lock| lock.parents.as_slice()).unwrap_or_default();
        let others = others.iter().filter(|other| !parents.iter().any(|known| known.reference == other.reference));
        let others: Vec<LockedParent> = others.cloned().collect();
        parents.extend(others);
    }
    for image in images {
        let left_out = previous.and_then(|lock| lock.parent(&image.from, &image.platform));
        let is_new = |parent: &&LockedParent| !parents.iter().any(|known| known.reference == parent.reference);
        parents.extend(left_out.filter(is_new).cloned().into_iter().collect::<Vec<_>>());
    }
    parents
}

fn image(plan: &Plan<'_>, cut: &Cut, place: usize) -> LockedImage {
    let planned = &plan.images[place];
    let spec: &Image = planned.image;
    let steps = planned.packages.keys().zip(asks(spec));
    LockedImage {
        name: spec.name.to_string(),
        platform: PLATFORM.to_owned(),
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
