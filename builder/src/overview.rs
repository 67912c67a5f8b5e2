//! What a plan comes to, before anything is built: the layers of every image, who shares them, how large they are, and
//! what each way of storing them would take.

mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use content::{Digest, FramedHasher};
use layer::compress::Compression;
use oci::{Platform, Reference};
use serde::Serialize;
use store::{Cache, Layout, StoreError, StoredImage};

use crate::build::ExplainedStep;
use crate::cut::Cut;
use crate::error::BuildError;
use crate::image::packages_of;
use crate::layering;
use crate::package::bytecode::{Known, Wanted};
use crate::package::segment::Segment;
use crate::plan::{LockedPackage, Plan};
use crate::python::{Compiling, Interpreter};

pub use uploads::{Held, Upload, ask, mark};

/// What a plan comes to.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// The platform that is planned.
    #[serde(serialize_with = "as_text")]
    pub platform: Platform,
    /// The images that would be built, parents before their children.
    pub images: Vec<ImageOverview>,
    /// All of them together.
    pub totals: Totals,
}

fn as_text<S: serde::Serializer>(platform: &Platform, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(platform)
}

/// An image of a plan.
#[derive(Debug, Serialize)]
pub struct ImageOverview {
    /// Its name in the family.
    pub name: String,
    /// The name that it gets in the layout.
    pub reference: String,
    /// Its parent's name in the family, or what the spec calls an image that others made.
    pub parent: Option<String>,
    /// What is new since the image that the layout has; what files and commands make is not looked at here.
    pub packages: Change,
    /// Its layers of packages, the lowest first, its parent's included.
    pub layers: Vec<LayerOverview>,
    /// How many layers its steps make besides at most, its parent's included.
    pub other_layers: usize,
    /// Its own steps that would run, and why.
    pub rebuild: Vec<ExplainedStep>,
    /// What a push would send, if the registry was asked.
    pub upload: Option<Upload>,
}

/// How an image's packages compare with those of the image that the layout has under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Change {
    /// The layout has no image of that name.
    New,
    /// The same packages lie in the same layers.
    Same,
    /// The same packages lie in other layers.
    Recut,
    /// Other packages.
    Changed {
        /// Those that the layout's image lacks, as `name=version`.
        added: Vec<String>,
        /// Those that only the layout's image has.
        removed: Vec<String>,
    },
}

/// A layer of packages.
#[derive(Clone, Debug, Serialize)]
pub struct LayerOverview {
    /// Names the packages in it.
    pub id: Digest,
    /// Names the layer's bytes, if the layout has it.
    pub digest: Option<Digest>,
    /// The image whose step lays it.
    pub from: String,
    /// Its packages, as `name=version`.
    pub packages: Vec<String>,
    /// About how many bytes it has as it is stored.
    pub bytes: u64,
    /// How that is known.
    pub measure: Measure,
    /// The other images that have it.
    pub shared_with: Vec<String>,
}

/// How the size of a layer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The layout has it.
    Layout,
    /// The cache has the segments of all its packages.
    Segments,
    /// The sizes of the `.deb` files stand for those that the cache does not have.
    Debs,
}

/// The sums over all images, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// How many different packages there are.
    pub packages: usize,
    /// How many different layers of packages.
    pub layers: usize,
    /// One segment of each package, with its bytecode: less cannot be stored.
    pub packages_once: u64,
    /// The different layers of packages, as planned.
    pub planned: u64,
    /// The packages of each image and its parents, if each image were stored whole.
    pub whole: u64,
    /// The packages of each image without its parents', if only parents were shared.
    pub shared_by_parent: u64,
    /// All blobs of these images as the layout has them now, each once.
    pub layout_blobs: u64,
    /// Those of them that are layers without packages: what configuring, files and commands made.
    pub layout_own_layers: u64,
    /// How many of these images the layout does not have; the two sums above lack them.
    pub not_in_layout: usize,
    /// What a push would send of the layers that are known, each once, if the registry was asked.
    pub upload: Option<u64>,
}

/// Where sizes and earlier images are looked for.
pub struct Sources<'a> {
    /// The layout, if there is one.
    pub layout: Option<&'a Layout>,
    /// The cache.
    pub cache: &'a Cache,
    /// How segments are compressed.
    pub compression: Compression,
}

/// Looks a plan over.
pub fn overview(
    plan: &Plan<'_>,
    cut: &Cut,
    sources: &Sources<'_>,
    reference: &dyn Fn(&spec::Image) -> Reference,
) -> Result<Overview, BuildError> {
    let mut stored = BTreeMap::new();
    for planned in plan.images.iter().filter(|planned| planned.wanted) {
        let reference = reference(planned.image);
        // An image that cannot be read will be built again.
        let found = sources.layout.and_then(|layout| layout.image_at(&reference, &plan.platform).ok().flatten());
        stored.insert(reference.to_string(), found);
    }
    let known: BTreeMap<Vec<&str>, (Digest, u64)> = stored
        .values()
        .flatten()
        .flat_map(|image| &image.manifest.layers)
        .map(|layer| (packages_of(layer), (layer.digest, layer.size)))
        .filter(|(packages, _)| !packages.is_empty())
        .collect();
    let mut sizes = Sizes { sources, bytecode: bytecode(plan, sources)?, known: BTreeMap::new() };
    let mut images: Vec<Option<ImageOverview>> = Vec::new();
    let mut totals = Totals::default();
    let mut distinct: BTreeMap<Digest, u64> = BTreeMap::new();
    for (place, planned) in plan.images.iter().enumerate() {
        if !planned.wanted {
            images.push(None);
            continue;
        }
        let parent = planned.parent.and_then(|parent| images[parent].as_ref());
        let mut layers = parent.map(|parent| parent.layers.clone()).unwrap_or_default();
        let name = planned.image.name.to_string();
        for (step, packages) in &planned.packages {
            for package in packages {
                let (size, _) = sizes.of(package)?;
                totals.shared_by_parent += size;
                distinct.insert(package.sha256, size);
            }
            for group in layering::of_step(cut, plan, place, *step) {
                let members: Vec<&LockedPackage> = group.iter().map(|member| &packages[*member]).collect();
                layers.push(sizes.layer(&name, &members, &known)?);
            }
        }
        let reference = reference(planned.image).to_string();
        images.push(Some(ImageOverview {
            name,
            parent: match planned.parent {
                Some(parent) => Some(plan.images[parent].image.name.to_string()),
                None => planned.base.as_ref().map(|base| base.written.clone()),
            },
            packages: change(stored[&reference].as_ref(), &layers),
            reference,
            other_layers: layering::own_layers(cut, plan, place) + parent.map_or(0, |parent| parent.other_layers),
            layers,
            rebuild: Vec::new(),
            upload: None,
        }));
    }
    let mut images: Vec<ImageOverview> = images.into_iter().flatten().collect();
    share(&mut images);
    let layers: BTreeMap<Digest, u64> =
        images.iter().flat_map(|image| &image.layers).map(|layer| (layer.id, layer.bytes)).collect();
    totals.packages = distinct.len();
    totals.packages_once = distinct.values().sum();
    totals.layers = layers.len();
    totals.planned = layers.values().sum();
    totals.whole = images.iter().flat_map(|image| &image.layers).map(|layer| layer.bytes).sum();
    totals.not_in_layout = stored.values().filter(|image| image.is_none()).count();
    of_layout(&mut totals, stored.values().flatten());
    Ok(Overview { platform: plan.platform.clone(), images, totals })
}

/// What the cache has of the bytecode of packages, in bytes.
fn bytecode(plan: &Plan<'_>, sources: &Sources<'_>) -> Result<BTreeMap<Digest, u64>, BuildError> {
    let mut by_interpreter: BTreeMap<Digest, (&Interpreter, BTreeMap<Digest, &LockedPackage>)> = BTreeMap::new();
    for planned in plan.images.iter().filter(|planned| planned.wanted) {
        for (step, packages) in &planned.packages {
            let Compiling::Once(interpreter) = &planned.compiling[step] else { continue };
            let (_, compiled) = by_interpreter.entry(interpreter.key()).or_insert((interpreter, BTreeMap::new()));
            compiled.extend(packages.iter().map(|package| (package.sha256, package)));
        }
    }
    let mut sizes = BTreeMap::new();
    for (interpreter, compiled) in by_interpreter.into_values() {
        let (mut packages, mut segments) = (Vec::new(), Vec::new());
        for package in compiled.into_values() {
            if let Some(segment) = Segment::kept(sources.cache, package, sources.compression)? {
                packages.push(package.clone());
                segments.push(segment);
            }
        }
        for wanted in Wanted::of(&packages, &segments, interpreter, sources.compression, &BTreeSet::new()) {
            if let Known::Made(bytecode) = wanted.known(sources.cache)? {
                sizes.insert(packages[wanted.place].sha256, fs::metadata(&bytecode.path)?.len());
            }
        }
    }
    Ok(sizes)
}

/// Says of each layer which other images have it.
fn share(images: &mut [ImageOverview]) {
    let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for image in images.iter() {
        for layer in &image.layers {
            users.entry(layer.id).or_default().push(image.name.clone());
        }
    }
    for image in images {
        for layer in &mut image.layers {
            layer.shared_with = users[&layer.id].iter().filter(|name| **name != image.name).cloned().collect();
        }
    }
}

fn of_layout<'i>(totals: &mut Totals, images: impl Iterator<Item = &'i StoredImage>) {
    let (mut blobs, mut own): (BTreeMap<Digest, u64>, BTreeMap<Digest, u64>) = Default::default();
    for image in images {
        let manifest = &image.manifest;
        let all = manifest.layers.iter().chain([&manifest.config, &image.descriptor]);
        blobs.extend(all.map(|blob| (blob.digest, blob.size)));
        let without = manifest.layers.iter().filter(|layer| packages_of(layer).is_empty());
        own.extend(without.map(|layer| (layer.digest, layer.size)));
    }
    totals.layout_blobs = blobs.values().sum();
    totals.layout_own_layers = own.values().sum();
}

fn change(stored: Option<&StoredImage>, layers: &[LayerOverview]) -> Change {
    let Some(stored) = stored else { return Change::New };
    let before: Vec<Vec<&str>> =
        stored.manifest.layers.iter().map(packages_of).filter(|packages| !packages.is_empty()).collect();
    let now: Vec<Vec<&str>> = layers.iter().map(|layer| layer.packages.iter().map(String::as_str).collect()).collect();
    if before == now {
        return Change::Same;
    }
    let (before, now): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.into_iter().flatten().collect(), now.into_iter().flatten().collect());
    let only =
        |left: &BTreeSet<&str>, right: &BTreeSet<&str>| left.difference(right).map(ToString::to_string).collect();
    if before == now {
        return Change::Recut;
    }
    Change::Changed { added: only(&now, &before), removed: only(&before, &now) }
}

/// What packages take in layers.
struct Sizes<'a> {
    sources: &'a Sources<'a>,
    /// What belongs to packages besides their files.
    bytecode: BTreeMap<Digest, u64>,
    known: BTreeMap<Digest, (u64, Measure)>,
}

impl Sizes<'_> {
    fn of(&mut self, package: &LockedPackage) -> Result<(u64, Measure), StoreError> {
        if let Some(known) = self.known.get(&package.sha256) {
            return Ok(*known);
        }
        let size = match Segment::kept_size(self.sources.cache, package, self.sources.compression)? {
            Some(size) => {
                let bytecode = self.bytecode.get(&package.sha256).copied().unwrap_or_default();
                (size + bytecode, Measure::Segments)
            }
            None => (package.size, Measure::Debs),
        };
        self.known.insert(package.sha256, size);
        Ok(size)
    }

    fn layer(
        &mut self,
        from: &str,
        members: &[&LockedPackage],
        known: &BTreeMap<Vec<&str>, (Digest, u64)>,
    ) -> Result<LayerOverview, StoreError> {
        let packages: Vec<String> = members.iter().map(|package| package.label()).collect();
        let digests = members.iter().map(|package| package.sha256.as_bytes());
        let id = FramedHasher::new("planned layer").list("debs", digests).finish();
        let labels: Vec<&str> = packages.iter().map(String::as_str).collect();
        let stored = known.get(&labels);
        let (bytes, measure) = match stored {
            Some((_, size)) => (*size, Measure::Layout),
            None => {
                let sizes = members.iter().map(|package| self.of(package)).collect::<Result<Vec<_>, _>>()?;
                let all_kept = sizes.iter().all(|(_, measure)| *measure == Measure::Segments);
                let measure = if all_kept { Measure::Segments } else { Measure::Debs };
                (sizes.iter().map(|(size, _)| size).sum(), measure)
            }
        };
        let (digest, from) = (stored.map(|(digest, _)| *digest), from.to_owned());
        Ok(LayerOverview { id, digest, from, packages, bytes, measure, shared_with: Vec::new() })
    }
}
