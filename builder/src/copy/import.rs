//! Archives into a layout: what `docker save` writes, and OCI image layouts in a tar. Every byte is checked against the
//! digest by which the archive names it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use content::{DiffId, HashingReader};
use layer::compress::{BlockWriter, Compression, decompress};
use oci::{
    Descriptor, Document, DocumentError, ImageConfig, Index, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Manifest, MediaType,
    MediaTypeExt as _, REF_NAME, Reference,
};
use serde::Deserialize;
use store::{Layout, StoreError};

use super::place::{self, PlaceError};
use super::tar_index::TarIndex;
use crate::archive::Format;

/// The largest list of an archive's images.
const MAX_LIST: u64 = 64 << 20;
/// How many indexes may lie in one another.
const MAX_DEPTH: usize = 4;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is no archive, or a part of it is missing or damaged.
    #[error("`{}` cannot be read as {}", file.display(), describe(*format))]
    Read {
        /// The archive.
        file: PathBuf,
        /// What it should be.
        format: Format,
        /// Why not.
        source: io::Error,
    },
    /// The image that was asked for is not there.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

fn describe(format: Format) -> &'static str {
    match format {
        Format::Oci => "an OCI archive",
        Format::Docker => "an archive of Docker's",
    }
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Reads an image of an archive into a layout, and if wanted what else the archive has that is named by digest alone,
/// as statements about images are. With the image's whole name in the archive, if it has one.
pub(super) fn import(
    format: Format,
    file: &Path,
    name: Option<&str>,
    said: bool,
    layout: &Layout,
    room: &Path,
) -> Result<(Option<Reference>, Descriptor), ImportError> {
    let failed = |source| ImportError::Read { file: file.to_owned(), format, source };
    let tar = TarIndex::open(file, room).map_err(failed)?;
    match format {
        Format::Oci => {
            let bytes = tar.small("index.json", MAX_LIST).map_err(failed)?;
            let index: Index = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
            let (name, entry) = place::choose(&index.manifests, name, file)?;
            document(&tar, layout, &entry, MAX_DEPTH).map_err(failed)?;
            for (name, statement) in untagged(&index).filter(|_| said) {
                document(&tar, layout, &statement, MAX_DEPTH).map_err(failed)?;
                layout.set_references(&[(name, statement)]).map_err(|error| failed(io::Error::other(error)))?;
            }
            Ok((name, entry))
        }
        Format::Docker => {
            let bytes = tar.small("manifest.json", MAX_LIST).map_err(failed)?;
            let saved: Vec<Saved> = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
            let (name, saved) = chosen(saved, name, file)?;
            Ok((name, image(&tar, layout, &saved).map_err(failed)?))
        }
    }
}

/// The entries that are named by digest alone.
fn untagged(index: &Index) -> impl Iterator<Item = (Reference, Descriptor)> {
    let named = index.manifests.iter().filter_map(|entry| {
        let name: Reference = entry.annotations.get(REF_NAME)?.parse().ok()?;
        let mut descriptor = entry.clone();
        descriptor.annotations.clear();
        Some((name, descriptor))
    });
    named.filter(|(name, _)| name.tag().is_none())
}

/// A manifest and what it needs, or an index and what it lists of what is there.
fn document(tar: &TarIndex, layout: &Layout, descriptor: &Descriptor, depth: usize) -> io::Result<()> {
    let bytes = tar.small(&blob_path(descriptor), MAX_MANIFEST_SIZE)?;
    let document = Document::parse(&bytes, Some(&descriptor.media_type)).map_err(io::Error::other)?;
    for blob in document.blobs() {
        let there = tar.read(&blob_path(blob));
        if blob.media_type.is_foreign_layer() && there.is_err() {
            continue;
        }
        keep(layout, blob, there?)?;
    }
    for listed in document.manifests() {
        if depth == 0 {
            return Err(io::Error::other("too many indexes lie in one another"));
        }
        if tar.read(&blob_path(listed)).is_ok() {
            self::document(tar, layout, listed, depth - 1)?;
        }
    }
    keep(layout, descriptor, &bytes[..])
}

fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

fn keep(layout: &Layout, descriptor: &Descriptor, mut content: impl Read) -> io::Result<()> {
    if layout.has_blob(descriptor.digest, descriptor.size) {
        return Ok(());
    }
    let mut writer = layout.blob_writer().map_err(io::Error::other)?;
    copy(&mut content, &mut writer)?;
    writer.commit_expecting(descriptor.digest, descriptor.size).map_err(io::Error::other)
}

/// The image that a name means, by Docker's custom; without a name the only one.
fn chosen(saved: Vec<Saved>, name: Option<&str>, file: &Path) -> Result<(Option<Reference>, Saved), PlaceError> {
    let familiar = |text: &str| {
        let reference = Reference::parse_familiar(text).ok()?;
        let tag = reference.tag().cloned().unwrap_or_else(oci::Tag::latest);
        Some(reference.with_tag(Some(tag)))
    };
    let names = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let there: Vec<String> = saved.iter().flat_map(names).take(20).collect();
    let wanted = name.map(|name| (name, familiar(name)));
    let means = |image: &Saved| match &wanted {
        None => true,
        Some((text, reference)) => {
            names(image).iter().any(|tag| tag == text || reference.is_some() && familiar(tag) == *reference)
        }
    };
    let mut found: Vec<Saved> = saved.into_iter().filter(means).collect();
    match (found.pop(), name) {
        (Some(only), name) if found.is_empty() => {
            let tags = names(&only);
            let called = name.or(tags.first().map(String::as_str)).and_then(familiar);
            Ok((called, only))
        }
        (None, Some(name)) => Err(PlaceError::Missing { place: file.into(), name: name.into(), there }),
        _ => Err(PlaceError::Several { place: file.into(), there }),
    }
}

/// An image that Docker saved, as an OCI image with the same configuration. Layers are compressed if they were not.
fn image(tar: &TarIndex, layout: &Layout, saved: &Saved) -> io::Result<Descriptor> {
    let config = tar.small(&saved.config, MAX_CONFIG_SIZE)?;
    let parsed = ImageConfig::parse(&config).map_err(|error: DocumentError| io::Error::other(error))?;
    let (listed, stored) = (parsed.rootfs.diff_ids.len(), saved.layers.len());
    if listed != stored {
        return Err(io::Error::other(format!("the image has {stored} layers, and its configuration lists {listed}")));
    }
    let mut layers = Vec::with_capacity(stored);
    for (name, diff_id) in saved.layers.iter().zip(&parsed.rootfs.diff_ids) {
        layers.push(layer(tar, layout, name, *diff_id)?);
    }
    let kept = |stored: Result<_, StoreError>| stored.map_err(io::Error::other);
    kept(layout.put_bytes(&config))?;
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config), layers).to_bytes();
    kept(layout.put_bytes(&manifest))?;
    Ok(Descriptor::of(MediaType::ImageManifest, &manifest))
}

fn layer(tar: &TarIndex, layout: &Layout, name: &str, diff_id: DiffId) -> io::Result<Descriptor> {
    let mut magic = Vec::new();
    tar.read(name)?.take(4).read_to_end(&mut magic)?;
    let kind = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Some(MediaType::ImageLayerGzip),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(MediaType::ImageLayerZstd),
        _ => None,
    };
    let mut unpacked = HashingReader::new(decompress(tar.read(name)?)?);
    let mut blob = layout.blob_writer().map_err(io::Error::other)?;
    match kind {
        // Its bytes stay; they are read once more to see what they unpack to.
        Some(_) => {
            copy(&mut tar.read(name)?, &mut blob)?;
            copy(&mut unpacked, &mut io::sink())?;
        }
        None => {
            let mut compressed = BlockWriter::new(blob, Compression::Gzip);
            copy(&mut unpacked, &mut compressed)?;
            blob = compressed.finish()?.0;
        }
    }
    let (_, found, _) = unpacked.finish();
    if found != diff_id.0 {
        return Err(io::Error::other(format!("layer `{name}` unpacks to {found}, expected {diff_id}")));
    }
    let (digest, size) = blob.commit().map_err(io::Error::other)?;
    Ok(Descriptor::new(kind.unwrap_or(MediaType::ImageLayerGzip), digest, size))
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}
