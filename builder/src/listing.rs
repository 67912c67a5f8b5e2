//! The images of a layout as people list them: names, ids, dates, sizes, labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use content::Digest;
use layer::compress::decompress;
use oci::Descriptor;
use store::{Layout, StoreError, StoredImage};

use crate::image::UNPACKED_SIZE;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The registry and repository, such as `localhost:5100/redis`.
    pub repository: String,
    /// The tag, or `<none>`.
    pub tag: String,
    /// The digest of the configuration.
    pub id: Digest,
    /// The digest of the manifest.
    pub digest: Digest,
    /// When it was made, in seconds since 1970, if it says so.
    pub created: Option<i64>,
    /// Bytes of the files in all its layers, shared or not.
    pub virtual_size: u64,
    /// Bytes of its blobs as they are stored.
    pub stored_size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its layers, and the bytes of the files in each.
    pub layers: Vec<(Digest, u64)>,
}

/// How much of an image others have too, in bytes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// In layers that no other image has.
    pub unique: u64,
    /// In layers that another image has too.
    pub shared: u64,
}

/// For each row, how much of it the other rows have.
pub fn sharing(rows: &[Row]) -> Vec<Sharing> {
    let mut images: BTreeMap<Digest, usize> = BTreeMap::new();
    // An image with two names is one, and shares nothing with itself.
    let distinct: BTreeMap<Digest, &Row> = rows.iter().map(|row| (row.digest, row)).collect();
    for row in distinct.values() {
        let layers: BTreeSet<Digest> = row.layers.iter().map(|(digest, _)| *digest).collect();
        layers.into_iter().for_each(|digest| *images.entry(digest).or_default() += 1);
    }
    let of = |row: &Row| {
        let mut sharing = Sharing { unique: 0, shared: 0 };
        for (digest, size) in &row.layers {
            let sum = if images[digest] > 1 { &mut sharing.shared } else { &mut sharing.unique };
            *sum = sum.saturating_add(*size);
        }
        sharing
    };
    rows.iter().map(of).collect()
}

/// The bytes of the files in all layers of the rows, each layer once.
pub fn bytes_once(rows: &[Row]) -> u64 {
    let layers: BTreeMap<Digest, u64> = rows.iter().flat_map(|row| row.layers.iter().copied()).collect();
    layers.values().fold(0, |sum, size| sum.saturating_add(*size))
}

/// A condition on labels: `key`, or `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFilter {
    key: String,
    value: Option<String>,
}

/// A filter that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a filter: expected `label=KEY` or `label=KEY=VALUE`")]
pub struct FilterError(String);

impl std::str::FromStr for LabelFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let invalid = || FilterError(text.to_owned());
        let label = text.strip_prefix("label=").filter(|label| !label.is_empty()).ok_or_else(invalid)?;
        let (key, value) = label.split_once('=').map_or((label, None), |(key, value)| (key, Some(value.to_owned())));
        if key.is_empty() {
            return Err(invalid());
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

impl LabelFilter {
    /// Whether an image with these labels passes.
    pub fn passes(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key).is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

/// The images of a layout, and those that cannot be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// A row for each image that passes all filters, by name.
    pub rows: Vec<Row>,
    /// The names of damaged images, and what is wrong with each. They hide no others.
    pub damaged: Vec<(String, StoreError)>,
}

/// The images of a layout that pass all filters, by name.
pub fn list(layout: &Layout, filters: &[LabelFilter]) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for (reference, image) in layout.images()? {
        let read = image.and_then(|image| {
            let passes = filters.iter().all(|filter| filter.passes(&image.config.config.labels));
            let tag = reference.tag().map(ToString::to_string);
            passes.then(|| row(layout, reference.name(), tag, &image)).transpose()
        });
        match read {
            Ok(row) => listing.rows.extend(row),
            Err(error) => listing.damaged.push((reference.to_string(), error)),
        }
    }
    Ok(listing)
}

fn row(layout: &Layout, repository: String, tag: Option<String>, image: &StoredImage) -> Result<Row, StoreError> {
    let manifest = &image.manifest;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        layers.push((layer.digest, unpacked_size(layout, layer)?));
    }
    let virtual_size = layers.iter().fold(0, |size: u64, (_, layer)| size.saturating_add(*layer));
    let created = image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Ok(Row {
        repository,
        tag: tag.unwrap_or_else(|| "<none>".to_owned()),
        id: manifest.config.digest,
        digest: image.descriptor.digest,
        created: created.map(jiff::Timestamp::as_second),
        virtual_size,
        stored_size: manifest.layers.iter().fold(manifest.config.size, |size, layer| size.saturating_add(layer.size)),
        labels: image.config.config.labels.clone(),
        layers,
    })
}

/// What a layer's files take once unpacked: from its annotation, or by reading a layer that others made.
fn unpacked_size(layout: &Layout, layer: &Descriptor) -> Result<u64, StoreError> {
    if let Some(size) = layer.annotations.get(UNPACKED_SIZE).and_then(|text| text.parse().ok()) {
        return Ok(size);
    }
    let blob = layout.open_blob(layer.digest, layer.size)?;
    add_up(blob).map_err(|source| StoreError::Io { action: "read", path: layout.blob_path(layer.digest), source })
}

fn add_up(blob: impl Read + Send) -> io::Result<u64> {
    let mut size = 0;
    layer::read::entries(decompress(blob)?, |entry, _| {
        size += entry.kind.size();
        Ok(())
    })?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, layers: &[(&str, u64)]) -> Row {
        let layers: Vec<(Digest, u64)> =
            layers.iter().map(|(layer, size)| (Digest::of(layer.as_bytes()), *size)).collect();
        Row {
            repository: name.to_owned(),
            tag: "v1".to_owned(),
            id: Digest::of(name.as_bytes()),
            digest: Digest::of(name.as_bytes()),
            created: None,
            virtual_size: layers.iter().map(|(_, size)| size).sum(),
            stored_size: 0,
            labels: BTreeMap::new(),
            layers,
        }
    }

    #[test]
    fn what_two_images_have_is_shared_and_a_second_name_shares_nothing() {
        let rows = [
            row("one", &[("base", 100), ("one", 5)]),
            row("two", &[("base", 100), ("two", 7), ("both", 1)]),
            row("three", &[("both", 1), ("alone", 40)]),
            Row { tag: "v2".to_owned(), ..row("three", &[("both", 1), ("alone", 40)]) },
        ];
        let found: Vec<(u64, u64)> = sharing(&rows).iter().map(|sharing| (sharing.unique, sharing.shared)).collect();
        assert_eq!(found, [(5, 100), (7, 101), (40, 1), (40, 1)]);
        assert_eq!(bytes_once(&rows), 153);
    }

    #[test]
    fn filters_ask_for_a_label_or_for_its_value() {
        let labels = BTreeMap::from([("net.juniper.contrail".to_owned(), "webui".to_owned())]);
        for (filter, expected) in [
            ("label=net.juniper.contrail", true),
            ("label=net.juniper.contrail=webui", true),
            ("label=net.juniper.contrail=config", false),
            ("label=net.juniper", false),
        ] {
            assert_eq!(filter.parse::<LabelFilter>().unwrap().passes(&labels), expected, "{filter}");
        }
        for filter in ["", "label", "label=", "label==x", "dangling=true"] {
            assert!(filter.parse::<LabelFilter>().is_err(), "{filter}");
        }
    }
}
