//! The file of `--metadata-file`: what was built and pushed, for scripts.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use content::Digest;
use drystone::build::{BuiltImage, Finished, StepReport};
use drystone::image::Layer;
use drystone::push::PushTotals;
use serde::Serialize;

use crate::failure::Failure;

#[derive(Serialize)]
struct Metadata<'a> {
    images: Vec<ImageMetadata<'a>>,
    totals: Totals,
}

#[derive(Serialize)]
struct ImageMetadata<'a> {
    name: String,
    reference: String,
    /// Which of several platforms it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    digest: Digest,
    /// That of the index which the name stands for, if there are several platforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<Digest>,
    config_digest: Digest,
    /// Stored bytes of all blobs of the image.
    size: u64,
    virtual_size: u64,
    layers: Vec<LayerMetadata<'a>>,
    steps: &'a [StepReport],
}

#[derive(Serialize)]
struct LayerMetadata<'a> {
    digest: Digest,
    diff_id: Digest,
    size: u64,
    uncompressed_size: u64,
    media_type: String,
    from: &'a str,
    packages: &'a [String],
}

#[derive(Serialize)]
struct Totals {
    seconds: f64,
    layers: usize,
    unique_layers: usize,
    /// Bytes of all layers of all images, shared ones as often as they are used.
    bytes: u64,
    unique_bytes: u64,
    pushed_bytes: u64,
    mounted_bytes: u64,
}

/// Writes the file, whole or not at all.
pub fn write(
    path: &Path,
    (images, named): (&[BuiltImage], &[Finished]),
    pushed: PushTotals,
    seconds: f64,
) -> Result<(), Failure> {
    let layers: Vec<&Layer> = images.iter().flat_map(|image| &image.layers).collect();
    let unique: BTreeMap<Digest, u64> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    let metadata = Metadata {
        images: images.iter().map(|built| image(built, named)).collect(),
        totals: Totals {
            seconds,
            layers: layers.len(),
            unique_layers: unique.len(),
            bytes: layers.iter().map(|layer| layer.size).sum(),
            unique_bytes: unique.values().sum(),
            pushed_bytes: pushed.pushed_bytes,
            mounted_bytes: pushed.mounted_bytes,
        },
    };
    write_json(path, &metadata)
}

fn image<'a>(image: &'a BuiltImage, named: &[Finished]) -> ImageMetadata<'a> {
    let named = named.iter().find(|named| named.reference == image.reference).map(|named| named.manifest.digest);
    let index = named.filter(|named| *named != image.manifest.digest);
    ImageMetadata {
        name: image.name.to_string(),
        reference: image.reference.to_string(),
        platform: index.map(|_| image.platform().to_string()),
        digest: image.manifest.digest,
        index,
        config_digest: image.config_digest,
        size: image.stored_size(),
        virtual_size: image.virtual_size(),
        layers: image.layers.iter().map(layer).collect(),
        steps: &image.steps,
    }
}

fn layer(layer: &Layer) -> LayerMetadata<'_> {
    LayerMetadata {
        digest: layer.digest,
        diff_id: layer.diff_id.0,
        size: layer.size,
        uncompressed_size: layer.uncompressed_size,
        media_type: layer.media_type.to_string(),
        from: &layer.from,
        packages: &layer.packages,
    }
}

/// Writes JSON beside the file and then in its place.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write `{}`: {error}", path.display()));
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out = BufWriter::new(&mut file);
    serde_json::to_writer_pretty(&mut out, value).map_err(|error| failed(error.into()))?;
    writeln!(out).and_then(|()| out.flush()).map_err(failed)?;
    drop(out);
    file.as_file().sync_all().map_err(failed)?;
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
