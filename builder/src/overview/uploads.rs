//! What a push of a plan would send: the planned layers that a registry does not have under the images' names.
//!
//! What is not built yet has no digest. A planned layer counts as there if the registry has the layout's layer of the same
//! packages, or, where the layout has none, an image of the family with a layer of the same packages.

use std::collections::{BTreeMap, BTreeSet};

use content::Digest;
use oci::{Document, Manifest, Reference};
use registry_client::{Client, Error, ManifestName, Remote};
use serde::Serialize;
use store::{Layout, StoredImage};
use tokio::task::JoinSet;

use super::{Change, ImageOverview, LayerOverview, Overview};
use crate::image::packages_of;

/// What a registry has under the names of some images.
#[derive(Debug, Default)]
pub struct Held {
    /// The digests of manifests, by the images' names.
    manifests: BTreeMap<String, Digest>,
    /// Everything that these manifests name.
    blobs: BTreeSet<Digest>,
    /// The packages of each layer that has some.
    packages: BTreeSet<Vec<String>>,
}

/// What a push of an image would send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upload {
    /// Whether the registry has exactly this image, so that nothing is sent.
    pub unchanged: bool,
    /// Layers that are known not to be there.
    pub layers: usize,
    /// About how many bytes these have.
    pub bytes: u64,
    /// How many layers at most come on top, which steps of the image and of its parents have yet to make.
    pub unknown_layers: usize,
}

/// Asks a registry what it has under these names. That it has nothing is no error.
pub async fn ask(client: &Client, references: Vec<Reference>) -> Result<Held, Error> {
    let mut asking = JoinSet::new();
    for reference in references {
        let client = client.clone();
        asking.spawn(async move {
            let found = client.get_manifest(&Remote::from(&reference), &ManifestName::from(&reference)).await?;
            Ok::<_, Error>((reference, found))
        });
    }
    let mut held = Held::default();
    while let Some(answer) = asking.join_next().await {
        let (reference, found) =
            answer.expect("asking does not panic, and is not cancelled before the set is dropped")?;
        if let Some(found) = found
            && let Document::Manifest(manifest) = &found.document
        {
            held.add(&reference, found.descriptor.digest, manifest);
        }
    }
    Ok(held)
}

impl Held {
    fn add(&mut self, reference: &Reference, digest: Digest, manifest: &Manifest) {
        self.manifests.insert(reference.to_string(), digest);
        self.blobs.extend(manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest));
        let packages = manifest.layers.iter().map(packages_of).filter(|packages| !packages.is_empty());
        self.packages.extend(packages.map(|packages| packages.into_iter().map(str::to_owned).collect()));
    }

    fn has(&self, layer: &LayerOverview) -> bool {
        match layer.digest {
            Some(digest) => self.blobs.contains(&digest),
            None => self.packages.contains(&layer.packages),
        }
    }
}

/// Says of each image of a plan what a push would send. Of an image some of whose steps will run it is not known what they
/// make; of the others the layout knows it.
pub fn mark(overview: &mut Overview, layout: Option<&Layout>, held: &Held) {
    let running: BTreeSet<String> =
        overview.images.iter().filter(|image| !image.rebuild.is_empty()).map(|image| image.name.clone()).collect();
    let mut rebuilt: BTreeSet<String> = BTreeSet::new();
    for image in &overview.images {
        // Parents come first, and a child has their layers.
        if running.contains(&image.name) || image.parent.as_ref().is_some_and(|parent| rebuilt.contains(parent)) {
            rebuilt.insert(image.name.clone());
        }
    }
    let mut all: BTreeMap<Digest, u64> = BTreeMap::new();
    for image in &mut overview.images {
        let reference = image.reference.parse().ok();
        // An image that cannot be read will be built again.
        let stored = reference.and_then(|reference| layout?.image_at(&reference, &overview.platform).ok().flatten());
        let stays = stored.as_ref().filter(|_| image.packages == Change::Same && !rebuilt.contains(&image.name));
        let missing = missing(image, stays, held);
        let same = stays.is_some_and(|stored| held.manifests.get(&image.reference) == Some(&stored.descriptor.digest));
        image.upload = Some(Upload {
            unchanged: same,
            layers: missing.len(),
            bytes: missing.iter().map(|(_, size)| size).sum(),
            unknown_layers: if stays.is_some() { 0 } else { image.other_layers },
        });
        all.extend(missing);
    }
    overview.totals.upload = Some(all.values().sum());
}

/// The layers of an image that a registry lacks, by name, with their sizes.
fn missing(image: &ImageOverview, stays: Option<&StoredImage>, held: &Held) -> Vec<(Digest, u64)> {
    let of_packages = image.layers.iter().filter(|layer| !held.has(layer));
    let mut missing: Vec<(Digest, u64)> =
        of_packages.map(|layer| (layer.digest.unwrap_or(layer.id), layer.bytes)).collect();
    let own = stays.into_iter().flat_map(|stored| &stored.manifest.layers);
    let own = own.filter(|layer| packages_of(layer).is_empty() && !held.blobs.contains(&layer.digest));
    missing.extend(own.map(|layer| (layer.digest, layer.size)));
    missing
}
