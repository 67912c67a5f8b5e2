//! What `docker load` reads: `manifest.json` with the configuration, names and layers of each image, then these files,
//! each once. See "Docker Image Specification v1.2", and what Docker and Podman make of it.
//!
//! Layers keep their gzip, which all readers undo. Those in zstd are unpacked, since Docker reads that only in later
//! versions.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use content::{DiffId, Digest};
use layer::compress::decompress;
use oci::{Compression, Descriptor, Document, ImageConfig, Manifest, MediaTypeExt, Platform, Reference};
use serde::Serialize;
use store::{Layout, StoreError};

use super::{ArchiveError, Named, TarWriter, document, unreadable};

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Loaded {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// A file of the archive.
enum File {
    /// A blob as it is.
    Stored(Descriptor),
    /// A layer, unpacked.
    Unpacked(Descriptor, DiffId),
}

/// Writes the image of each name for `platform` as an archive.
pub fn docker_archive(
    layout: &Layout,
    images: &[Named],
    platform: &Platform,
    out: impl Write,
) -> Result<(), ArchiveError> {
    let mut loaded: BTreeMap<Digest, Loaded> = BTreeMap::new();
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    for (reference, descriptor) in images {
        let manifest = manifest(layout, reference, descriptor, platform)?;
        let image = loaded.entry(manifest.config.digest);
        let image = match image {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(add(layout, reference, &manifest, &mut files)?)
            }
        };
        // Docker knows names with tags only.
        if reference.tag().is_some() {
            image.repo_tags.push(reference.clone().with_digest(None).to_string());
        }
    }
    for image in loaded.values_mut() {
        image.repo_tags.sort();
        image.repo_tags.dedup();
    }
    let mut list: Vec<Loaded> = loaded.into_values().collect();
    list.sort_by(|left, right| (&left.repo_tags, &left.config).cmp(&(&right.repo_tags, &right.config)));
    let list = oci::canonical_bytes(&list).expect("strings are JSON");
    let mut tar = TarWriter::new(out);
    tar.bytes("manifest.json", &list)?;
    for (name, file) in &files {
        match file {
            File::Stored(blob) => tar.blob(name, layout, blob)?,
            File::Unpacked(blob, diff_id) => unpacked(&mut tar, name, layout, blob, *diff_id)?,
        }
    }
    tar.finish().map(|_| ())
}

/// The image of this platform that a name leads to.
fn manifest(
    layout: &Layout,
    reference: &Reference,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<Manifest, ArchiveError> {
    let read =
        |descriptor: &Descriptor| layout.read_document(descriptor).map_err(|source| unreadable(reference, source));
    let of_platform =
        || ArchiveError::Platform { reference: Box::new(reference.clone()), platform: Box::new(platform.clone()) };
    match read(descriptor)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(index) => match read(index.select(platform).ok_or_else(of_platform)?)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(of_platform()),
        },
    }
}

/// Names the files of an image.
fn add(
    layout: &Layout,
    reference: &Reference,
    manifest: &Manifest,
    files: &mut BTreeMap<String, File>,
) -> Result<Loaded, ArchiveError> {
    let unreadable = |source| unreadable(reference, source);
    let bytes = document(layout, reference, &manifest.config)?;
    let digest = manifest.config.digest;
    let parsed = ImageConfig::parse(&bytes).map_err(|source| unreadable(StoreError::Document { digest, source }))?;
    let config = format!("{}.json", digest.hex());
    files.insert(config.clone(), File::Stored(manifest.config.clone()));
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
        let (name, file) = match layer.media_type.layer_compression() {
            Some(Compression::Gzip) => (format!("{}.tar.gz", layer.digest.hex()), File::Stored(layer.clone())),
            Some(Compression::None) => (format!("{}.tar", layer.digest.hex()), File::Stored(layer.clone())),
            _ => (format!("{}.tar", diff_id.0.hex()), File::Unpacked(layer.clone(), *diff_id)),
        };
        layout.open_blob(layer.digest, layer.size).map_err(unreadable)?;
        files.insert(name.clone(), file);
        layers.push(name);
    }
    Ok(Loaded { config, repo_tags: Vec::new(), layers })
}

/// Writes a layer unpacked. How large it is has to be known before, so it is read twice.
fn unpacked<W: Write>(
    tar: &mut TarWriter<W>,
    name: &str,
    layout: &Layout,
    blob: &Descriptor,
    diff_id: DiffId,
) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Write { entry: name.to_owned(), source };
    let open = || -> io::Result<Box<dyn Read>> {
        let blob = layout.open_blob(blob.digest, blob.size).map_err(io::Error::other)?;
        Ok(Box::new(decompress(blob)?))
    };
    let size = open().and_then(|mut layer| io::copy(&mut layer, &mut io::sink())).map_err(failed)?;
    let mut layer = content::VerifyingReader::new(open().map_err(failed)?, diff_id.0, size);
    tar.file(name, size, &mut layer)
}
