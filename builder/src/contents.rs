//! What is in which layer of an image: packages by the annotation of a layer of ours, or by dpkg's database in the layer of
//! anybody's, and what made it.

use std::collections::BTreeSet;

use content::Digest;
use layer::compress::decompress;
use oci::{Descriptor, History};
use store::{Layout, StoreError, StoredImage};

use crate::image::packages_of;

/// What dpkg keeps of a package that is unpacked in a layer.
const LIST: (&str, &str) = ("/var/lib/dpkg/info/", ".list");

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerContents {
    /// Names its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// How many entries its tar has.
    pub entries: u64,
    /// The packages in it: `name=version`, or the name alone where only the database tells of it.
    pub packages: Vec<String>,
    /// What the image's history says of it.
    pub made_by: String,
}

/// Reads all layers of an image, the lowest first.
pub fn contents(layout: &Layout, image: &StoredImage) -> Result<Vec<LayerContents>, StoreError> {
    let mut history = image.config.history.iter().filter(|entry| !entry.empty_layer);
    image.manifest.layers.iter().map(|layer| read(layout, layer, history.next())).collect()
}

fn read(layout: &Layout, layer: &Descriptor, history: Option<&History>) -> Result<LayerContents, StoreError> {
    let (mut entries, mut listed) = (0, BTreeSet::new());
    let blob = layout.open_blob(layer.digest, layer.size)?;
    let counted = decompress(blob).and_then(|tar| {
        layer::read::entries(tar, |entry, _| {
            entries += 1;
            let path = entry.path.to_string();
            let name = path.strip_prefix(LIST.0).and_then(|name| name.strip_suffix(LIST.1));
            listed.extend(name.map(str::to_owned));
            Ok(())
        })
    });
    counted.map_err(|source| StoreError::Io { action: "read", path: layout.blob_path(layer.digest), source })?;
    let annotated = packages_of(layer);
    Ok(LayerContents {
        digest: layer.digest,
        size: layer.size,
        entries,
        packages: match annotated.is_empty() {
            true => listed.into_iter().collect(),
            false => annotated.into_iter().map(str::to_owned).collect(),
        },
        made_by: history.and_then(|entry| entry.created_by.clone()).unwrap_or_default(),
    })
}
