//! Which packages of a plan lie in which layer: a plan as input of a [`mod@cut`], with what is remembered of the last
//! one.
//!
//! A lock remembers the cut. Where there is none, the images of the layout do: the descriptor of a layer names its
//! packages, and the manifest the budget.

use std::collections::BTreeMap;

use oci::Reference;
use spec::lock::{Lock, LockedImage};
use spec::{Image, Step};
use store::{Layout, StoreError};

use crate::cut::{self, Budget, Cut, OverBudget, Piece, USUAL_BUDGET};
use crate::error::BuildError;
use crate::image::{LAYER_BUDGET, SQUASHED, packages_of};
use crate::plan::{Plan, PlannedImage};

/// Who knows how packages were cut before.
#[derive(Clone, Copy)]
pub enum Memory<'a> {
    /// Nobody: everything is cut anew.
    Nothing,
    /// The images of a layout.
    Layout(&'a Layout),
    /// The lock, whatever a layout has.
    Lock(&'a Lock),
}

/// The cut of a plan: as it was, as far as that is remembered and still fits.
pub fn cut(
    plan: &Plan<'_>,
    memory: Memory<'_>,
    layer_budget: Option<usize>,
    reference: &dyn Fn(&Image) -> Reference,
) -> Result<Cut, BuildError> {
    let remembered = match memory {
        Memory::Nothing => Remembered::default(),
        Memory::Layout(layout) => Remembered::read(layout)?,
        Memory::Lock(lock) => Remembered::of(lock, plan, reference),
    };
    layers(plan, &remembered, layer_budget, reference)
}

/// The cuts of images.
#[derive(Debug, Default)]
struct Remembered {
    /// By repository.
    images: BTreeMap<String, Vec<Known>>,
}

/// An image as it was cut.
#[derive(Debug)]
struct Known {
    reference: Reference,
    budget: String,
    squashed: bool,
    /// The names of the packages of each layer that has some.
    groups: Vec<Vec<String>>,
}

impl Remembered {
    /// What a lock says of the images of a plan.
    fn of(lock: &Lock, plan: &Plan<'_>, reference: &dyn Fn(&Image) -> Reference) -> Self {
        let mut images: BTreeMap<String, Vec<Known>> = BTreeMap::new();
        let platform = plan.platform.to_string();
        for planned in &plan.images {
            let Some(locked) = lock.image(planned.image.name.as_str(), &platform) else { continue };
            let reference = reference(planned.image);
            let budget = locked.budget.to_string();
            let squashed = locked.squashed;
            let known = Known { budget, squashed, groups: locked_groups(lock, locked), reference };
            images.entry(known.reference.repository().to_string()).or_default().push(known);
        }
        Self { images }
    }

    /// Reads a layout. Images that cannot be read are not remembered.
    fn read(layout: &Layout) -> Result<Self, StoreError> {
        let mut images: BTreeMap<String, Vec<Known>> = BTreeMap::new();
        for (reference, image) in layout.images()? {
            let Ok(image) = image else { continue };
            let annotations = &image.manifest.annotations;
            let Some(budget) = annotations.get(LAYER_BUDGET).cloned() else { continue };
            let squashed = annotations.contains_key(SQUASHED);
            let layers = image.manifest.layers.iter().map(packages_of).filter(|packages| !packages.is_empty());
            let name = |label: &&str| label.split('=').next().unwrap_or_default().to_owned();
            let groups = layers.map(|packages| packages.iter().map(name).collect()).collect();
            let repository = reference.repository().to_string();
            images.entry(repository).or_default().push(Known { reference, budget, squashed, groups });
        }
        Ok(Self { images })
    }

    /// How the image was cut that had this name, or else one with another tag or registry, if the budget was the same.
    fn image(&self, reference: &Reference, budget: Budget) -> cut::Remembered<'_> {
        let known = self.images.get(reference.repository().as_str()).into_iter().flatten();
        let alike = |image: &&Known| {
            (image.reference.registry() == reference.registry(), image.reference.tag() == reference.tag())
        };
        let Some(found) = known.max_by_key(alike).filter(|image| image.budget == written(budget)) else {
            return cut::Remembered::default();
        };
        let groups = found.groups.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
        cut::Remembered { groups, squashed: found.squashed }
    }
}

/// How many layers an image may have: what the command line says, or its spec, or the family's.
pub fn budget(image: &Image, asked: Option<usize>) -> Budget {
    let written = image.layer_budget.as_ref().map(|budget| budget.value as usize);
    asked.or(written).map_or(Budget::Usual, Budget::Asked)
}

/// A budget as an annotation says it.
pub fn written(budget: Budget) -> String {
    number(budget).to_string()
}

/// A budget as a number.
pub fn number(budget: Budget) -> u32 {
    let layers = match budget {
        Budget::Usual => USUAL_BUDGET,
        Budget::Asked(layers) => layers,
    };
    u32::try_from(layers).unwrap_or(u32::MAX)
}

/// The names of the packages of each layer of an image, the lowest first; those of what it is built on come before.
fn locked_groups(lock: &Lock, image: &LockedImage) -> Vec<Vec<String>> {
    let mut line = vec![image];
    // A hand may have made a circle of them.
    while let Some(parent) = lock.image(&line[line.len() - 1].from, &image.platform)
        && line.len() < lock.images.len()
    {
        line.push(parent);
    }
    let steps = line.into_iter().rev().flat_map(|image| &image.steps);
    let groups = steps.flat_map(|step| step.layers.iter().map(move |layer| (step, layer)));
    groups.map(|(step, layer)| layer.iter().map(|place| step.packages[*place].name.clone()).collect()).collect()
}

/// Cuts the packages of a plan into layers. `asked` is the budget of the command line; `reference` names the images.
fn layers(
    plan: &Plan<'_>,
    remembered: &Remembered,
    asked: Option<usize>,
    reference: &dyn Fn(&Image) -> Reference,
) -> Result<Cut, BuildError> {
    let images: Vec<cut::Image<'_>> = plan
        .images
        .iter()
        .map(|planned| {
            let budget = budget(planned.image, asked);
            cut::Image {
                name: planned.image.name.as_str(),
                parent: planned.parent,
                steps: planned.packages.values().map(|packages| packages.iter().map(piece).collect()).collect(),
                fixed_layers: planned.base.as_ref().map_or(0, |base| base.layers.len()),
                other_layers: other_layers(plan, planned),
                budget,
                remembered: remembered.image(&reference(planned.image), budget),
            }
        })
        .collect();
    cut::cut(&images).map_err(|error| over_budget(plan, error))
}

/// The groups of one step, whose place in the spec is given.
pub fn of_step<'c>(cut: &'c Cut, plan: &Plan<'_>, image: usize, step: usize) -> &'c [cut::Group] {
    let number = plan.images[image].packages.range(..step).count();
    &cut.images[image][number]
}

fn piece(package: &crate::plan::LockedPackage) -> Piece<'_> {
    // What a package takes in a layer is not known before it is fetched; the archive's own compression comes close.
    Piece { name: &package.name, digest: package.sha256, size: package.size }
}

/// How many layers an image's own steps can make besides those of packages: below them all, and above those of each step.
fn other_layers(plan: &Plan<'_>, planned: &PlannedImage<'_>) -> Vec<usize> {
    let triggers = match planned.parent {
        Some(parent) => plan.images[parent].image.on_build.len(),
        None => planned.base.as_ref().map_or(0, |base| base.config.config.on_build.len()),
    };
    let mut layers = vec![triggers];
    let stages = planned.image.dockerfile.iter().flat_map(|dockerfile| dockerfile.stages.last());
    layers[0] += stages.map(|stage| stage.instructions.len()).sum::<usize>();
    for (place, step) in planned.image.steps.iter().enumerate() {
        match step {
            // What the packages' scripts change.
            Step::Packages(_) => {
                layers.push(usize::from(planned.packages.get(&place).is_some_and(|packages| !packages.is_empty())));
            }
            Step::Groups(_) | Step::Users(_) | Step::Files(_) | Step::Run(_) => {
                *layers.last_mut().expect("there is one from the beginning") += 1;
            }
        }
    }
    layers
}

/// How many layers without packages an image has of its own, whose place is given, if each of its steps makes one.
pub fn own_layers(cut: &Cut, plan: &Plan<'_>, image: usize) -> usize {
    let planned = &plan.images[image];
    let steps: Vec<bool> = planned.packages.values().map(|packages| !packages.is_empty()).collect();
    cut::own_layers(&other_layers(plan, planned), &steps, cut.squashed[image])
}

fn over_budget(plan: &Plan<'_>, error: OverBudget) -> BuildError {
    let OverBudget { image, least, budget } = error;
    let image = plan.images[image].image;
    let span = image.layer_budget.as_ref().map_or(&image.name.span, |budget| &budget.span);
    let title = format!("{} needs {least} layers, and may have {budget}", image.name);
    BuildError::at(span, title, "its parent's layers count, and at least one for each step that installs packages")
}
